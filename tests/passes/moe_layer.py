"""The layer that all spellings compute, its reference in float64, and what graphs are built with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
OPSET = 20
MARGIN = 1e-3  # between the last chosen and the first rejected score


# ---- the layer and its reference


@dataclass(frozen=True)
class Layer:
    """What is computed; the spellings only differ in how."""

    tokens: int = 7
    hidden: int = 6
    inner: int = 5
    experts: int = 4
    k: int = 2
    gate: str = "softmax"  # softmax, topk_softmax, none (sigmoid scores), ones (k = 1, unweighted)
    normalize: bool = False
    act: str = "gelu"
    gated: bool = False
    bias: bool = True
    scale: float = 1.0
    residual: bool = False
    window: tuple[int, int] = (0, 4096)  # the experts that may be chosen
    shape: tuple[int, ...] = ()  # of the tokens, if not (tokens,)
    seed: int = 0

    @property
    def lead(self) -> tuple[int, ...]:
        return self.shape or (self.tokens,)


@dataclass
class Weights:
    router: Array  # [H, E]
    w1: Array  # [E, I, H]
    b1: Array
    w2: Array  # [E, H, I]
    b2: Array
    w3: Array
    b3: Array
    x: Array


def softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    total: Array = e.sum(-1, keepdims=True)
    return e / total


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def allowed_logits(layer: Layer, w: Weights) -> Array:
    logits: Array = w.x.astype(np.float64) @ w.router.astype(np.float64)
    logits[:, : layer.window[0]] = -np.inf
    logits[:, layer.window[1] :] = -np.inf
    return logits


def make_weights(layer: Layer) -> Weights:
    """Random weights and tokens, drawn again until no choice of experts is close."""
    for seed in range(layer.seed, layer.seed + 1000):
        rng = np.random.default_rng(seed)

        def draw(*shape: int, rng: np.random.Generator = rng) -> Array:
            return rng.normal(0, 0.5, shape).astype(np.float32)

        e, h, i = layer.experts, layer.hidden, layer.inner
        w = Weights(
            draw(h, e),
            draw(e, i, h),
            draw(e, i),
            draw(e, h, i),
            draw(e, h),
            draw(e, i, h),
            draw(e, i),
            draw(math.prod(layer.lead), h),
        )
        logits = np.sort(allowed_logits(layer, w), -1)
        if layer.k == e or (logits[:, -layer.k] - logits[:, -layer.k - 1]).min() > MARGIN:
            return w
    raise RuntimeError("no seed keeps the margin")


def reference(layer: Layer, w: Weights) -> Array:
    x = w.x.astype(np.float64)
    logits = allowed_logits(layer, w)
    scores = {"softmax": softmax(logits), "none": 1 / (1 + np.exp(-logits))}.get(layer.gate, logits)
    y = x.copy() if layer.residual else np.zeros_like(x)
    for t, row in enumerate(x):
        chosen = np.argsort(-logits[t], kind="stable")[: layer.k]
        weight = scores[t, chosen]
        if layer.gate in ("topk_softmax", "ones"):
            weight = softmax(weight)
        if layer.normalize:
            weight = weight / weight.sum()
        for e, p in zip(chosen, weight, strict=True):
            hidden = ACTIVATIONS[layer.act](w.w1[e].astype(np.float64) @ row + w.b1[e] * layer.bias)
            if layer.gated:
                hidden = hidden * (w.w3[e].astype(np.float64) @ row + w.b3[e] * layer.bias)
            y[t] += layer.scale * p * (w.w2[e].astype(np.float64) @ hidden + w.b2[e] * layer.bias)
    return y.reshape(*layer.lead, layer.hidden)


# ---- building graphs


@dataclass
class Builder:
    layer: Layer
    w: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: object, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        names = [self.value(v) for v in inputs]
        made = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, domain=domain, **attributes))
        return made

    def __call__(self, kind: str, *inputs: object, **attributes: Any) -> str:
        return self.op(kind, *inputs, **attributes)[0]

    def value(self, v: object) -> str:
        if isinstance(v, str):
            return v
        array = v if isinstance(v, np.ndarray) else np.asarray(v, np.float32 if isinstance(v, float) else np.int64)
        if isinstance(v, list) and not v:
            array = np.zeros(0, np.int64)
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    # The pieces that most spellings share.

    def logits(self) -> str:
        return self("MatMul", "x", self.w.router)

    def scores(self) -> str:
        logits = self.logits()
        return {"softmax": lambda: self("Softmax", logits, axis=-1), "none": lambda: self("Sigmoid", logits)}.get(
            self.layer.gate, lambda: logits
        )()

    def choice(self, scores: str | None = None) -> tuple[str, str]:
        """Weights and indices [tokens, k], everything the gate asks for done."""
        top, index = self.op("TopK", scores or self.scores(), [self.layer.k], outputs=2)
        if self.layer.gate == "topk_softmax":
            top = self("Softmax", top, axis=-1)
        if self.layer.normalize:
            top = self("Div", top, self("ReduceSum", top, [-1], keepdims=1))
        return top, index

    def activate(self, z: str, act: str | None = None) -> str:
        act = act or self.layer.act
        if act == "gelu":
            return self("Gelu", z)
        if act == "gelu_tanh":
            return self("Gelu", z, approximate="tanh")
        if act == "silu":
            return self("Mul", z, self("Sigmoid", z))
        return self("Relu", z) if act == "relu" else z

    def linear(self, x: str, weight: Array, bias: Array, style: str) -> str:
        if style == "gemm":
            return self("Gemm", x, weight, *([bias] if self.layer.bias else []), transB=1)
        if style == "gemm_plain":
            return self("Gemm", x, weight.T.copy(), *([bias] if self.layer.bias else []))
        y = self("MatMul", x, weight.T.copy())
        if not self.layer.bias:
            return y
        return self("Add", bias, y) if style == "bias_first" else self("Add", y, bias)

    def expert(self, e: int, x: str, style: str = "gemm") -> str:
        w = self.w
        hidden = self.activate(self.linear(x, w.w1[e], w.b1[e], style))
        if self.layer.gated:
            up = self.linear(x, w.w3[e], w.b3[e], style)
            hidden = self("Mul", up, hidden) if style == "bias_first" else self("Mul", hidden, up)
        return self.linear(hidden, w.w2[e], w.b2[e], style)

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape, np.float32)

    def empty(self, *shape: int) -> str:
        return self.value(self.zeros(*shape))

    def mask(self) -> str:
        """Weights scattered into [tokens, experts]."""
        top, index = self.choice()
        return self("ScatterElements", self.zeros(*self.layer.lead, self.layer.experts), index, top, axis=-1)

    def sum(self, parts: list[str]) -> str:
        total = parts[0]
        for part in parts[1:]:
            total = self("Add", total, part)
        return total

    def column(self, table: str, e: int) -> str:
        return self("Slice", table, [e], [e + 1], [-1], [1])


Spelling = Callable[[Builder], str]
CASES: dict[str, tuple[Layer, Spelling]] = {}


def case(**changes: object) -> Callable[[Spelling], Spelling]:
    """Registers a spelling, of a layer that differs from the usual one in these points."""

    def register(build: Spelling) -> Spelling:
        what = [f"{k}_{'x'.join(map(str, v))}" if isinstance(v, tuple) else f"{k}_{v}" for k, v in changes.items()]
        CASES["-".join([build.__name__, *what])] = (replace(Layer(), **changes), build)  # type: ignore[arg-type]
        return build

    return register


def write_data(folder: Path, model: onnx.ModelProto, x: np.ndarray, y: np.ndarray) -> None:
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    for name, value, file in (
        (model.graph.input[0].name, x, "input_0.pb"),
        (model.graph.output[0].name, y, "output_0.pb"),
    ):
        (data / file).write_bytes(numpy_helper.from_array(value.astype(np.float32), name).SerializeToString())
