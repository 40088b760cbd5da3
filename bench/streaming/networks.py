"""The networks whose weights are streamed, and what is made of each:

    FOLDER/NAME/model.onnx      random weights, mixtures of experts as com.microsoft::MoE
    FOLDER/NAME/inputs/*.npy    one set of inputs
    FOLDER/NAME/stream, embed   compiled, with the program that runs it (build.py)

Those named moe… differ in the number of experts only: a dense block and a block with experts, 1025 tokens, four experts for
each, 1.05 MB an expert.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.folders import digest, prepared

SOURCES = (
    "bench/streaming/make.py",
    "training/m3vit/export.py",
    "training/m3vit/lower.py",
    "training/m3vit/model.py",
    "training/m3vit/moe.py",
)


@dataclass(frozen=True)
class Network:
    name: str
    title: str
    preset: str
    options: dict[str, Any] = field(default_factory=dict)  # of M3ViTConfig
    tasks: int = 1
    compiled: tuple[str, ...] = ()  # options of the compiler
    quick: bool = False
    family: bool = False  # memory is compared over the number of experts
    limited: bool = False  # is also run with a quarter of its pack as memory
    modes: bool = False  # mapped, embedded and loaded weights are compared


def _experts(count: int, **more: Any) -> Network:
    options = {"height": 512, "width": 512, "dim": 256, "heads": 4, "blocks": 2, "top_k": 4, "expert_ratio": 2.0}
    return Network(
        f"moe{count}", f"{count} experts", "small", {**options, "experts": count, "decoder": "none"}, family=True, **more
    )


NETWORKS = [
    Network("tiny_bb", "M³ViT tiny, backbone", "tiny", {"decoder": "none"}, quick=True, limited=True, modes=True),
    Network(
        "tiny_bb_8m",
        "M³ViT tiny, backbone, 8 MB resident",
        "tiny",
        {"decoder": "none"},
        compiled=("--resident", "8000000"),
    ),
    Network("tiny", "M³ViT tiny 128×256", "tiny", {"decoder": "up"}),
    Network("tiny5_bb", "M³ViT tiny, backbone, five tasks", "tiny", {"decoder": "none"}, tasks=5),
    _experts(16, quick=True),
    _experts(64),
    _experts(256, limited=True, modes=True),
    _experts(1024, limited=True),
]


def stamp(network: Network) -> str:
    """Identifies the sources that a network is made with, and its options."""
    return f"{digest(SOURCES)} {network.preset} {network.tasks} {json.dumps(network.options)}"


def prepare(network: Network, root: Path) -> Path:
    """The network's folder, made now unless it is there."""
    return prepared(root / network.name, stamp(network), "bench.streaming.make")
