"""M3ViT networks of a few blocks, in every form a mixture of experts comes in.

A case is one network with its inputs and float64 outputs; each of its forms is
a model with the same weights, inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from m3vit_package import MEAN, STD, TASK_SETS, TRAINING, export, lower, model, task_set
from testset import ROUTING_MARGIN, Array, Network, expected
from weights import randomise

# Form: what lower() is asked for, or None: torch.onnx.export of the Python loop as it is.
FORMS: dict[str, tuple[str, str] | None] = {
    "moe": ("moe", "dense"),
    "dense": ("dense", "dense"),
    "routed": ("routed", "dense"),
    "function": ("function", "dense"),
    "function-routed": ("function", "routed"),
    "torch-dense": None,
    "torch-routed": None,
}
_BASE: dict[str, Any] = {
    "height": 64,
    "width": 64,
    "dim": 48,
    "heads": 3,
    "blocks": 4,
    "mlp_ratio": 2.0,
    "experts": 4,
    "top_k": 2,
    "expert_ratio": 1.0,
    "head_width": 16,
    "tasks": task_set(semseg=5, depth=1),
}


@dataclass(frozen=True)
class Case:
    config: dict[str, Any]
    seed: int = 0
    opset: int = 20
    runs: int = 1
    forms: tuple[str, ...] = ("moe", "dense", "routed", "function")
    bias: tuple[float, ...] | None = None  # of the experts' scores
    quick: bool = field(default=False)


CASES: dict[str, Case] = {
    "plain": Case({}, runs=2, forms=tuple(FORMS), quick=True),
    "seed1": Case({"tasks": TASK_SETS["pascal"]}, seed=1),
    "one-task": Case({"tasks": task_set(depth=1)}, seed=2),
    # No dimension a multiple of a vector's width, not even the head's.
    "odd": Case(
        {
            "height": 80,
            "width": 48,
            "dim": 72,
            "heads": 3,
            "experts": 5,
            "top_k": 3,
            "expert_ratio": 1.4,
            "mlp_ratio": 1.7,
            "head_width": 13,
            "tasks": task_set(semseg=7, normals=3),
        },
        seed=3,
        forms=("moe", "dense", "routed", "function", "function-routed"),
        quick=True,
    ),
    # The grid does not fill the picture: the last Resize is by no whole number.
    "ragged": Case(
        {
            "height": 70,
            "width": 45,
            "dim": 35,
            "heads": 5,
            "experts": 3,
            "top_k": 1,
            "expert_ratio": 2.0,
            "head_width": 9,
        },
        seed=4,
    ),
    "long": Case(
        {
            "height": 128,
            "width": 256,
            "dim": 24,
            "heads": 2,
            "experts": 8,
            "head_width": 8,
            "tasks": task_set(semseg=3),
        },
        seed=5,
    ),
    "herd": Case({"top_k": 1}, seed=6, bias=(0, 0, 5, 0)),  # every token on expert 2
    "herd-of-two": Case({}, seed=7, bias=(5, 0, 0, 5)),
    "unloved": Case({"experts": 6}, seed=8, bias=(0, -20, 0, 0, -20, 0)),  # 1 and 4 get none
    "all-chosen": Case({"top_k": 4}, seed=9),  # k = experts
    # Many experts, and few tokens or none for each.
    "crowd": Case(
        {
            "dim": 24,
            "blocks": 2,
            "mlp_ratio": 1.0,
            "experts": 96,
            "top_k": 4,
            "expert_ratio": 0.5,
            "head_width": 8,
        },
        seed=16,
        forms=("moe", "dense", "routed", "function", "function-routed"),
    ),
    "one-expert": Case({"experts": 1, "top_k": 1}, seed=10),
    "noisy": Case({"gate": "noisy"}, seed=11, forms=tuple(FORMS)),  # softmax over the chosen
    "noisy-odd": Case({"gate": "noisy", "experts": 5, "top_k": 3, "height": 48}, seed=12),
    "conditioned": Case(
        {
            "routing": "conditioned",
            "gate_task_specific_dim": 8,
            "tasks": task_set(semseg=5, depth=1, edge=1),
        },
        seed=13,
        runs=3,
        forms=("moe", "dense", "routed", "function", "torch-routed"),
    ),
    "opset17": Case({}, seed=14, opset=17),
    "opset18": Case({}, seed=15, opset=18, forms=("moe", "dense", "function", "torch-dense")),
}


# Sizes used in practice, with the package's own random weights.
FULL: dict[str, dict[str, Any]] = {
    "nano": {},
    "tiny": {},
    "small": {"tasks": TASK_SETS["pascal"][:1]},
}


def build(case: Case) -> model.M3ViT:
    """The network of a case, with random weights."""
    net = model.M3ViT(model.M3ViTConfig(**{**_BASE, **case.config}))
    randomise(net, torch.Generator().manual_seed(case.seed))
    if case.bias is not None:
        _bias_routers(net, case.bias)
    return net.eval()


def _bias_routers(net: model.M3ViT, bias: tuple[float, ...]) -> None:
    """Routers have no bias: the norm before them makes one channel a constant instead."""
    state = net.state_dict()  # shares its memory with the parameters
    for name, value in state.items():
        if ".moe.router.gates." in name:
            value[:, 0] = torch.tensor(bias)
            norm = name.split(".moe.")[0] + ".norm2"
            state[f"{norm}.weight"][0] = 0
            state[f"{norm}.bias"][0] = 1


def _run(
    net: model.M3ViT, inputs: dict[str, torch.Tensor], margin: float
) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Inputs and the outputs they give, unless a choice of an expert was close."""
    outputs, margins = export.reference(net, inputs)
    if min(margins.values()) < margin:
        return None
    return (
        {k: v.numpy() for k, v in inputs.items()},
        {k: expected(v.numpy()) for k, v in outputs.items()},
    )


def _runs(
    net: model.M3ViT, count: int, seed: int, margin: float
) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    for run in range(count):
        for attempt in range(100):
            task = run % len(net.heads)
            inputs = export.example_inputs(net, 1000 * seed + 100 * run + attempt, task)
            if found := _run(net, inputs, margin):
                yield found
                break
        else:
            raise RuntimeError(f"no input with a routing margin of {margin}")


def _as_torch_does(net: model.M3ViT, dense: bool, opset: int) -> onnx.ModelProto:
    """What torch.onnx.export makes of the Python loop over the experts, without notes."""
    for moe in net.moe_layers().values():
        moe.mix = model.masked if dense else model.routed
    inputs = export.example_inputs(net)
    args, outputs = tuple(inputs.values()), list(net.heads)
    graph = export.to_onnx(net, args, list(inputs), outputs, opset)
    export.strip(graph)
    if net.config.routing == "conditioned":  # tasks are bound to a task_id by notes alone
        export.describe(graph, net.config)
    return graph


def make(name: str) -> Iterator[tuple[str, Network]]:
    """All networks of a case, by name."""
    case = CASES[name]
    net = build(case)
    runs = list(_runs(net, case.runs, case.seed, ROUTING_MARGIN))
    base = export.export(net, "moe", opset=case.opset)
    for form in case.forms:
        lowering = FORMS[form]
        if lowering is None:
            graph = _as_torch_does(net, form == "torch-dense", case.opset)
        else:
            graph = lower.lower(base, *lowering)
        yield f"m3vit-{name}-{form}", Network(graph, runs)


def photo(config: model.M3ViTConfig) -> torch.Tensor:
    """The photograph of examples/, stretched to the network's picture and normalised."""
    with Image.open(TRAINING.parent / "examples" / "photo.jpg") as image:
        size = (config.width, config.height)
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    normalised = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    return torch.tensor(normalised.transpose(2, 0, 1)[None].copy(), dtype=torch.float32)


def make_full(preset: str) -> Network:
    """A preset as the exporter writes it; nano (that of examples/nano, untrained) is shown the photograph.

    In a large network some choice is always close, so less of a margin is asked for.
    """
    torch.manual_seed(0)
    net = model.M3ViT(model.M3ViTConfig.preset(preset, **FULL[preset])).eval()
    shown = _run(net, {"image": photo(net.config)}, ROUTING_MARGIN) if preset == "nano" else None
    runs = [shown] if shown else list(_runs(net, 1, 0, ROUTING_MARGIN / 10))
    return Network(export.export(net), runs)
