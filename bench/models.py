"""Makes the files of one network (see networks.py): python -m bench.models NAME FOLDER."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.folders import NOTE, ROOT, save, whole
from bench.networks import NETWORKS, Network, stamp

sys.path.insert(0, str(ROOT / "tests/models"))
import transformer_nets as library
from m3vit_package import TASK_SETS, export, lower, model, task_set

from bench.modules import InOrder, Layer

OPSET = 20
CANDIDATES = 6  # inputs, of which the one with the widest routing margin is taken
DRAWN = 4  # tokens drawn for one that is kept, where the input is tokens

Forms = Iterable[tuple[str, onnx.ModelProto]]


@dataclass(frozen=True)
class Made:
    """A network in PyTorch, float32: called with its inputs in order it gives its outputs in order."""

    module: nn.Module
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]  # float64
    forms: Callable[[], Forms]


def _wide(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    return [v.double() if v.is_floating_point() else v for v in inputs.values()]


def _margins(moe: model.MoE, logits: Tensor) -> Tensor:
    """Of each token: how much more likely its last expert is than the first that was not chosen."""
    best = logits.softmax(-1).topk(moe.top_k + 1, dim=-1).values
    return best[:, -2] - best[:, -1]


def _lowered(base: onnx.ModelProto) -> Forms:
    for form in ("routed", "dense", "moe"):
        yield form, lower.lower(base, form)


# ---- M3ViT ----


def _closest_choice(net: model.M3ViT, image: Tensor) -> float:
    """The smallest routing margin of all tasks; the heads route nothing and are not run."""
    closest = math.inf

    def watched(moe: model.MoE, x: Tensor, logits: Tensor) -> Tensor:
        nonlocal closest
        closest = min(closest, float(_margins(moe, logits).min()))
        return model.routed(moe, x, logits)

    with export.mixing(net.moe_layers().values(), watched), torch.no_grad():
        trunk = net.trunk(image)
        for number in range(len(net.heads)):
            net.branch(trunk, number, None)
    return closest


def m3vit(preset: str, decoder: str, tasks: str) -> Made:
    chosen = TASK_SETS["pascal"][: 1 if tasks == "one" else None]
    torch.manual_seed(0)
    net = model.M3ViT(model.M3ViTConfig.preset(preset, decoder=decoder, tasks=chosen)).eval()
    pictures = (export.example_inputs(net, seed) for seed in range(CANDIDATES))
    inputs = max(pictures, key=lambda given: _closest_choice(net, given["image"]))
    with torch.no_grad():
        expected = net.double()(*_wide(inputs))
    net.float()
    return Made(InOrder(net), inputs, expected, lambda: _lowered(export.export(net, "moe", opset=OPSET)))


# ---- a layer of experts ----


def layer(tokens: int, dim: int, width: int, experts: int, top_k: int) -> Made:
    """Between an input and an output, all of its tokens well away from a tie."""
    config = model.M3ViTConfig(dim=dim, heads=1, experts=experts, top_k=top_k, expert_ratio=width / dim, tasks=task_set(y=1))
    torch.manual_seed(0)
    net = Layer(model.MoE(config)).eval()
    model.initialise(net)
    drawn = torch.randn(DRAWN * tokens, dim)
    with torch.no_grad():
        widest = _margins(net.moe, net.moe.router(drawn, 0, None)).topk(tokens).indices.sort().values
        inputs = {"x": drawn[widest][None].contiguous()}
        expected = net.double()(*_wide(inputs))
    net.float()

    def forms() -> Forms:
        with export.mixing([net.moe], export.as_node):
            base = export.to_onnx(net, tuple(inputs.values()), ["x"], ["y"], OPSET)
        export.name_layers(base)
        return _lowered(base)

    return Made(net, inputs, {"y": expected}, forms)


# ---- networks of the transformers library ----


def transformer(name: str) -> Made:
    made = library.sample(name, full=True)
    return Made(made.module, made.inputs, made.outputs, lambda: [("plain", library.to_onnx(made, OPSET))])


# ---- files ----

MAKERS: dict[str, Callable[..., Made]] = {"m3vit": m3vit, "layer": layer, "transformer": transformer}


def make(network: Network) -> Made:
    return MAKERS[network.kind](**network.options)


def count_flops(made: Made) -> float:
    """Attention is taken apart: fused, it is not counted on a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        made.module(*made.inputs.values())
    return float(counter.get_total_flops())


def write(network: Network, root: Path) -> None:
    made = make(network)
    facts: dict[str, Any] = {
        "stamp": stamp(network),
        "inputs": list(made.inputs),
        "outputs": list(made.expected),
        "flops": count_flops(made),
    }
    with whole(root / network.name) as part:
        save(part / "inputs", {name: tensor.numpy() for name, tensor in made.inputs.items()})
        save(part / "expected", {name: tensor.numpy() for name, tensor in made.expected.items()})
        (part / NOTE).write_text(json.dumps(facts, indent=1))
        torch.save(made.module, part / "module.pt")
        for form, graph in made.forms():
            (part / f"{form}.onnx").write_bytes(graph.SerializeToString(deterministic=True))


def main() -> None:
    name, folder = sys.argv[1:]
    write(next(n for n in NETWORKS if n.name == name), Path(folder))


if __name__ == "__main__":
    main()
