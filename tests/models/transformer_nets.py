"""Networks of the transformers library: small, random, structurally the real ones.

Each is exported by torch.onnx.export at every opset of OPSETS.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import transformers as hf
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from m3vit_package import export
from testset import ROUTING_MARGIN, Array, Network, expected
from weights import randomise

OPSETS = (18, 20)
QUICK = ("vit", "swinv2", "convnext", "mixtral")


@dataclass(frozen=True)
class Architecture:
    """How to build one network and what to feed it."""

    build: Callable[..., nn.Module]  # takes overrides of the small configuration
    output: tuple[str, ...]  # the fields of the library's result that are exported
    inputs: Mapping[str, tuple[int, ...]]  # shapes; float pictures, int64 tokens
    full: Mapping[str, Any] | None = None  # overrides that give a size used in practice
    full_inputs: Mapping[str, tuple[int, ...]] | None = None


def _builder(model: Any, config: Any, **small: Any) -> Callable[..., nn.Module]:
    def build(**overrides: Any) -> nn.Module:
        kwargs = {} if overrides.get("defaults") else dict(small)
        kwargs.update({k: v for k, v in overrides.items() if k != "defaults"})
        attention = {k: kwargs.pop(k) for k in ("experts_implementation",) if k in kwargs}
        net: nn.Module = model._from_config(config(**kwargs), **attention)
        return net

    return build


_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 16,
}
_LM = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_MOE_LM = {
    **_LM,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "use_cache": False,
    "experts_implementation": "batched_mm",
}
_PIXELS = {"pixel_values": (1, 3, 64, 64)}
_PIXELS224 = {"pixel_values": (1, 3, 224, 224)}
_IDS = {"input_ids": (1, 24)}

ARCHITECTURES: dict[str, Architecture] = {
    "vit": Architecture(
        _builder(hf.ViTForImageClassification, hf.ViTConfig, **_VIT, num_labels=10),
        ("logits",),
        _PIXELS,
        {
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "intermediate_size": 1536,
            "num_labels": 1000,
        },
        _PIXELS224,
    ),
    "deit": Architecture(
        _builder(hf.DeiTForImageClassificationWithTeacher, hf.DeiTConfig, **_VIT, num_labels=10),
        ("logits",),
        _PIXELS,
        {
            "hidden_size": 192,
            "num_hidden_layers": 12,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "num_labels": 1000,
        },
        _PIXELS224,
    ),
    "dinov2": Architecture(
        _builder(
            hf.Dinov2ForImageClassification,
            hf.Dinov2Config,
            num_labels=10,
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            mlp_ratio=2,
            image_size=140,
            patch_size=14,
        ),
        # Not the picture size the position embedding was made for: it is resized (cubic), and
        # is large enough that the exporter leaves that in the graph.
        ("logits",),
        {"pixel_values": (1, 3, 70, 42)},
        {
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "num_labels": 1000,
            "image_size": 518,
        },
        _PIXELS224,
    ),
    "swinv2": Architecture(
        _builder(
            hf.Swinv2ForImageClassification,
            hf.Swinv2Config,
            num_labels=10,
            image_size=64,
            patch_size=4,
            embed_dim=24,
            depths=[2, 2, 2],
            num_heads=[2, 3, 4],
            window_size=4,
            mlp_ratio=2.0,
        ),
        ("logits",),
        _PIXELS,
        {"num_labels": 1000, "image_size": 256, "window_size": 8},
        {"pixel_values": (1, 3, 256, 256)},
    ),
    # A picture so large that the exporter leaves the making of the window masks in the graph.
    "swinv2-masks": Architecture(
        _builder(
            hf.Swinv2ForImageClassification,
            hf.Swinv2Config,
            num_labels=5,
            image_size=256,
            patch_size=4,
            embed_dim=12,
            depths=[2],
            num_heads=[1],
            window_size=8,
            mlp_ratio=1.0,
        ),
        ("logits",),
        {"pixel_values": (1, 3, 256, 256)},
    ),
    "convnext": Architecture(
        _builder(
            hf.ConvNextForImageClassification,
            hf.ConvNextConfig,
            num_labels=10,
            hidden_sizes=[16, 24, 32, 48],
            depths=[1, 1, 2, 1],
            image_size=64,
        ),
        ("logits",),
        _PIXELS,
        {"num_labels": 1000},
        _PIXELS224,
    ),
    "resnet": Architecture(
        _builder(
            hf.ResNetForImageClassification,
            hf.ResNetConfig,
            num_labels=10,
            embedding_size=16,
            hidden_sizes=[32, 48, 64, 96],
            depths=[1, 2, 1, 1],
        ),
        ("logits",),
        _PIXELS,
        {"num_labels": 1000},
        _PIXELS224,
    ),
    "mobilenetv2": Architecture(
        _builder(
            hf.MobileNetV2ForImageClassification,
            hf.MobileNetV2Config,
            num_labels=10,
            depth_multiplier=0.25,
            image_size=64,
        ),
        ("logits",),
        _PIXELS,
        {"num_labels": 1000},
        _PIXELS224,
    ),
    "segformer": Architecture(
        _builder(
            hf.SegformerForSemanticSegmentation,
            hf.SegformerConfig,
            num_labels=7,
            hidden_sizes=[16, 24, 32, 48],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 3],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=32,
        ),
        ("logits",),
        _PIXELS,
        {"num_labels": 150},
        {"pixel_values": (1, 3, 512, 512)},
    ),
    "clip": Architecture(
        _builder(
            hf.CLIPVisionModelWithProjection,
            hf.CLIPVisionConfig,
            **_VIT,
            projection_dim=40,
        ),
        ("image_embeds", "last_hidden_state"),
        _PIXELS,
        {"projection_dim": 512},
        _PIXELS224,
    ),
    "bert": Architecture(
        _builder(hf.BertModel, hf.BertConfig, **_LM, intermediate_size=128),
        ("last_hidden_state", "pooler_output"),
        {"input_ids": (1, 24), "attention_mask": (1, 24), "token_type_ids": (1, 24)},
        {},
        {"input_ids": (1, 128), "attention_mask": (1, 128), "token_type_ids": (1, 128)},
    ),
    "gpt2": Architecture(
        _builder(
            hf.GPT2LMHeadModel,
            hf.GPT2Config,
            vocab_size=96,
            n_positions=64,
            n_embd=64,
            n_layer=2,
            n_head=4,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        ),
        ("logits",),
        _IDS,
        {"use_cache": False},
        {"input_ids": (1, 128)},
    ),
    "mixtral": Architecture(
        _builder(
            hf.MixtralForCausalLM,
            hf.MixtralConfig,
            **_MOE_LM,
            num_local_experts=6,
            num_experts_per_tok=2,
        ),
        ("logits",),
        _IDS,
        # One block, a quarter of Mixtral 8x7B's width.
        {
            **_MOE_LM,
            "vocab_size": 256,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 1,
            "num_attention_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        {"input_ids": (1, 32)},
    ),
    "qwen2moe": Architecture(
        _builder(
            hf.Qwen2MoeForCausalLM,
            hf.Qwen2MoeConfig,
            **_MOE_LM,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=48,
            shared_expert_intermediate_size=80,
        ),
        ("logits",),
        _IDS,
    ),
}


class _Picked(nn.Module):
    """Calls a network by keyword and returns the wanted fields as a tuple."""

    def __init__(self, net: nn.Module, inputs: tuple[str, ...], output: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.inputs, self.output = net, inputs, output

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        result = self.net(**dict(zip(self.inputs, args, strict=True)))
        return tuple(result[field] for field in self.output)


class Float64(TorchFunctionMode):
    """Runs code that names float32 in float64, for references without float32 in them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def widen(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        kwargs = {k: widen(v) for k, v in (kwargs or {}).items()}
        return func(*map(widen, args), **kwargs)


def _draw(shapes: Mapping[str, tuple[int, ...]], vocabulary: int, generator: torch.Generator) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name == "pixel_values":
            inputs[name] = torch.randn(shape, generator=generator)
        elif name == "attention_mask":
            inputs[name] = torch.ones(shape, dtype=torch.int64)
            inputs[name][:, shape[1] * 3 // 4 :] = 0
        elif name == "token_type_ids":
            inputs[name] = (torch.arange(shape[1]) > shape[1] // 2).long().expand(shape).clone()
        else:
            inputs[name] = torch.randint(0, vocabulary, shape, generator=generator)
    return inputs


class _Margins:
    """Collects the routing margin of every top-k router while a network runs."""

    def __init__(self, net: nn.Module) -> None:
        self.smallest = math.inf
        self._hooks = [
            m.register_forward_hook(self._see) for m in net.modules() if type(m).__name__.endswith("TopKRouter")
        ]

    def _see(self, module: nn.Module, args: Any, result: Any) -> None:
        k = int(module.top_k)  # type: ignore[arg-type]
        scores = nn.functional.linear(args[0].flatten(0, -2), module.weight)  # type: ignore[arg-type]
        top = scores.softmax(-1).topk(k + 1).values
        self.smallest = min(self.smallest, float((top[:, k - 1] - top[:, k]).min()))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


@dataclass(frozen=True)
class Sample:
    """A network, called with its inputs in order, and what it gives in float64."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def sample(name: str, full: bool = False) -> Sample:
    """One network of the library with random weights and inputs on which no choice is close."""
    arch = ARCHITECTURES[name]
    seed = zlib.crc32(name.encode())
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    if full and arch.full is None:
        raise ValueError(f"{name} has no full size")
    net = arch.build(defaults=True, **(arch.full or {})) if full else arch.build()
    randomise(net, generator)
    net.eval()
    shapes = (arch.full_inputs or arch.inputs) if full else arch.inputs
    picked = _Picked(net, tuple(shapes), arch.output).eval()
    vocabulary = int(getattr(net.config, "vocab_size", 1))

    for _ in range(20):
        inputs = _draw(shapes, vocabulary, generator)
        wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        picked.double()
        margins = _Margins(net)
        with torch.no_grad(), Float64():
            results = picked(*wide.values())
        margins.remove()
        picked.float()
        if margins.smallest >= ROUTING_MARGIN:
            return Sample(picked, inputs, dict(zip(arch.output, results, strict=True)))
    raise RuntimeError(f"{name}: no input with a routing margin of {ROUTING_MARGIN}")


def make(name: str, opset: int, full: bool = False) -> Network:
    """One network of the library with its inputs and float64 outputs."""
    made = sample(name, full)
    if any(v.dtype != torch.float64 for v in made.outputs.values()):
        raise RuntimeError(f"{name}: the reference is not float64 throughout")
    model = to_onnx(made, opset)
    given: dict[str, Array] = {k: v.numpy() for k, v in made.inputs.items()}
    wanted: dict[str, Array] = {k: expected(v.numpy()) for k, v in made.outputs.items()}
    return Network(model, [(given, wanted)])


def to_onnx(made: Sample, opset: int) -> onnx.ModelProto:
    """What torch.onnx.export makes of it, without the exporter's notes."""
    args, outputs = tuple(made.inputs.values()), list(made.outputs)
    model = export.to_onnx(made.module, args, list(made.inputs), outputs, opset)
    export.strip(model)
    return model
