"""For the tests of training: a tiny network, pictures whose masks differ much, and processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit import M3ViT, M3ViTConfig, train
from m3vit.config import Config, from_dict
from m3vit.tasks import IGNORE

HEIGHT, WIDTH = 32, 48
TASKS = {"semseg": 3, "human_parts": 7, "sal": 2, "edge": 1, "normals": 3, "depth": 1}
TWO = {"semseg": 3, "depth": 1}  # tasks that are quickly judged
NETWORK: dict[str, Any] = {
    "height": HEIGHT,
    "width": WIDTH,
    "dim": 16,
    "heads": 2,
    "blocks": 2,
    "experts": 4,
    "top_k": 2,
    "mlp_ratio": 2.0,
    "head_width": 6,
    "noise_std": 0.0,
}


class Masked:
    """Pictures and labels of noise. The later a picture, the more of it is not judged."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int | tuple[int, int]) -> dict[str, Tensor]:
        index = place[1] if isinstance(place, tuple) else place
        random = torch.Generator().manual_seed(index)

        def classes(count: int, *shape: int) -> Tensor:
            return torch.randint(0, count, (*shape, HEIGHT, WIDTH), generator=random)

        sample = {
            "image": torch.randn(3, HEIGHT, WIDTH, generator=random),
            "semseg": classes(3),
            "human_parts": classes(7),
            "sal": (classes(4) == 0).long(),
            "edge": (classes(5, 1) == 0).float(),
            "normals": F.normalize(torch.randn(3, HEIGHT, WIDTH, generator=random), dim=0),
            "depth": 1 + torch.rand(1, HEIGHT, WIDTH, generator=random),
        }
        for number, name in enumerate(TASKS):
            rows = (3 * index + number) % HEIGHT
            sample[name][..., :rows, :] = 0 if name in ("normals", "depth") else IGNORE
        return sample


def config(save_dir: object, **sections: dict[str, Any]) -> Config:
    """A short run: 2 epochs of 2 steps of 5 pictures, SGD."""
    values: dict[str, Any] = {
        "tasks": TASKS,
        "data": {"height": HEIGHT, "width": WIDTH},
        "optimiser": {"lr": 0.01},
        "train": {"epochs": 2, "batch": 5, "threads": 1},
    }
    for name, section in sections.items():
        values[name] = section if name == "tasks" else {**values.get(name, {}), **section}
    return from_dict({**values, "save_dir": str(save_dir)})


def network(config: Config, **changes: Any) -> M3ViT:
    return M3ViT(M3ViTConfig(**{**NETWORK, "tasks": config.task_list, **config.model, **changes}))


def use_tiny(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Has train.py take the network and the pictures of this file, the network as the config's `model` changes it."""
    patch(train, "build_model", network)
    patch(train, "build_dataset", lambda data, split, tasks, seed: Masked(11 if split == "train" else 3))


# --------------------------------------------------------------------------------------
# Processes. They are forked from one that has imported this file and has no threads.

CONTEXT = multiprocessing.get_context("forkserver")
torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # the first optimiser imports much more


def _get_ready() -> None:
    """Before 3.13 the process to fork from looks for what it imports in PYTHONPATH alone."""
    CONTEXT.set_forkserver_preload(["tiny"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    forkserver.ensure_running()
    del os.environ["PYTHONPATH"]
    if before is not None:
        os.environ["PYTHONPATH"] = before


def together(size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in so many processes, which are told of each other as torchrun does it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r), **common} for r in range(size)]
    processes = [launch(function, *arguments, environment=rank) for rank in ranks]
    for process in processes:
        process.join(120)
    ended = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert ended == [0] * size


def launch(function: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None) -> Any:
    _get_ready()
    process = CONTEXT.Process(target=_begin, args=(function, arguments, environment or {}))
    process.start()
    return process


def _begin(function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)
