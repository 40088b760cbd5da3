"""Weights of a trained ViT or DeiT for the backbone of an M3ViT, from a file:

    report = load_pretrained(model, "deit_tiny.safetensors")

.pt and .pth files (a state_dict, or one under "model" or "state_dict") and .safetensors, named as timm does
(patch_embed.proj, blocks.0.attn.qkv, …) or as transformers' ViTModel and DeiTModel are, old names and new.

Position embeddings are resized bicubically to the network's grid. A block with experts takes the weights of the dense
MLP for every expert, cut to the experts' hidden width; what tells the experts apart is then their routers. Routers,
decoders and whatever does not fit stay random. The report says what went where.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m3vit.model import M3ViT
from m3vit.moe import MoE

Weights = dict[str, Tensor]


class PretrainedError(ValueError):
    """A file that has no weights for the network."""


@dataclass
class Report:
    """What became of the weights."""

    loaded: list[str] = field(default_factory=list)  # parameters of the network that have the file's weights
    random: list[str] = field(default_factory=list)  # parameters of the backbone that have not
    left_out: dict[str, str] = field(default_factory=dict)  # by name in the file (timm's): why the network has it not
    notes: list[str] = field(default_factory=list)  # what was changed on the way

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} parameters loaded, {len(self.random)} of the backbone stay random"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  random: {', '.join(self.random)}"] * bool(self.random)
        lines += [f"  left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


def load_pretrained(
    model: M3ViT, path: str | Path, pos_emb_from_pretrained: bool = True, backbone_random_init: bool = False
) -> Report:
    """Copies a file's weights into the backbone, in place.

    pos_emb_from_pretrained: the position embeddings too. backbone_random_init: nothing but those.
    """
    weights = in_timms_names(read(path))
    own = {name: p for name, p in model.named_parameters() if _of_backbone(name)}
    report = Report()
    for name, tensor in weights.items():
        if not (pos_emb_from_pretrained if name == "pos_embed" else not backbone_random_init):
            report.left_out[name] = "not asked for"
            continue
        try:
            target, value = _fit(model, weights, name, tensor, report)
            if target not in own:
                raise _MisfitError("the network has no such parameter")
            if value.shape != own[target].shape:
                raise _MisfitError(f"is {list(value.shape)}, the network has {list(own[target].shape)}")
        except _MisfitError as reason:
            report.left_out[name] = str(reason)
            continue
        with torch.no_grad():
            own[target].copy_(value)
        report.loaded.append(target)
    if not report.loaded and (pos_emb_from_pretrained or not backbone_random_init):
        raise PretrainedError(f"{path}: no weights in it fit the network; it has {', '.join([*weights][:5])}, …")
    report.random = [name for name in own if name not in report.loaded]
    return report


def _of_backbone(name: str) -> bool:
    return name.startswith(("patch_embed.", "cls_token", "dist_token", "pos_embed", "blocks."))


# --------------------------------------------------------------------------------------
# Files


def read(path: str | Path) -> Weights:
    """All tensors of a file, by name, in float32."""
    path = Path(path)
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise PretrainedError(f"{path}: {error.strerror}") from error
    weights = {name: t.float() for name, t in content.items() if isinstance(t, Tensor)}
    if not weights:
        raise PretrainedError(f"{path}: there are no tensors in it")
    return weights


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        said = str(error).partition("\n")[0] or "it is empty"
        raise PretrainedError(f"{path}: not a file of weights: {said}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise PretrainedError(f"{path}: not a table of weights but a {type(content).__name__}")
    return content


SAFETENSORS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _read_safetensors(path: Path) -> Weights:
    """8 bytes with the length of a JSON table, the table, and the tensors' bytes where it says."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    try:
        table = json.loads(data[8 : 8 + size])
        return {name: _tensor(data, 8 + size, **about) for name, about in table.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise PretrainedError(f"{path}: not a safetensors file of floats: {error}") from error


def _tensor(data: bytearray, start: int, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> Tensor:
    begin, end = data_offsets
    kind, count = SAFETENSORS[dtype], math.prod(shape)
    if count * kind.itemsize != end - begin:
        raise ValueError(f"{end - begin} bytes for {dtype} {shape}")
    if count == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(data, dtype=kind, count=count, offset=start + begin).view(shape).clone()


# --------------------------------------------------------------------------------------
# Names

# transformers' names (of the released files, and of the modules since version 5) to timm's.
TIMMS = (
    (r"^(module\.|backbone\.|vit\.|deit\.)+", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(encoder\.layer|encoder\.layers|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(attention\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)


def in_timms_names(weights: Mapping[str, Tensor]) -> Weights:
    """The same weights by the names that timm has for them; query, key and value joined."""
    renamed: Weights = {}
    for name, tensor in weights.items():
        for pattern, new in TIMMS:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    joined: Weights = {}
    for name, tensor in renamed.items():
        part = re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", name)
        if part is None:
            joined[name] = tensor
        elif part[2] == "q":
            names = [f"{part[1]}{which}.{part[3]}" for which in "qkv"]
            if missing := [n for n in names if n not in renamed]:
                raise PretrainedError(f"{name} is there, {missing[0]} is not")
            joined[f"{part[1]}qkv.{part[3]}"] = torch.cat([renamed[n] for n in names])
    return joined


# --------------------------------------------------------------------------------------
# Shapes


class _MisfitError(Exception):
    """Why a tensor is not taken."""


def _fit(model: M3ViT, weights: Weights, name: str, tensor: Tensor, report: Report) -> tuple[str, Tensor]:
    """The network's name for a tensor, and the tensor in the network's shape."""
    if name.startswith("patch_embed.proj."):
        return name.replace(".proj.", "."), tensor
    if name == "pos_embed":
        prefix = sum(token in weights for token in ("cls_token", "dist_token"))
        fitted = resize_positions(tensor, prefix, model.config.prefix, model.config.grid)
        if fitted.shape != tensor.shape:
            report.notes.append(f"pos_embed: {list(tensor.shape)} resized to {list(fitted.shape)}")
        return name, fitted
    block = re.fullmatch(r"blocks\.(\d+)\.(.*)", name)
    if block is None:
        return name, tensor
    if int(block[1]) >= len(model.blocks):
        raise _MisfitError(f"the network has {len(model.blocks)} blocks")
    moe = model.moe_layers().get(f"blocks.{block[1]}.moe")
    if block[2].startswith("mlp.") and moe is not None:
        return _for_experts(moe, weights, int(block[1]), block[2].removeprefix("mlp."), report)
    return name, tensor


def _for_experts(moe: MoE, weights: Weights, block: int, name: str, report: Report) -> tuple[str, Tensor]:
    """A tensor of a dense MLP for every expert: its first hidden units."""
    count, hidden, _ = moe.experts.fc1_weight.shape
    tensor, bias = weights[f"blocks.{block}.mlp.{name}"], weights.get(f"blocks.{block}.mlp.fc1.bias")
    if bias is None or bias.shape[0] < hidden:
        raise _MisfitError(f"experts have {hidden} hidden units, the file's MLP {0 if bias is None else len(bias)}")
    if name.startswith("fc1."):
        tensor = tensor[:hidden]
    elif name == "fc2.weight":
        tensor = tensor[:, :hidden]
    if name == "fc1.weight":
        cut = "" if hidden == len(bias) else f", cut from {len(bias)} to {hidden} hidden units"
        report.notes.append(f"blocks.{block}.mlp: for each of {count} experts{cut}")
    return f"blocks.{block}.moe.experts.{name.replace('.', '_')}", tensor.expand(count, *tensor.shape)


def resize_positions(positions: Tensor, prefix: int, new_prefix: int, grid: tuple[int, int]) -> Tensor:
    """[1, prefix + n, dim], n a square, to [1, new_prefix + rows·columns, dim]; bicubic, corners not aligned."""
    first, patches = positions[:, :prefix], positions[:, prefix:]
    count, rows, columns = patches.shape[1], *grid
    side = math.isqrt(count)
    if count == rows * columns and side * side != count:
        side = 0  # the file is of such a grid itself
    elif side * side != count:
        raise _MisfitError(f"positions of {count} patches: neither a square nor the network's {rows}x{columns}")
    if side and (side, side) != grid:
        plane = patches.transpose(1, 2).reshape(1, -1, side, side)
        plane = F.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
        patches = plane.flatten(2).transpose(1, 2)
    if prefix == 0:
        first = patches.new_zeros(1, 1, patches.shape[2])
    more = max(new_prefix - first.shape[1], 0)  # a second token stands where the class does
    return torch.cat([first[:, :new_prefix], first[:, :1].expand(-1, more, -1), patches], dim=1)
