"""ONNX's own node tests for every operator and type that `moecc ops` claims.

The cases are made in memory by the onnx package. Operands that give shapes, axes and counts are
inputs there; the compiler wants them constant, so they become constants of the model. Every case is
run twice: with its other inputs given at run time, and with all inputs constant, so that folding
gives the same results as the emitted kernels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import helper

from harness import TYPE_NAMES, Case, Operator, constant_inputs, supported_operators, verify_all

# How many cases must at least be claimed and run; a drop means that a claim was lost.
LEAST_CASES = 1000
MOST_REFUSED = 120

# Operands that must be constant, by operator.
CONSTANT_OPERANDS: dict[str, tuple[int, ...]] = {
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    "NonZero": (0,),
    **{
        f"Reduce{kind}": (1,)
        for kind in (
            "L1",
            "L2",
            "LogSum",
            "LogSumExp",
            "Max",
            "Mean",
            "Min",
            "Prod",
            "Sum",
            "SumSquare",
        )
    },
}

# The operand whose element type an operator's claim is about.
MAIN_OPERAND = {"Where": 1, "OneHot": 2, "Resize": 0}

# Cases that are claimed but known to give something else, each with the reason.
EXPECTED_FAILURES = {
    "test_resize_downsample_scales_linear_align_corners": "expects the resized length to be the "
    "fractional product of length and scale, where the operator's text has the result's length",
    "test_resize_downsample_scales_cubic_align_corners": "the same",
    "test_l2normalization_axis_0": "0/0 where a vector has no length: expects 0",
    "test_attention_causal_boolmask_nan_robustness": "a query that may see no key: expects 0",
    "test_attention_23_boolmask_fullymasked_row_nan_robustness": "the same",
}

# Features that are refused with a message, each with the reason. The cases must fail so.
REFUSED: dict[str, str] = {
    "LayerNormalization with 3 outputs": "mean and deviation are wanted by training only",
    "MaxPool with 2 outputs": "indices are wanted by unpooling only",
    "BatchNormalization in training": "networks are compiled for inference",
    "Dropout in training": "networks are compiled for inference",
    "Attention with a cache": "the compiler keeps nothing between calls",
    "Attention with several outputs": "only the first is of use without a cache",
    "Attention with softcap": "no vision transformer has it",
    "Attention with a window": "no vision transformer has it",
    "Attention causal over keys more or fewer than queries": "needs a cache to make sense",
    "Pow of an integer by a float": "the result has no exact meaning; a Cast says what is wanted",
}


def element_type(value: onnx.ValueInfoProto) -> int | None:
    """The element type of a tensor; None for sequences and optionals."""
    return value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else None


def claimed(model: onnx.ModelProto, operators: dict[tuple[str, str], Operator]) -> bool:
    """Are all operators and element types of a model claimed?"""
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        return False
    types = [element_type(v) for v in [*graph.input, *graph.output]]
    if any(t not in TYPE_NAMES for t in types):
        return False
    versions = {o.domain: o.version for o in model.opset_import}
    by_name = {v.name: element_type(v) for v in graph.input}
    for node in graph.node:
        operator = operators.get((node.domain, node.op_type))
        if operator is None or not operator.since <= versions[node.domain] <= operator.until:
            return False
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.SPARSE_TENSOR) for a in node.attribute):
            return False
        main = MAIN_OPERAND.get(node.op_type, 0)
        main_type = by_name.get(node.input[main]) if main < len(node.input) else None
        if main_type is not None and TYPE_NAMES[main_type] not in operator.types:
            return False
    return True


def attention_feature(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> str | None:
    """The refused feature of an Attention node."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if any(node.input[4:]):
        return "Attention with a cache"
    if any(node.output[1:]):
        return "Attention with several outputs"
    if attributes.get("softcap"):
        return "Attention with softcap"
    if max(attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)) >= 0:
        return "Attention with a window"
    if attributes.get("is_causal") and values[node.input[0]].shape[-2] != values[node.input[1]].shape[-2]:
        return "Attention causal over keys more or fewer than queries"
    return None


def refused_feature(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> str | None:
    """The refused feature that a case uses, if any."""
    values = {v.name: np.asarray(a) for v, a in zip(model.graph.input, inputs, strict=True)}
    types = {v.name: element_type(v) for v in model.graph.input}
    for node in model.graph.node:
        op, outputs = node.op_type, len(node.output)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if op == "Attention":
            return attention_feature(node, values)
        if (op == "LayerNormalization" and outputs == 3) or (op == "MaxPool" and outputs == 2):
            return f"{op} with {outputs} outputs"
        if op == "BatchNormalization" and attributes.get("training_mode"):
            return "BatchNormalization in training"
        if op == "Dropout" and len(node.input) > 2 and values[node.input[2]]:
            return "Dropout in training"
        if op == "Pow" and len(types) == 2:
            base, exponent = (TYPE_NAMES[types[i] or 0] for i in node.input)
            if "int" in base and "float" in exponent:
                return "Pow of an integer by a float"
    return None


def shaping_inputs(model: onnx.ModelProto, base: onnx.ModelProto) -> set[str]:
    """Graph inputs that must be constant; an expanded case has those of the case it expands."""
    found: set[str] = set()
    for node in [*base.graph.node, *model.graph.node]:
        found.update(node.input[i] for i in CONSTANT_OPERANDS.get(node.op_type, ()) if i < len(node.input))
    return {v.name for v in model.graph.input} & found


def tolerance(model: onnx.ModelProto, rtol: float, atol: float) -> tuple[float, float]:
    """Half precision is computed in float32 and rounded once, the expected values at every step."""
    types = {element_type(v) for v in [*model.graph.input, *model.graph.output]}
    if onnx.TensorProto.BFLOAT16 in types:
        return max(rtol, 2e-2), max(atol, 1e-2)
    if onnx.TensorProto.FLOAT16 in types:
        return max(rtol, 5e-3), max(atol, 2e-3)
    return rtol, max(atol, 1e-6)


@dataclass
class Suite:
    """The claimed cases, inputs given at run time or all constant, and those to be refused."""

    given: list[Case] = field(default_factory=list)
    folded: list[Case] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@functools.cache
def collect() -> Suite:
    """Makes ONNX's cases and selects what is claimed."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = {t.name: t for t in collect_testcases(None)}
    operators = supported_operators()
    suite = Suite()
    for test in tests.values():
        if not test.model or not test.data_sets or not claimed(test.model, operators):
            continue
        inputs, outputs = test.data_sets[0]
        if not all(isinstance(a, (np.ndarray, np.generic)) for a in [*inputs, *outputs]):
            continue
        rtol, atol = tolerance(test.model, test.rtol, test.atol)
        case = Case(test.name, test.model, list(inputs), list(outputs), rtol, atol)
        base = tests.get(test.name.split("_expanded")[0], test).model or test.model
        suite.given.append(constant_inputs(case, shaping_inputs(test.model, base)))
        suite.folded.append(constant_inputs(case, {v.name for v in test.model.graph.input}))
        feature = refused_feature(test.model, inputs)
        if feature:
            suite.refused[test.name] = REFUSED[feature]
    return suite


@functools.cache
def results(kind: str) -> dict[str, str]:
    """What moecc said to each case; run once."""
    return verify_all(collect().folded if kind == "folded" else collect().given)


def names() -> list[str]:
    """The names of the claimed cases."""
    return [c.name for c in collect().given]


def test_enough_cases() -> None:
    """A suite that selects nothing must not pass, nor one that refuses much."""
    assert len(names()) >= LEAST_CASES
    assert len(collect().refused) <= MOST_REFUSED
    assert set(EXPECTED_FAILURES) <= set(names()), "an expected failure names no case"


@pytest.mark.parametrize("kind", ["given", "folded"])
@pytest.mark.parametrize("name", names())
def test_case(name: str, kind: str) -> None:
    """The case passes, or is refused as the model's fault, or is known to differ."""
    message = results(kind)[name]
    if name in EXPECTED_FAILURES:
        assert message, f"passes now, though it should not: {EXPECTED_FAILURES[name]}"
    elif name in collect().refused:
        assert message.startswith("status 1: "), f"{collect().refused[name]}: {message}"
    else:
        assert not message, message
