"""ONNX's own node tests for every operator and type that `moecc ops` claims.

The cases are made in memory by the onnx package. Operands that give shapes, axes and counts are inputs there; the compiler
wants them constant, so they become constants of the model. Every case is run twice: with its other inputs given at run
time, and with all inputs constant, so that folding gives the same results as the emitted kernels.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import onnx
import pytest
from harness import TYPE_NAMES, Case, Operator, constant_inputs, supported_operators, verify_all

# How many cases must at least be claimed and run; a drop means that a claim was lost.
LEAST_CASES = 900

# Operands that must be constant, by operator.
CONSTANT_OPERANDS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
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
        for kind in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
    },
}

# The operand whose element type an operator's claim is about.
MAIN_OPERAND = {"Where": 1, "OneHot": 2, "Resize": 0}

# Cases that an honest claim includes but that are known not to work, each with the reason.
EXPECTED_FAILURES: dict[str, str] = {}

HALF = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


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


def shaping_inputs(model: onnx.ModelProto, base: onnx.ModelProto) -> set[str]:
    """Graph inputs that must be constant. An expanded case has the inputs of the case that it expands."""
    found: set[str] = set()
    for node in [*base.graph.node, *model.graph.node]:
        found.update(node.input[i] for i in CONSTANT_OPERANDS.get(node.op_type, ()) if i < len(node.input))
    return {v.name for v in model.graph.input} & found


def tolerance(model: onnx.ModelProto, rtol: float, atol: float) -> tuple[float, float]:
    """Half precision is computed in float32 and rounded once, the expected values are rounded at every step."""
    types = {element_type(v) for v in [*model.graph.input, *model.graph.output]}
    if onnx.TensorProto.BFLOAT16 in types:
        return max(rtol, 2e-2), max(atol, 1e-2)
    if onnx.TensorProto.FLOAT16 in types:
        return max(rtol, 5e-3), max(atol, 2e-3)
    return rtol, max(atol, 1e-6)


@functools.cache
def collect() -> tuple[list[Case], list[Case]]:
    """The claimed cases: with run-time inputs, and with every input constant."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = {t.name: t for t in collect_testcases(None)}
    operators = supported_operators()
    given: list[Case] = []
    folded: list[Case] = []
    for test in tests.values():
        if not test.data_sets or not claimed(test.model, operators):
            continue
        inputs, outputs = test.data_sets[0]
        if not all(isinstance(a, (np.ndarray, np.generic)) for a in [*inputs, *outputs]):
            continue
        rtol, atol = tolerance(test.model, test.rtol, test.atol)
        case = Case(test.name, test.model, list(inputs), list(outputs), rtol, atol)
        base = tests.get(test.name.split("_expanded")[0], test)
        given.append(constant_inputs(case, shaping_inputs(test.model, base.model)))
        folded.append(constant_inputs(case, {v.name for v in test.model.graph.input}))
    return given, folded


@functools.cache
def results(kind: str) -> dict[str, str]:
    """What moecc said to each case; run once."""
    return verify_all(collect()[kind == "folded"])


def names() -> list[str]:
    """The names of the claimed cases."""
    return [c.name for c in collect()[0]]


def test_enough_cases() -> None:
    """A suite that selects nothing must not pass."""
    assert len(collect()[0]) >= LEAST_CASES
    assert set(EXPECTED_FAILURES) <= set(names()), "an expected failure names no case"


@pytest.mark.parametrize("kind", ["given", "folded"])
@pytest.mark.parametrize("name", names())
def test_case(name: str, kind: str) -> None:
    """The case passes, or fails as expected and for the reason given."""
    message = results(kind)[name]
    if name in EXPECTED_FAILURES:
        assert message, f"passes now, though it should not: {EXPECTED_FAILURES[name]}"
    else:
        assert not message, message
