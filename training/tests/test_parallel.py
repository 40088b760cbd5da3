"""Two processes train what one does: with all weights in both, and with the experts shared out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from m3vit import parallel, train
from m3vit.config import Config
from m3vit.model import MoE

State = dict[str, Any]


def with_an_unused_weight(config: Config) -> nn.Module:
    """No process has a gradient for it, so that not even weight decay changes it."""
    model = tiny.network(config)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return model


def run(folder: Path, sections: dict[str, dict[str, Any]], epochs: int) -> None:
    """Trains up to an epoch, in as many processes as there are, in float64: what differs then is no rounding."""
    torch.set_default_dtype(torch.float64)
    tiny.use_tiny()
    train.build_model = with_an_unused_weight
    with parallel.world() as world:
        run = train.start(tiny.config(folder, **sections), world)
        layers = [m for m in run.model.modules() if isinstance(m, MoE)]
        share = world.size if run.config.train.expert_parallel else 1
        assert [len(m.experts.fc1_weight) for m in layers] == [4 // share]
        if epochs == run.config.train.epochs:
            train.train(run)
        else:
            train.train_one_epoch(run)
            run.epoch, run.batch = 1, 0
            train.save(run, "last.pt")


def trained(folder: Path, size: int, epochs: int = 2, **sections: dict[str, Any]) -> State:
    tiny.together(size, run, folder, sections, epochs)
    return torch.load(folder / "last.pt", weights_only=True)


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def assert_same(one: State, two: State) -> None:
    for kind in ("weights", *one["optimiser"]):
        a, b = (s["model"] if kind == "weights" else s["optimiser"][kind] for s in (one, two))
        assert list(a) == list(b)
        for name in a:
            # The gradient of a bias before a batch normalisation is 0 but for rounding.
            scale = largest(b) if kind != "weights" and name.endswith("conv.bias") else float(b[name].abs().max())
            assert float((a[name] - b[name]).abs().max()) <= 1e-9 * scale, f"{kind} of {name}"


def largest(state: dict[str, Tensor]) -> float:
    return max(float(x.abs().max()) for x in state.values())


SGD = {"optimiser": {"clip": 5.0}, "train": {"balance": 0.1}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, trained(folder, 1, **SGD)


@pytest.mark.parametrize("expert_parallel", [False, True])
def test_two_processes_do_what_one_does(alone: tuple[Path, State], tmp_path: Path, expert_parallel: bool) -> None:
    """Batches of 5 are shared as 2 and 3, with batch normalisation, masks and balance; 3 pictures are evaluated."""
    folder, one = alone
    two = trained(tmp_path, 2, optimiser=SGD["optimiser"], train={**SGD["train"], "expert_parallel": expert_parallel})
    assert one["step"] == two["step"] == 4
    assert_same(two, one)
    for name in ("train.csv", "validation.csv"):
        expected, found = rows(folder / name), rows(tmp_path / name)
        assert len(expected) == len(found) == (4 if name == "train.csv" else 2)
        for a, b in zip(found, expected, strict=True):
            assert a == pytest.approx(b, rel=1e-6)
    assert all(row["balance"] > 0 and row["gradient"] > 5 for row in rows(tmp_path / "train.csv"))


def test_one_process_goes_on_where_two_stopped(alone: tuple[Path, State], tmp_path: Path) -> None:
    half = trained(tmp_path, 2, epochs=1, **SGD)
    assert half["step"] == 2
    assert_same(trained(tmp_path, 1, **SGD), alone[1])


def test_experts_that_cannot_be_shared_evenly() -> None:
    model = tiny.network(tiny.config("unused"))
    with pytest.raises(ValueError, match="4 experts cannot be shared evenly by 3 processes"):
        parallel.shard_experts(model, parallel.World(0, 3))


@pytest.mark.parametrize(("count", "size"), [(8, 2), (5, 2), (7, 3)])
def test_a_batch_is_shared_out_whole(count: int, size: int) -> None:
    shares = [parallel.shard_batch(count, parallel.World(rank, size)) for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
