"""Makes one network (see networks.py): python -m bench.streaming.make NAME FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import torch
from torch import nn

from bench.folders import NOTE, ROOT, save, whole
from bench.streaming.networks import NETWORKS, Network, stamp

sys.path.insert(0, str(ROOT / "tests/models"))
from m3vit_package import TASK_SETS, export, model

OPSET = 20


def distinct(net: nn.Module) -> None:
    """A new network's norms are all alike, and would be one unit; those of a trained one are not."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))


def make(network: Network) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    tasks = TASK_SETS["pascal"][: network.tasks]
    torch.manual_seed(0)
    net = model.M3ViT(model.M3ViTConfig.preset(network.preset, tasks=tasks, **network.options)).eval()
    distinct(net)
    return export.export(net, "moe", opset=OPSET), export.example_inputs(net, 0)


def write(network: Network, root: Path) -> None:
    graph, inputs = make(network)
    with whole(root / network.name) as part:
        save(part / "inputs", {name: tensor.numpy() for name, tensor in inputs.items()})
        (part / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
        (part / NOTE).write_text(json.dumps({"stamp": stamp(network)}))


def main() -> None:
    name, folder = sys.argv[1:]
    write(next(n for n in NETWORKS if n.name == name), Path(folder))


if __name__ == "__main__":
    main()
