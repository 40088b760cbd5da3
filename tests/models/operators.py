"""Which operators a set of models uses, and how: versions, attributes, types and ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, defs, helper, shape_inference

_SHORT: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.DOUBLE: "f64",
    TensorProto.FLOAT16: "f16",
    TensorProto.INT64: "i64",
    TensorProto.INT32: "i32",
    TensorProto.UINT8: "u8",
    TensorProto.INT8: "i8",
    TensorProto.BOOL: "bool",
}


@dataclass
class Use:
    """How one operator was seen to be used."""

    nodes: int = 0
    models: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)  # opset of the model and of the operator
    attributes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    signatures: set[str] = field(default_factory=set)  # types and ranks, c: constant


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return f"{_SHORT.get(value.data_type, '?')}{list(value.dims)}"
    if isinstance(value, onnx.GraphProto):
        return "graph"
    return str(list(value) if hasattr(value, "__len__") else value)


def _types(graph: onnx.GraphProto) -> dict[str, str]:
    types = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        rank = len(tensor.shape.dim) if tensor.HasField("shape") else "?"
        types[value.name] = f"{_SHORT.get(tensor.elem_type, str(tensor.elem_type))}r{rank}"
    for init in graph.initializer:
        types[init.name] = f"c:{_SHORT.get(init.data_type, str(init.data_type))}r{len(init.dims)}"
    return types


def operators(models: Iterable[tuple[str, onnx.ModelProto]]) -> dict[tuple[str, str], Use]:
    """The union of (domain, operator) over the models, functions included."""
    uses: dict[tuple[str, str], Use] = defaultdict(Use)
    for name, model in models:
        opsets = {o.domain: o.version for o in model.opset_import}
        types = _types(shape_inference.infer_shapes(model, data_prop=True).graph)
        nodes = [*model.graph.node, *(n for f in model.functions for n in f.node)]
        for node in nodes:
            use = uses[node.domain, node.op_type]
            use.nodes += 1
            use.models.add(name)
            opset = opsets.get(node.domain, 0)
            if defs.has(node.op_type, node.domain):
                since = defs.get_schema(node.op_type, opset, node.domain).since_version
                use.versions.add(f"opset {opset} (since {since})")
            for attribute in node.attribute:
                use.attributes[attribute.name].add(_attribute(attribute))
            use.attributes["(set)"].add("+".join(sorted(a.name for a in node.attribute)) or "none")
            ins = ", ".join(types.get(i, "?") if i else "-" for i in node.input)
            outs = ", ".join(types.get(o, "?") if o else "-" for o in node.output)
            use.signatures.add(f"({ins}) -> ({outs})")
    return dict(uses)


def lines(uses: dict[tuple[str, str], Use], details: bool) -> Iterator[str]:
    """A listing of what `operators` found: names alone, or with all that was seen."""
    for (domain, op), use in sorted(uses.items()):
        yield f"{domain or 'ai.onnx'} {op}"
        if not details:
            continue
        yield f"    {use.nodes} nodes in {', '.join(sorted(use.models))}"
        yield f"    {', '.join(sorted(use.versions)) or 'no schema'}"
        for key, values in sorted(use.attributes.items()):
            yield f"    {key}: {' | '.join(sorted(values))}"
        for signature in sorted(use.signatures):
            yield f"    {signature}"
