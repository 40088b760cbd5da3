"""The networks that are measured, and the files of each:

    FOLDER/NAME/FORM.onnx       the same network in the forms that suit different runtimes
    FOLDER/NAME/module.pt       and for PyTorch
    FOLDER/NAME/inputs/*.npy    one set of inputs, on which no choice of an expert is close
    FOLDER/NAME/expected/*.npy  what PyTorch gives for them in float64
    FOLDER/NAME/network.json    its arithmetic, and what it was made with

Forms are those of training/m3vit/lower.py; `plain` is what torch.onnx.export writes of a network of the transformers
library (Mixtral's experts are gathered per token there). models.py makes them, in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.folders import NOTE, digest, prepared

Arrays = dict[str, NDArray[Any]]

SOURCES = (
    "bench/models.py",
    "training/m3vit/export.py",
    "training/m3vit/lower.py",
    "training/m3vit/model.py",
    "training/m3vit/moe.py",
    "tests/models/transformer_nets.py",
    "tests/models/weights.py",
)
PACKAGES = ("torch", "onnx", "onnxscript", "transformers")


@dataclass(frozen=True)
class Network:
    name: str
    title: str
    kind: str  # the function of models.py that makes it
    options: dict[str, Any] = field(default_factory=dict)
    quick: bool = False  # in a run with --quick
    everyone: bool = False  # also given to contenders that take minutes to get ready
    orders: bool = False  # expert-major is compared with token-major
    switching: bool = False  # several tasks: switching, and all at once against one after another


def _m3vit(name: str, title: str, preset: str, decoder: str, tasks: str, **more: Any) -> Network:
    return Network(name, title, "m3vit", {"preset": preset, "decoder": decoder, "tasks": tasks}, **more)


def _transformer(name: str, title: str, architecture: str, **more: Any) -> Network:
    return Network(name, title, "transformer", {"name": architecture}, **more)


def _layer(name: str, title: str, experts: int, **more: Any) -> Network:
    """M³ViT small's, with 1025 tokens."""
    return Network(name, title, "layer", {"tokens": 1025, "dim": 384, "width": 384, "experts": experts, "top_k": 4}, **more)


NETWORKS = [
    _m3vit("tiny", "M³ViT tiny 128×256", "tiny", "up", "one", quick=True, everyone=True, orders=True),
    _m3vit("tiny_bb", "M³ViT tiny, backbone", "tiny", "none", "one", orders=True),
    _m3vit("tiny5", "M³ViT tiny, five tasks", "tiny", "up", "all", switching=True),
    _m3vit("tiny5_bb", "M³ViT tiny, backbone, five tasks", "tiny", "none", "all", switching=True),
    _m3vit("small", "M³ViT small 512×512", "small", "up", "one"),
    _m3vit("small_bb", "M³ViT small, backbone", "small", "none", "one"),
    _m3vit("small5", "M³ViT small, five tasks", "small", "up", "all", switching=True),
    _m3vit("small5_bb", "M³ViT small, backbone, five tasks", "small", "none", "all", switching=True),
    _transformer("vit", "ViT-S/16 224", "vit", everyone=True),
    _transformer("deit", "DeiT-Ti 224", "deit"),
    _transformer("swinv2", "SwinV2-T 256", "swinv2"),
    _transformer("convnext", "ConvNeXt-T 224", "convnext"),
    _transformer("resnet", "ResNet-50 224", "resnet", everyone=True),
    _transformer("mobilenetv2", "MobileNetV2 224", "mobilenetv2", quick=True, everyone=True),
    _transformer("mixtral", "Mixtral block, top-2 of 8", "mixtral", orders=True),
    _layer("moe16", "MoE layer, top-4 of 16", 16, quick=True, everyone=True, orders=True),
    _layer("moe256", "MoE layer, top-4 of 256", 256, orders=True),
]  # fmt: skip


@dataclass(frozen=True)
class Files:
    """A network on disk."""

    network: Network
    folder: Path
    inputs: list[str]
    outputs: list[str]
    flops: float  # as PyTorch computes it, each token seeing only its own experts; a multiply-add is two

    def form(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"

    def arrays(self, kind: str) -> Arrays:
        """`inputs` or `expected`, by name."""
        names = self.inputs if kind == "inputs" else self.outputs
        return {name: np.load(self.folder / kind / f"{name}.npy") for name in names}


def stamp(network: Network) -> str:
    """Identifies the sources and versions a network is made with."""
    versions = " ".join(f"{p}-{importlib.metadata.version(p)}" for p in PACKAGES)
    return f"{digest(SOURCES)} {versions} {network.kind} {json.dumps(network.options)}"


def prepare(network: Network, root: Path) -> Files:
    """The network's files, made now unless they are there."""
    folder = prepared(root / network.name, stamp(network), "bench.models")
    facts = json.loads((folder / NOTE).read_text())
    return Files(network, folder, facts["inputs"], facts["outputs"], facts["flops"])
