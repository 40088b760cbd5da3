"""ONNX of whatever zoo.py builds, and of a training run's checkpoint. (M3ViT's own way there is in export.py.)"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from m3vit.config import Config, ConfigError, from_dict
from m3vit.export import (
    MARGIN,
    PICTURES,
    TOLERANCE,
    ExportError,
    as_node,
    check,
    describe,
    export,
    merge_duplicates,
    mixing,
    name_layers,
    run,
    to_onnx,
)
from m3vit.lower import lower
from m3vit.model import M3ViT, M3ViTConfig, MoE, routed
from m3vit.tasks import Task
from m3vit.zoo import build_model


def load_checkpoint(path: str | Path) -> tuple[Config, nn.Module]:
    """The configuration and the trained network of a best.pt or last.pt."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        config = from_dict(state["config"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{path} is not a checkpoint of m3vit.train") from error
    model = build_model(config, pretrained=False)
    model.load_state_dict(state["model"])
    return config, model.eval()


def export_any(
    model: nn.Module, height: int, width: int, opset: int = 20, form: str = "function", body: str = "dense"
) -> onnx.ModelProto:
    """A network as ONNX: input image [1, 3, height, width], one output per task, described in the metadata."""
    if isinstance(model, M3ViT):
        return export(model, form, body, opset)
    tasks = tasks_of(model)
    model = folded(model)
    with mixing(mixtures(model), as_node):
        graph = to_onnx(model, (picture(0, height, width),), ["image"], [task.name for task in tasks], opset)
    merge_duplicates(graph.graph)
    name_layers(graph)
    describe(graph, M3ViTConfig(tasks=tasks))  # as an M3ViT's whose only input is the picture
    graph.producer_name, graph.producer_version, graph.graph.name = "m3vit", "", type(model).__name__.lower()
    graph = lower(graph, form, body)
    onnx.checker.check_model(graph)
    return graph


def folded(model: nn.Module) -> nn.Module:
    """A copy for evaluation, in which convolutions do what the batch normalisation after them did.

    The exporter would do so too, but needs twice the time for a graph twice as large.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for (conv_name, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, nn.Identity())
    return model


def check_any(model: nn.Module, graph: onnx.ModelProto, height: int, width: int) -> float:
    """Compares the graph in onnxruntime with the network in float64. Returns the largest error of an output.

    The picture is the first on which no routing depends on rounding (see export.check). In a deep network rounding may
    grow: ten times PyTorch's own error in float32 is allowed.
    """
    if isinstance(model, M3ViT):
        return check(model, graph)
    plain = lower(graph, "routed") if any(node.domain == "com.microsoft" for node in graph.graph.node) else graph
    for seed in range(PICTURES):
        image = picture(seed, height, width)
        wanted, margin = reference(model, image)
        if margin >= MARGIN:
            break
    else:
        raise ExportError(f"in each of {PICTURES} pictures two experts' scores were closer than {MARGIN:.0e}")
    got = run(plain, {"image": image})
    with torch.no_grad():
        single = model.eval()(image)
    worst = 0.0
    for name, want in wanted.items():
        largest = float(want.abs().max())
        error = float(np.abs(got[name] - want.numpy()).max()) / largest
        allowed = max(TOLERANCE, 10 * float((single[name] - want).abs().max()) / largest)
        if not error <= allowed:
            raise ExportError(
                f"output {name} differs from PyTorch by {error:.1e} of its largest value, allowed is {allowed:.0e}"
            )
        worst = max(worst, error)
    return worst


def reference(model: nn.Module, image: Tensor) -> tuple[Mapping[str, Tensor], float]:
    """Outputs in float64, and the smallest routing margin on the way to them (infinite without experts)."""
    margins = [math.inf]

    def watched(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
        if moe.top_k < moe.count:
            best = logits.softmax(-1).topk(moe.top_k + 1, dim=-1).values
            margins.append(float((best[:, -2] - best[:, -1]).min()))
        return routed(moe, x, logits)

    dtype = next(model.parameters()).dtype
    try:
        model.double().eval()
        with mixing(mixtures(model), watched), torch.no_grad():
            return model(image.double()), min(margins)
    finally:
        model.to(dtype)


def tasks_of(model: nn.Module) -> tuple[Task, ...]:
    tasks = model.tasks
    assert isinstance(tasks, tuple)
    return tasks


def mixtures(model: nn.Module) -> list[MoE]:
    return [m for m in model.modules() if isinstance(m, MoE)]


def picture(seed: int, height: int, width: int) -> Tensor:
    """Noise, [1, 3, height, width]."""
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
