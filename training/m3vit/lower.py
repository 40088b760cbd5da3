"""A mixture of experts as ONNX: from one com.microsoft::MoE node to the other forms.

    moe       the node itself
    dense     plain ONNX: every expert sees every token, and a mask weights the results
    routed    plain ONNX: the tokens of each expert are gathered (NonZero) and scattered back
    function  a model-local function m3vit::MoE whose body is dense or routed, so that
              any runtime can run it and the name still says what it is

The softmax is over all experts and the k weights are not renormalised, unless
the node says normalize_routing_weights: then the softmax is over the chosen k,
which is the same. GELU is the erf form in all of them. (onnxruntime computes
the node's "gelu" as the tanh form.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FORMS = ("function", "moe", "dense", "routed")
BODIES = ("dense", "routed")
FUNCTION = ("m3vit", "MoE")
WEIGHTS = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")


class _Writer:
    """Appends nodes under one scope. Constants are initializers, or nodes in a function."""

    def __init__(self, scope: str, opset: int, constants_as_nodes: bool, taken: Collection[str] = ()) -> None:
        self.scope, self.opset, self.constants_as_nodes = scope, opset, constants_as_nodes
        self.taken = taken  # names of nodes that others have
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[Any, ...], str] = {}

    def op(self, path: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Adds node SCOPE/PATH, whose last component is the operator. Returns its first output."""
        return self.ops(path, inputs, outputs, **attributes)[0]

    def ops(self, path: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        name, again = f"{self.scope}/{path}", 0
        while name in self.taken:
            again += 1
            name = f"{self.scope}/{path}_{again}"
        results = [f"{name}_output_{i}" for i in range(outputs)]
        op_type = path.rsplit("/", 1)[-1].split("_")[0]
        self.nodes.append(helper.make_node(op_type, inputs, results, name, **attributes))
        return results

    def constant(self, value: Any, dtype: type) -> str:
        array: NDArray[Any] = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            label = "_".join(map(str, array.ravel().tolist())) or "empty"
            name = f"const_{array.dtype}_{array.ndim}d_{label}"
            tensor = numpy_helper.from_array(array, name)
            if self.constants_as_nodes:
                self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            else:
                self.initializers[name] = tensor
            self._constants[key] = name
        return self._constants[key]

    def gelu(self, path: str, x: str) -> str:
        if self.opset >= 20:
            return self.op(f"{path}/Gelu", [x], approximate="none")
        path = f"{path}/gelu"
        scaled = self.op(f"{path}/Div", [x, self.constant(2**0.5, np.float32)])
        erf = self.op(f"{path}/Erf", [scaled])
        shifted = self.op(f"{path}/Add", [erf, self.constant(1, np.float32)])
        product = self.op(f"{path}/Mul", [x, shifted])
        return self.op(f"{path}/Mul_1", [product, self.constant(0.5, np.float32)])


def _choose(w: _Writer, logits: str, k: int, renormalise: bool) -> tuple[str, str]:
    """Weights and indices [T, k] of the chosen experts."""
    count = w.constant([k], np.int64)
    if renormalise:
        scores, index = w.ops("TopK", [logits, count], 2, axis=-1, largest=1, sorted=1)
        return w.op("Softmax", [scores], axis=-1), index
    probabilities = w.op("Softmax", [logits], axis=-1)
    weights, index = w.ops("TopK", [probabilities, count], 2, axis=-1, largest=1, sorted=1)
    return weights, index


def _mlp(w: _Writer, expert: int, x: str, weights: Sequence[str]) -> str:
    """fc2(gelu(fc1(x))) of one expert, given its four weights."""
    path = f"experts.{expert}"
    x = w.op(f"{path}/fc1/Gemm", [x, weights[0], weights[1]], transB=1)
    x = w.gelu(path, x)
    return w.op(f"{path}/fc2/Gemm", [x, weights[2], weights[3]], transB=1)


def _zeros_like(w: _Writer, path: str, x: str) -> str:
    shape = w.op(f"{path}Shape", [x])
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    return w.op(f"{path}ConstantOfShape", [shape], value=zero)


def _dense(w: _Writer, x: str, logits: str, k: int, renormalise: bool, experts: Sequence[Sequence[str]]) -> str:
    weights, index = _choose(w, logits, k, renormalise)
    zeros = _zeros_like(w, "mask/", logits)
    mask = w.op("ScatterElements", [zeros, index, weights], axis=1)
    axis, total = w.constant([1], np.int64), ""
    for e, parameters in enumerate(experts):
        y = _mlp(w, e, x, parameters)
        bounds = [w.constant([e], np.int64), w.constant([e + 1], np.int64)]
        column = w.op(f"experts.{e}/Slice", [mask, *bounds, axis])
        y = w.op(f"experts.{e}/Mul", [y, column])
        total = w.op(f"experts.{e}/Add", [total, y]) if e > 0 else y
    return total


def _routed(w: _Writer, x: str, logits: str, k: int, renormalise: bool, experts: Sequence[Sequence[str]]) -> str:
    weights, index = _choose(w, logits, k, renormalise)
    zero, one = w.constant([0], np.int64), w.constant([1], np.int64)
    total = _zeros_like(w, "", x)
    for e, parameters in enumerate(experts):
        path = f"experts.{e}"
        mine = w.op(f"{path}/Equal", [index, w.constant(e, np.int64)])  # [T, k]
        pairs = w.op(f"{path}/NonZero", [mine])  # [2, n]
        pairs = w.op(f"{path}/Transpose", [pairs], perm=[1, 0])  # [n, 2]: token, slot
        token = w.op(f"{path}/Slice", [pairs, zero, one, one])  # [n, 1]
        gathered = w.op(f"{path}/GatherND", [x, token])  # [n, H]
        y = _mlp(w, e, gathered, parameters)
        weight = w.op(f"{path}/GatherND_1", [weights, pairs])  # [n]
        weight = w.op(f"{path}/Unsqueeze", [weight, one])  # [n, 1]
        y = w.op(f"{path}/Mul", [y, weight])
        total = w.op(f"{path}/ScatterND", [total, token, y], reduction="add")
    return total


_BUILD = {"dense": _dense, "routed": _routed}


def _attributes(node: onnx.NodeProto) -> tuple[int, bool]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if values.get("activation_type") != b"gelu" or len(node.input) != 6:
        raise ValueError(f"{node.name}: only gelu experts of two biased layers are lowered")
    return int(values.get("k", 1)), bool(values.get("normalize_routing_weights", 0))


def _make_function(name: str, body: str, k: int, renormalise: bool, experts: int, opset: int) -> onnx.FunctionProto:
    """m3vit::NAME(x, logits, fc1_weight, fc1_bias, fc2_weight, fc2_bias), weights stacked."""
    w = _Writer("", opset, constants_as_nodes=True)
    parameters = []
    for e in range(experts):
        number = w.constant(e, np.int64)
        parameters.append([w.op(f"experts.{e}/{p}/Gather", [p, number], axis=0) for p in WEIGHTS])
    result = _BUILD[body](w, "x", "logits", k, renormalise, parameters)
    w.nodes.append(helper.make_node("Identity", [result], ["y"], "/Identity"))
    return helper.make_function(
        FUNCTION[0],
        name,
        ["x", "logits", *WEIGHTS],
        ["y"],
        w.nodes,
        [helper.make_opsetid("", opset)],
    )


def lower(model: onnx.ModelProto, form: str, body: str = "dense") -> onnx.ModelProto:
    """A copy of the model with its com.microsoft::MoE nodes in another form.

    dense and routed cut the stacked weights into tensors per expert; function
    (with that body) keeps them stacked.
    """
    if form not in FORMS or body not in BODIES:
        raise ValueError(f"form is one of {FORMS}, body of {BODIES}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if form == "moe":
        return result
    graph = result.graph
    opset = next(o.version for o in result.opset_import if o.domain == "")
    stacked = {t.name: t for t in graph.initializer}
    added: dict[str, onnx.TensorProto] = {}
    functions: dict[tuple[int, bool, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    taken = {node.name for node in graph.node}
    for node in graph.node:
        if (node.domain, node.op_type) != ("com.microsoft", "MoE"):
            nodes.append(node)
            continue
        k, renormalise = _attributes(node)
        experts = stacked[node.input[2]].dims[0]
        if form == "function":
            key = (k, renormalise, experts)
            if key not in functions:
                functions[key] = FUNCTION[1] + (f"_{len(functions)}" if functions else "")
                result.functions.append(_make_function(functions[key], body, *key, opset))
            node.domain, node.op_type = FUNCTION[0], functions[key]
            del node.attribute[:]
            nodes.append(node)
            continue
        scope = node.name.rsplit("/", 1)[0]
        w = _Writer(scope, opset, constants_as_nodes=False, taken=taken)
        w.initializers = added
        parameters = _split(node.input[2:], stacked, added)
        out = _BUILD[form](w, node.input[0], node.input[1], k, renormalise, parameters)
        nodes += w.nodes
        nodes[-1].output[:] = [node.output[0] if o == out else o for o in nodes[-1].output]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added.values()])
    others = [o for o in result.opset_import if o.domain != "com.microsoft"]
    del result.opset_import[:]
    result.opset_import.extend(others)
    if result.functions:
        result.opset_import.append(helper.make_opsetid(FUNCTION[0], 1))
    return result


def _split(
    names: Sequence[str], stacked: dict[str, onnx.TensorProto], added: dict[str, onnx.TensorProto]
) -> list[list[str]]:
    """Cuts L.experts.fc1_weight and its like into L.experts.0.fc1.weight, ... Returns the names."""
    arrays: list[NDArray[Any]] = [numpy_helper.to_array(stacked[name]) for name in names]
    result = []
    for e in range(arrays[0].shape[0]):
        mine = []
        for name, array in zip(names, arrays, strict=True):
            prefix, parameter = name.rsplit(".", 1)
            cut = f"{prefix}.{e}.{parameter.replace('_', '.')}"
            if cut not in added:
                added[cut] = numpy_helper.from_array(np.ascontiguousarray(array[e]), cut)
            mine.append(cut)
        result.append(mine)
    return result
