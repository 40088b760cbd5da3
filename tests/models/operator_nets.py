"""Single layers of com.microsoft::MoE and QMoE, in all the ways their attributes allow.

The expected outputs are the operators' formulas in numpy and float64, written
here as one loop over tokens and experts. "gelu" is the erf form, and the k
weights are renormalised only where the attribute says so. (onnxruntime 1.31 on
a CPU computes "gelu" as the tanh form, has neither fc3 nor swiglu in halves,
renormalises in QMoE always, and rounds the activations of 8-bit blocks.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from testset import ROUTING_MARGIN, Array, Network, expected

Floats = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class Layer:
    """One node and its surroundings. Unset attributes are left out of the node."""

    seed: int
    tokens: int = 11
    hidden: int = 32
    inner: int = 48
    experts: int = 5
    k: int = 2
    activation: str | None = None  # None: the default, relu
    normalise: bool = False
    biases: bool = True
    fc3: bool = False  # a third matrix beside the first: act(fc1 x) * (fc3 x)
    rank: int = 2  # of the input
    swiglu_fusion: int | None = None  # 0: fc1, fc3; 1: interleaved rows; 2: halves
    alpha: float | None = None
    beta: float | None = None
    limit: float | None = None
    bits: int | None = None  # QMoE
    block: int | None = None
    zero_points: bool = False


_SWIGLU: dict[str, Any] = {"activation": "swiglu", "alpha": 1.702, "beta": 1.0, "limit": 2.0}

LAYERS: dict[str, Layer] = {
    "moe-default": Layer(0),
    "moe-gelu": Layer(1, activation="gelu", k=1, biases=False),
    "moe-silu-normalised": Layer(2, activation="silu", normalise=True, k=3),
    "moe-identity-rank3": Layer(3, activation="identity", rank=3),
    "moe-silu-fc3": Layer(4, activation="silu", fc3=True, normalise=True),
    "moe-swiglu": Layer(5, **_SWIGLU, swiglu_fusion=1),
    "moe-swiglu-halves": Layer(6, **_SWIGLU, swiglu_fusion=2, biases=False),
    "moe-swiglu-fc3": Layer(7, **_SWIGLU, swiglu_fusion=0, fc3=True),
    "qmoe-8": Layer(10, activation="gelu", bits=8),
    "qmoe-4": Layer(11, activation="gelu", bits=4, normalise=True),
    "qmoe-2": Layer(12, activation="relu", bits=2, normalise=True),
    "qmoe-8-block": Layer(13, activation="silu", bits=8, block=16, normalise=True),
    "qmoe-4-block": Layer(14, activation="gelu", bits=4, block=16, rank=3, normalise=True),
    "qmoe-2-block": Layer(15, activation="gelu", bits=2, block=16, normalise=True),
    "qmoe-4-zero-points": Layer(16, activation="gelu", bits=4, zero_points=True, biases=False),
    "qmoe-8-zero-points": Layer(17, activation="silu", bits=8, zero_points=True, normalise=True),
    "qmoe-4-block-zero-points": Layer(18, activation="gelu", bits=4, block=16, zero_points=True, normalise=True),
    "qmoe-8-block-zero-points": Layer(19, bits=8, block=16, zero_points=True, k=5),
    "qmoe-2-block-zero-points": Layer(20, bits=2, block=16, zero_points=True, k=1, normalise=True),
    "qmoe-4-swiglu": Layer(21, **_SWIGLU, swiglu_fusion=1, bits=4, block=16, normalise=True),
}


class _Tensors:
    """The initializers of a node in the order of its inputs, and what they stand for."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.random = layer, np.random.default_rng(layer.seed)
        self.initializers: list[onnx.TensorProto] = []
        self.values: dict[str, Floats] = {}  # dequantised, float64
        self.zero_points: dict[str, NDArray[np.uint8]] = {}  # packed, by matrix

    def add(self, name: str, array: Array) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def matrix(self, name: str, rows: int, columns: int) -> list[str]:
        """NAME_weight [E, rows, columns] and, quantised, NAME_scales. Returns the names."""
        shape = (self.layer.experts, rows, columns)
        weight = self.random.normal(size=shape) / math.sqrt(columns)
        if self.layer.bits is None:
            self.values[name] = weight.astype(np.float32).astype(np.float64)
            return [self.add(f"{name}_weight", weight.astype(np.float32))]
        bits, block = self.layer.bits, self.layer.block or columns
        blocks = (*shape[:2], columns // block)
        levels = self.random.integers(0, 2**bits, size=shape, dtype=np.uint8)
        scales = (self.random.uniform(0.5, 1.5, blocks) / math.sqrt(columns)).astype(np.float32)
        scales /= np.float32(levels.std())
        zero = np.full(blocks, 2 ** (bits - 1), np.uint8)
        if self.layer.zero_points:
            spread = max(2**bits // 8, 1)
            zero += self.random.integers(-spread, spread + 1, blocks).astype(np.uint8)
        wide = [np.repeat(a.astype(np.float64), block, axis=2) for a in (zero, scales)]
        self.values[name] = (levels - wide[0]) * wide[1]
        by_row = self.layer.block is None
        self.zero_points[name] = pack(zero[..., 0] if by_row else zero, bits)
        return [
            self.add(f"{name}_weight", pack(levels, bits)),
            self.add(f"{name}_scales", scales[..., 0] if by_row else scales),
        ]

    def bias(self, name: str, width: int) -> str:
        value = self.random.normal(size=(self.layer.experts, width)).astype(np.float32) * 0.3
        self.values[f"{name}_bias"] = value.astype(np.float64)
        return self.add(f"{name}_bias", value) if self.layer.biases else ""


def pack(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Several levels a byte along the last axis, the first in the lowest bits."""
    per_byte = 8 // bits
    padding = -levels.shape[-1] % per_byte
    wide = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, padding)])
    wide = wide.reshape(*levels.shape[:-1], -1, per_byte)
    packed = np.zeros(wide.shape[:-1], np.uint8)
    for i in range(per_byte):
        packed |= wide[..., i] << np.uint8(bits * i)
    return packed


def evaluate(
    layer: Layer,
    values: dict[str, Floats],
    x: Floats,
    logits: Floats,
    activations: dict[str, Callable[[Floats], Floats]] = ACTIVATIONS,
) -> Floats:
    """The operator's formula. x: [T, H], logits: [T, E]."""

    def linear(name: str, e: int, row: Floats) -> Floats:
        y = values[name][e] @ row
        return y + values[f"{name}_bias"][e] if layer.biases else y

    def hidden(e: int, row: Floats) -> Floats:
        first = linear("fc1", e, row)
        if layer.activation != "swiglu":
            gate = activations[layer.activation or "relu"](first)
            return gate * linear("fc3", e, row) if layer.fc3 else gate
        if layer.swiglu_fusion == 1:
            gate, other = first[0::2], first[1::2]
        elif layer.swiglu_fusion == 2:
            gate, other = np.split(first, 2)
        else:
            gate, other = first, linear("fc3", e, row)
        limit = math.inf if layer.limit is None else layer.limit
        gate, other = np.minimum(gate, limit), np.clip(other, -limit, limit)
        alpha = 1.0 if layer.alpha is None else layer.alpha
        return gate / (1 + np.exp(-alpha * gate)) * (other + (layer.beta or 0.0))

    out = np.zeros_like(x)
    for t, row in enumerate(x):
        p = np.exp(logits[t] - logits[t].max())
        p /= p.sum()
        chosen = np.argsort(-p, kind="stable")[: layer.k]
        if layer.normalise:
            p /= p[chosen].sum()
        for e in sorted(chosen):
            out[t] += p[e] * linear("fc2", e, hidden(e, row))
    return out


def _margin(logits: Floats, k: int) -> float:
    if k == logits.shape[1]:
        return math.inf
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = -np.sort(-p / p.sum(axis=1, keepdims=True), axis=1)
    return float((p[:, k - 1] - p[:, k]).min())


def _attributes(layer: Layer) -> dict[str, Any]:
    given = {
        "k": layer.k,
        "activation_type": layer.activation,
        "normalize_routing_weights": int(layer.normalise) or None,
        "swiglu_fusion": layer.swiglu_fusion,
        "activation_alpha": layer.alpha,
        "activation_beta": layer.beta,
        "swiglu_limit": layer.limit,
        "expert_weight_bits": layer.bits,
        "block_size": layer.block,
    }
    return {k: v for k, v in given.items() if v is not None}


def make(name: str) -> Network:
    """The network: y = layer(x, x W)."""
    layer = LAYERS[name]
    tensors = _Tensors(layer)
    fused = 2 if layer.swiglu_fusion in (1, 2) else 1
    inputs = ["x", "logits"]
    for matrix, rows, columns in (
        ("fc1", fused * layer.inner, layer.hidden),
        ("fc2", layer.hidden, layer.inner),
        ("fc3", layer.inner, layer.hidden),
    ):
        if matrix != "fc3" or layer.fc3:
            inputs += [*tensors.matrix(matrix, rows, columns), tensors.bias(matrix, rows)]
        elif layer.zero_points:
            inputs += ["", "", ""]
    if layer.zero_points:
        inputs += [tensors.add(f"{m}_zero_points", tensors.zero_points[m]) for m in ("fc1", "fc2")]
    while not inputs[-1]:
        inputs.pop()
    tensors.initializers = [t for t in tensors.initializers if t.name in inputs]

    gate = tensors.random.normal(size=(layer.hidden, layer.experts)).astype(np.float32)
    gate /= np.float32(math.sqrt(layer.hidden) / 2)
    tensors.add("gate", gate)
    while True:
        x = tensors.random.normal(size=(layer.tokens, layer.hidden)).astype(np.float32)
        logits = x.astype(np.float64) @ gate.astype(np.float64)
        if _margin(logits, layer.k) >= ROUTING_MARGIN:
            break
    y = evaluate(layer, tensors.values, x.astype(np.float64), logits)

    shape = [layer.tokens, layer.hidden] if layer.rank == 2 else [1, layer.tokens, layer.hidden]
    nodes = [helper.make_node("MatMul", ["rows", "gate"], ["logits"], "/moe/gate/MatMul")]
    if layer.rank == 3:
        tensors.add("rows_shape", np.array([layer.tokens, layer.hidden]))
        nodes.insert(0, helper.make_node("Reshape", ["x", "rows_shape"], ["rows"], "/moe/Reshape"))
    else:
        nodes[0].input[0] = "x"
    nodes.append(
        helper.make_node(
            "MoE" if layer.bits is None else "QMoE",
            inputs,
            ["y"],
            "/moe/MoE",
            domain="com.microsoft",
            **_attributes(layer),
        )
    )
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        tensors.initializers,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Network(model, [({"x": x.reshape(shape)}, {"y": expected(y.reshape(shape))})])
