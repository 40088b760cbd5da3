"""Spellings of a mixture-of-experts layer, a function each, named after what is done.

In NEGATIVE is what looks like such a layer and is none. make_moe_variants.py writes them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from moe_layer import OPSET, Array, Builder, Spelling, case
from onnx import TensorProto, helper, numpy_helper

# ---- every expert computed and masked


@case()
@case(gate="topk_softmax")
@case(gate="none")
@case(gate="none", normalize=True)
@case(normalize=True, k=3)
@case(act="relu", bias=False)
@case(act="silu", gated=True)
@case(act="gelu_tanh")
@case(shape=(2, 5))
@case(shape=(1, 6), experts=3, k=1)
@case(experts=2, k=2)
def dense_slices(b: Builder) -> str:
    mask = b.mask()
    style = "matmul" if b.layer.shape else "gemm"
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x", style)) for e in range(b.layer.experts)])


@case()
@case(act="silu", gated=True, bias=False)
def dense_matmul_any_order(b: Builder) -> str:
    mask = b.mask()
    parts = [
        b("Mul", b.expert(e, "x", "bias_first"), b("Unsqueeze", b("Gather", mask, e, axis=1), [1]))
        for e in reversed(range(b.layer.experts))
    ]
    return b("Add", b("Add", parts[0], parts[2]), b("Add", parts[3], parts[1]))


@case()
@case(experts=96)
def dense_split_sum(b: Builder) -> str:
    columns = b.op("Split", b.mask(), outputs=b.layer.experts, axis=1, num_outputs=b.layer.experts)
    return b("Sum", *[b("Mul", c, b.expert(e, "x", "gemm_plain")) for e, c in enumerate(columns)])


@case()
def dense_concat_reduce(b: Builder) -> str:
    mask = b.mask()
    parts = [b("Unsqueeze", b("Mul", b.column(mask, e), b.expert(e, "x")), [1]) for e in (2, 0, 3, 1)]
    return b("ReduceSum", b("Concat", *parts, axis=1), [1], keepdims=0)


@case()
@case(k=1)
@case(normalize=True)
def dense_one_hot(b: Builder) -> str:
    top, index = b.choice()
    hot = b("OneHot", index, b.layer.experts, np.asarray([0, 1], np.float32), axis=-1)
    mask = b("ReduceSum", b("Mul", hot, b("Unsqueeze", top, [-1])), [1], keepdims=0)
    return b.sum(
        [b("Mul", b("Unsqueeze", b("Gather", mask, e, axis=-1), [-1]), b.expert(e, "x")) for e in range(b.layer.experts)]
    )


@case()
@case(gate="topk_softmax", act="identity")
def dense_equal(b: Builder) -> str:
    top, index = b.choice()
    parts = []
    for e in range(b.layer.experts):
        hit = b("Cast", b("Equal", index, e), to=TensorProto.FLOAT)
        parts.append(b("Mul", b.expert(e, "x"), b("ReduceSum", b("Mul", top, hit), [-1], keepdims=1)))
    return b.sum(parts)


@case()
def dense_equal_arange(b: Builder) -> str:
    top, index = b.choice()
    hit = b("Equal", b("Unsqueeze", index, [-1]), np.arange(b.layer.experts))
    mask = b("ReduceSum", b("Where", hit, b("Unsqueeze", top, [-1]), 0.0), [-2], keepdims=0)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case()
def dense_where_per_slot(b: Builder) -> str:
    """for slot: for expert: y += where(idx == e, w * expert(x), 0)"""
    top, index = b.choice()
    parts = []
    for s in range(b.layer.k):
        for e in range(b.layer.experts):
            weighted = b("Mul", b("Slice", top, [s], [s + 1], [1]), b.expert(e, "x"))
            hit = b("Equal", b("Slice", index, [s], [s + 1], [1]), e)
            parts.append(b("Where", hit, weighted, 0.0))
    return b.sum(parts)


@case(normalize=True)
def dense_normalized_mask(b: Builder) -> str:
    top, index = b.op("TopK", b.scores(), [b.layer.k], outputs=2)
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, top, axis=1)
    mask = b("Div", mask, b("ReduceSum", mask, [1], keepdims=1))
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(normalize=True)
def dense_normalized_carefully(b: Builder) -> str:
    """reciprocal of the sum, floored and with an epsilon"""
    top, index = b.op("TopK", b.scores(), [b.layer.k], outputs=2)
    total = b("Clip", b("Add", b("ReduceSum", top, [-1], keepdims=1), 1e-20), 1e-12)
    top = b("Mul", b("Reciprocal", total), top)
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, top, axis=1, reduction="add")
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(normalize=True)
def dense_scores_times_ones(b: Builder) -> str:
    scores = b.scores()
    _, index = b.op("TopK", scores, [b.layer.k], outputs=2)
    ones = b(
        "ScatterElements",
        b.zeros(b.layer.tokens, b.layer.experts),
        index,
        np.ones((b.layer.tokens, b.layer.k), np.float32),
        axis=1,
    )
    mask = b("Mul", scores, ones)
    mask = b("Div", mask, b("ReduceSum", mask, [1], keepdims=1))
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(gate="topk_softmax")
def dense_softmax_of_sunk(b: Builder) -> str:
    logits = b.logits()
    top, index = b.op("TopK", logits, [b.layer.k], outputs=2)
    sunk = np.full((b.layer.tokens, b.layer.experts), -np.inf, np.float32)
    mask = b("Softmax", b("ScatterElements", sunk, index, top, axis=1), axis=1)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(gate="topk_softmax")
def dense_softmax_of_filled(b: Builder) -> str:
    logits = b.logits()
    _, index = b.op("TopK", logits, [b.layer.k], outputs=2)
    ones = b(
        "ScatterElements",
        b.zeros(b.layer.tokens, b.layer.experts),
        index,
        np.ones((b.layer.tokens, b.layer.k), np.float32),
        axis=1,
    )
    mask = b("Softmax", b("Where", b("Cast", ones, to=TensorProto.BOOL), logits, (-3e38)), axis=1)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case()
def dense_softmax_after_choice(b: Builder) -> str:
    """The choice is made by logits, the weights are picked from their softmax."""
    logits = b.logits()
    _, index = b.op("TopK", logits, [b.layer.k], outputs=2)
    top = b("GatherElements", b("Softmax", logits, axis=-1), index, axis=-1)
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, top, axis=1)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(scale=2.5)
@case(scale=0.5, normalize=True, act="silu", gated=True)
def dense_scaled(b: Builder) -> str:
    top, index = b.choice()
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, b("Mul", top, b.layer.scale), axis=1)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(bias=False)
def dense_weight_on_hidden(b: Builder) -> str:
    mask, w = b.mask(), b.w
    return b.sum(
        [
            b("MatMul", b("Mul", b.activate(b("MatMul", "x", w.w1[e].T.copy())), b.column(mask, e)), w.w2[e].T.copy())
            for e in range(b.layer.experts)
        ]
    )


@case(residual=True)
def dense_onto_residual(b: Builder) -> str:
    mask = b.mask()
    return b.sum(["x"] + [b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(b.layer.experts)])


@case(k=1, gate="ones")
def dense_switch_unweighted(b: Builder) -> str:
    _, index = b.op("TopK", b.logits(), [1], outputs=2)
    return b.sum([b("Where", b("Equal", index, e), b.expert(e, "x"), 0.0) for e in range(b.layer.experts)])


@case(k=1, act="relu")
def dense_switch_arg_max(b: Builder) -> str:
    scores = b.scores()
    index = b("ArgMax", scores, axis=-1, keepdims=1)
    weight = b("ReduceMax", scores, [-1], keepdims=1)
    parts = [b("Where", b("Equal", index, e), b.expert(e, "x"), 0.0) for e in range(b.layer.experts)]
    return b("Mul", b.sum(parts), weight)


@case(experts=4, window=(1, 3))
@case(experts=5, window=(0, 3), gate="topk_softmax")
def dense_window_of_experts(b: Builder) -> str:
    """A task may only choose experts within a window: the others' scores are -inf, and they are not computed."""
    first, end = b.layer.window
    allowed = (np.arange(b.layer.experts) >= first) & (np.arange(b.layer.experts) < end)
    closed = np.where(allowed, 0, -np.inf).astype(np.float32)
    logits = b("Add", b.logits(), closed) if b.layer.gate == "softmax" else b("Where", allowed, b.logits(), -np.inf)
    top, index = b.choice(b("Softmax", logits, axis=-1) if b.layer.gate == "softmax" else logits)
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, top, axis=-1)
    return b.sum([b("Mul", b.column(mask, e), b.expert(e, "x")) for e in range(first, end)])


@case()
def dense_experts_first(b: Builder) -> str:
    """The router's scores are [experts, tokens]."""
    scores = b("Transpose", b.scores(), perm=[1, 0])
    top, index = b.op("TopK", scores, [b.layer.k], outputs=2, axis=0)
    mask = b("ScatterElements", b.zeros(b.layer.experts, b.layer.tokens), index, top, axis=0)
    return b.sum([b("Mul", b("Unsqueeze", b("Gather", mask, e), [1]), b.expert(e, "x")) for e in range(b.layer.experts)])


def all_experts(b: Builder) -> str:
    """[experts, tokens, hidden] by batched products."""
    w = b.w
    z = b("MatMul", "x", w.w1.transpose(0, 2, 1).copy())
    if b.layer.bias:
        z = b("Add", z, w.b1[:, None, :])
    hidden = b.activate(z)
    if b.layer.gated:
        up = b("MatMul", "x", w.w3.transpose(0, 2, 1).copy())
        hidden = b("Mul", hidden, b("Add", up, w.b3[:, None, :]) if b.layer.bias else up)
    y = b("MatMul", hidden, w.w2.transpose(0, 2, 1).copy())
    return b("Add", y, w.b2[:, None, :]) if b.layer.bias else y


@case()
@case(act="silu", gated=True)
def batched_mask_and_sum(b: Builder) -> str:
    mask = b("Unsqueeze", b("Transpose", b.mask(), perm=[1, 0]), [-1])
    return b("ReduceSum", b("Mul", all_experts(b), mask), [0], keepdims=0)


@case()
@case(bias=False, act="relu")
def batched_mask_product(b: Builder) -> str:
    """[T,1,E] @ [T,E,H]"""
    y = b("Transpose", all_experts(b), perm=[1, 0, 2])
    return b("Squeeze", b("MatMul", b("Unsqueeze", b.mask(), [1]), y), [1])


@case(experts=4000, tokens=70, hidden=3, inner=2)
def batched_mask_of_shape(b: Builder) -> str:
    """A mask that is too large to be folded into a constant before the scores are written into it."""
    top, index = b.choice()
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    zeros = b("ConstantOfShape", [b.layer.tokens, b.layer.experts], value=zero)
    mask = b("ScatterElements", b("Reshape", zeros, [b.layer.tokens, -1]), index, top, axis=-1)
    mask = b("Unsqueeze", b("Transpose", mask, perm=[1, 0]), [-1])
    return b("ReduceSum", b("Mul", all_experts(b), mask), [0], keepdims=0)


@case()
@case(normalize=True)
@case(experts=400)
def stacked_then_picked(b: Builder) -> str:
    """All experts side by side, the chosen ones picked, weighted and added."""
    top, index = b.choice()
    y = b("Concat", *[b("Unsqueeze", b.expert(e, "x"), [1]) for e in range(b.layer.experts)], axis=1)
    wide = b("Expand", b("Unsqueeze", index, [-1]), [b.layer.tokens, b.layer.k, b.layer.hidden])
    return b("ReduceSum", b("Mul", b("GatherElements", y, wide, axis=1), b("Unsqueeze", top, [-1])), [1], keepdims=0)


@case()
def stacked_then_picked_nd(b: Builder) -> str:
    top, index = b.choice()
    y = b("Transpose", all_experts(b), perm=[1, 0, 2])
    picked = b("GatherND", y, b("Unsqueeze", index, [-1]), batch_dims=1)
    return b("Squeeze", b("MatMul", b("Unsqueeze", top, [1]), picked), [1])


# ---- tokens gathered per expert


def rows_of(b: Builder, e: int, index: str) -> tuple[str, str]:
    """Tokens and slots [n] of the pairs that chose e."""
    where = b("Transpose", b("NonZero", b("Equal", index, e)), perm=[1, 0])
    return (b("Squeeze", b("Slice", where, [0], [1], [1]), [1]), b("Squeeze", b("Slice", where, [1], [2], [1]), [1]))


@case()
@case(gate="topk_softmax", act="silu", gated=True, bias=False)
@case(normalize=True, k=3)
@case(k=1, experts=3)
@case(experts=96)
def routed_loop(b: Builder) -> str:
    top, index = b.choice()
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for e in range(b.layer.experts):
        token, slot = rows_of(b, e, index)
        at = b("Unsqueeze", token, [-1])
        y = b.expert(e, b("GatherND", "x", at))
        pair = b("Concat", at, b("Unsqueeze", slot, [-1]), axis=-1)
        weight = b("GatherND", b("Unsqueeze", top, [2]), pair)
        out = b("ScatterND", out, at, b("Mul", y, weight), reduction="add")
    return out


@case()
def routed_one_hot(b: Builder) -> str:
    """one_hot(idx).permute(2, 1, 0), where(mask[e]), index_add, as transformers had it for years."""
    top, index = b.choice()
    hot = b("OneHot", index, b.layer.experts, np.asarray([0, 1], np.int64), axis=-1)
    hot = b("Transpose", hot, perm=[2, 1, 0])
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for e in (1, 3, 0, 2):
        where = b("NonZero", b("Gather", hot, e, axis=0))
        slot, token = b.op("Split", where, outputs=2, axis=0, num_outputs=2)
        slot, token = b("Squeeze", slot, [0]), b("Squeeze", token, [0])
        y = b.expert(e, b("Gather", "x", token, axis=0), "matmul")
        weight = b("GatherND", top, b("Concat", b("Unsqueeze", token, [1]), b("Unsqueeze", slot, [1]), axis=1))
        wide = b("Expand", b("Unsqueeze", token, [1]), b("Shape", y))
        out = b("ScatterElements", out, wide, b("Mul", b("Unsqueeze", weight, [1]), y), axis=0, reduction="add")
    return out


@case()
def routed_read_add_write(b: Builder) -> str:
    """out[rows] += w * expert(x[rows])"""
    top, index = b.choice()
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for e in range(b.layer.experts):
        token, slot = rows_of(b, e, index)
        at = b("Unsqueeze", token, [-1])
        weight = b("GatherND", top, b("Concat", at, b("Unsqueeze", slot, [-1]), axis=-1))
        y = b("Mul", b.expert(e, b("Gather", "x", token)), b("Unsqueeze", weight, [-1]))
        out = b("ScatterND", out, at, b("Add", b("GatherND", out, at), y))
    return out


@case(residual=True)
def routed_onto_residual(b: Builder) -> str:
    top, index = b.choice()
    out = "x"
    for e in range(b.layer.experts):
        token, slot = rows_of(b, e, index)
        at = b("Unsqueeze", token, [-1])
        weight = b("GatherND", top, b("Concat", at, b("Unsqueeze", slot, [-1]), axis=-1))
        y = b("Mul", b.expert(e, b("Gather", "x", token)), b("Unsqueeze", weight, [-1]))
        out = b("ScatterND", out, at, y, reduction="add")
    return out


@case()
@case(normalize=True)
def routed_any_slot(b: Builder) -> str:
    """Rows are the tokens that chose e in any slot; weights come from the scattered table."""
    top, index = b.choice()
    mask = b("ScatterElements", b.zeros(b.layer.tokens, b.layer.experts), index, top, axis=1)
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for e in range(b.layer.experts):
        hit = b(
            "Cast",
            b("ReduceMax", b("Cast", b("Equal", index, e), to=TensorProto.INT32), [-1], keepdims=0),
            to=TensorProto.BOOL,
        )
        token = b("Squeeze", b("NonZero", hit), [0])
        y = b.expert(e, b("Gather", "x", token))
        weight = b("Gather", b("Gather", mask, e, axis=1), token)
        out = b("ScatterND", out, b("Unsqueeze", token, [-1]), b("Mul", y, b("Unsqueeze", weight, [-1])), reduction="add")
    return out


@case()
def routed_flat_pairs(b: Builder) -> str:
    """Pairs in one flat list: token = pair // k."""
    top, index = b.choice()
    index, top = b("Reshape", index, [-1]), b("Reshape", top, [-1])
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for e in range(b.layer.experts):
        pair = b("Reshape", b("NonZero", b("Equal", index, e)), [-1])
        token = b("Div", pair, b.layer.k)
        y = b("Mul", b.expert(e, b("Gather", "x", token)), b("Unsqueeze", b("Gather", top, pair), [-1]))
        out = b("ScatterND", out, b("Unsqueeze", token, [-1]), y, reduction="add")
    return out


@case()
def routed_into_slots(b: Builder) -> str:
    """Results are written to their (token, slot), weighted and added at the end."""
    top, index = b.choice()
    out = b.empty(b.layer.tokens, b.layer.k, b.layer.hidden)
    for e in range(b.layer.experts):
        where = b("NonZero", b("Equal", index, e))
        at = b("Transpose", where, perm=[1, 0])
        y = b.expert(e, b("Gather", "x", b("Gather", where, 0, axis=0)))
        out = b("ScatterND", out, at, y, reduction="add")
    return b("ReduceSum", b("Mul", out, b("Unsqueeze", top, [-1])), [1], keepdims=0)


@case()
def routed_per_slot(b: Builder) -> str:
    top, index = b.choice()
    out = b.empty(b.layer.tokens, b.layer.hidden)
    for s in range(b.layer.k):
        for e in range(b.layer.experts):
            token = b("Squeeze", b("NonZero", b("Equal", b("Gather", index, s, axis=1), e)), [0])
            weight = b("Gather", b("Gather", top, s, axis=1), token)
            y = b("Mul", b.expert(e, b("Gather", "x", token)), b("Unsqueeze", weight, [-1]))
            out = b("ScatterND", out, b("Unsqueeze", token, [-1]), y, reduction="add")
    return out


@case(shape=(2, 4))
def routed_batched_tokens(b: Builder) -> str:
    layer = b.layer
    n = math.prod(layer.lead)
    top, index = b.choice()
    x, top, index = (
        b("Reshape", "x", [n, layer.hidden]),
        b("Reshape", top, [n, layer.k]),
        b("Reshape", index, [n, layer.k]),
    )
    out = b.empty(n, layer.hidden)
    for e in range(layer.experts):
        token, slot = rows_of(b, e, index)
        at = b("Unsqueeze", token, [-1])
        weight = b("GatherND", top, b("Concat", at, b("Unsqueeze", slot, [-1]), axis=-1))
        y = b("Mul", b.expert(e, b("Gather", x, token)), b("Unsqueeze", weight, [-1]))
        out = b("ScatterND", out, at, y, reduction="add")
    return b("Reshape", out, [*layer.lead, layer.hidden])


@case(experts=3)
@case(experts=96)
def routed_function(b: Builder) -> str:
    """The same as routed_loop as a model-local function."""
    layer = b.layer
    inner = Builder(layer, b.w)
    out = routed_loop(inner)
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in inner.constants.items()
    ]
    nodes += [*inner.nodes, helper.make_node("Identity", [out], ["y"])]
    b.functions.append(helper.make_function("local", "MoeLayer", ["x"], ["y"], nodes, [helper.make_opsetid("", OPSET)]))
    return b("MoeLayer", "x", domain="local")


# ---- weights gathered per token and slot


@case(act="silu", gated=True, bias=False, normalize=True)
@case(act="silu", gated=True)
@case(gate="topk_softmax")
def gathered_pairs(b: Builder) -> str:
    """transformers' batched_mm: a matrix per pair, times a column"""
    layer, w = b.layer, b.w
    t, k, h = layer.tokens, layer.k, layer.hidden
    top, index = b.choice()
    pair = b("Unsqueeze", b("Reshape", index, [-1]), [-1])
    x = b("Reshape", b("Expand", b("Unsqueeze", "x", [1]), [1, k, 1]), [-1, h])
    w1 = np.concatenate([w.w1, w.w3], 1) if layer.gated else w.w1
    z = b("Squeeze", b("MatMul", b("GatherND", w1, pair), b("Unsqueeze", x, [-1])), [-1])
    if layer.bias:
        z = b("Add", z, b("GatherND", np.concatenate([w.b1, w.b3], 1) if layer.gated else w.b1, pair))
    if layer.gated:
        gate, up = b.op("Split", z, outputs=2, axis=1, num_outputs=2)
        hidden = b("Mul", b.activate(gate), up)
    else:
        hidden = b.activate(z)
    y = b("Squeeze", b("MatMul", b("GatherND", w.w2, pair), b("Unsqueeze", hidden, [-1])), [-1])
    if layer.bias:
        y = b("Add", y, b("GatherND", w.b2, pair))
    y = b("Mul", y, b("Unsqueeze", b("Reshape", top, [-1]), [-1]))
    return b("ReduceSum", b("Reshape", y, [t, k, h]), [1], keepdims=0)


@case(act="silu", gated=True)
def gathered_rows_interleaved(b: Builder) -> str:
    """[T,1,1,H] @ [T,k,H,2I], gate and up in turns"""
    layer, w = b.layer, b.w
    top, index = b.choice()
    w1 = np.stack([w.w1, w.w3], 2).reshape(layer.experts, 2 * layer.inner, layer.hidden).transpose(0, 2, 1).copy()
    b1 = np.stack([w.b1, w.b3], 2).reshape(layer.experts, -1)
    z = b("MatMul", b("Unsqueeze", "x", [1, 2]), b("Gather", w1, index, axis=0))
    z = b("Add", z, b("Unsqueeze", b("Gather", b1, index, axis=0), [2]))
    gate = b("Slice", z, [0], [2**31], [-1], [2])
    up = b("Slice", z, [1], [2**31], [-1], [2])
    y = b("MatMul", b("Mul", up, b.activate(gate)), b("Gather", w.w2.transpose(0, 2, 1).copy(), index, axis=0))
    y = b("Squeeze", b("Add", y, b("Unsqueeze", b("Gather", w.b2, index, axis=0), [2])), [2])
    return b("Squeeze", b("MatMul", b("Unsqueeze", top, [1]), y), [1])


@case(act="relu")
def gathered_per_slot(b: Builder) -> str:
    w = b.w
    top, index = b.choice()
    parts = []
    for s in range(b.layer.k):
        i = b("Gather", index, s, axis=1)
        z = b("MatMul", b("Gather", w.w1, i, axis=0), b("Unsqueeze", "x", [-1]))
        hidden = b.activate(b("Add", z, b("Unsqueeze", b("Gather", w.b1, i, axis=0), [-1])))
        y = b("Squeeze", b("MatMul", b("Gather", w.w2, i, axis=0), hidden), [-1])
        y = b("Add", y, b("Gather", w.b2, i, axis=0))
        parts.append(b("Mul", y, b("Slice", top, [s], [s + 1], [1])))
    return b.sum(parts)


# ---- the operators of onnxruntime


@case()
@case(normalize=True, act="relu")
@case(act="silu", gated=True)
@case(shape=(2, 3), act="identity")
def contrib(b: Builder) -> str:
    layer, w = b.layer, b.w
    logits = b.logits()
    if layer.shape:
        logits = b("Reshape", logits, [-1, layer.experts])
    gated = [w.w3, w.b3] if layer.gated else []
    return b(
        "MoE",
        "x",
        logits,
        w.w1,
        w.b1,
        w.w2,
        w.b2,
        *gated,
        domain="com.microsoft",
        k=layer.k,
        activation_type=layer.act,
        normalize_routing_weights=int(layer.normalize),
    )


@case(act="silu", gated=True)
def contrib_swiglu_interleaved(b: Builder) -> str:
    layer, w = b.layer, b.w
    w1 = np.stack([w.w1, w.w3], 2).reshape(layer.experts, 2 * layer.inner, layer.hidden)
    b1 = np.stack([w.b1, w.b3], 2).reshape(layer.experts, -1)
    return b(
        "MoE",
        "x",
        b.logits(),
        w1,
        b1,
        w.w2,
        w.b2,
        domain="com.microsoft",
        k=layer.k,
        activation_type="swiglu",
        swiglu_fusion=1,
    )


@case(act="silu", gated=True)
def contrib_swiglu_alpha_beta(b: Builder) -> str:
    """g·sigmoid(2g)·(l + 0.5), the layers chosen so that the result is silu(w1 x)·(w3 x)"""
    layer, w = b.layer, b.w
    w1 = np.concatenate([w.w1 / 2, w.w3 * 2], 1)
    b1 = np.concatenate([w.b1 / 2, w.b3 * 2 - 0.5], 1)
    return b(
        "MoE",
        "x",
        b.logits(),
        w1,
        b1,
        w.w2,
        w.b2,
        domain="com.microsoft",
        k=layer.k,
        activation_type="swiglu",
        swiglu_fusion=2,
        activation_alpha=2.0,
        activation_beta=0.5,
    )


def quantise(w: Array, bits: int, block: int) -> tuple[Array, Array, Array, Array]:
    """Packed weights, scales, packed zero points, and what they stand for."""
    e, n, k = w.shape
    size, top = block or k, 2**bits - 1
    blocks = w.reshape(e, n, k // size, size)
    low, high = blocks.min(-1), blocks.max(-1)
    scale = ((high - low) / top).astype(np.float32)
    zero = np.clip(np.round(-low / scale), 0, top)
    q = np.clip(np.round(blocks / scale[..., None]) + zero[..., None], 0, top)
    value = ((q - zero[..., None]).astype(np.float32) * scale[..., None]).reshape(w.shape)

    def pack(a: Array) -> Array:
        per = 8 // bits
        a = np.concatenate([a, np.zeros((*a.shape[:-1], -a.shape[-1] % per))], -1).astype(np.uint8)
        a = a.reshape(*a.shape[:-1], -1, per)
        joined: Array = np.bitwise_or.reduce([a[..., i] << (bits * i) for i in range(per)]).astype(np.uint8)
        return joined

    q = q.reshape(w.shape)
    return (pack(q), scale, pack(zero), value) if block else (pack(q), scale[..., 0], pack(zero[..., 0]), value)


def contrib_quantised(bits: int, block: int) -> Spelling:
    def build(b: Builder) -> str:
        w = b.w
        q1, s1, z1, w.w1 = quantise(w.w1, bits, block)
        q2, s2, z2, w.w2 = quantise(w.w2, bits, block)
        blocks = {"block_size": block} if block else {}
        return b(
            "QMoE",
            "x",
            b.logits(),
            q1,
            s1,
            w.b1,
            q2,
            s2,
            w.b2,
            "",
            "",
            "",
            z1,
            z2,
            domain="com.microsoft",
            k=b.layer.k,
            activation_type=b.layer.act,
            expert_weight_bits=bits,
            normalize_routing_weights=int(b.layer.normalize),
            **blocks,
        )

    build.__name__ = f"contrib_quantised_{bits}_{block}"
    return build


for _bits in (2, 4, 8):
    for _block in (0, 16):
        case(hidden=32, inner=16, normalize=_bits != 4, act="relu")(contrib_quantised(_bits, _block))


# ---- what looks like a layer and is none: left alone, and computed as it stands


def masked_sum(b: Builder, columns: list[int], experts: list[int]) -> str:
    mask = b.mask()
    return b.sum([b("Mul", b.column(mask, c), b.expert(e, "x")) for c, e in zip(columns, experts, strict=True)])


NEGATIVE: dict[str, Callable[[Builder], str]] = {
    "two experts missing": lambda b: masked_sum(b, [0, 1], [0, 1]),
    "an expert twice in place of another": lambda b: masked_sum(b, [0, 1, 2, 2], [0, 1, 2, 2]),
    "activations differ": lambda b: b.sum(
        [
            b(
                "Mul",
                b.column(b.mask(), e),
                b.linear(
                    b.activate(b.linear("x", b.w.w1[e], b.w.b1[e], "gemm"), "relu" if e == 2 else "gelu"),
                    b.w.w2[e],
                    b.w.b2[e],
                    "gemm",
                ),
            )
            for e in range(4)
        ]
    ),
    "weight on hidden in spite of biases": lambda b: b.sum(
        [
            b.linear(
                b("Mul", b.activate(b.linear("x", b.w.w1[e], b.w.b1[e], "gemm")), b.column(b.mask(), e)),
                b.w.w2[e],
                b.w.b2[e],
                "gemm",
            )
            for e in range(4)
        ]
    ),
    "the smallest are chosen": lambda b: (
        lambda top: b.sum(
            [
                b("Mul", b.column(b("ScatterElements", b.zeros(7, 4), top[1], top[0], axis=1), e), b.expert(e, "x"))
                for e in range(4)
            ]
        )
    )(b.op("TopK", b.scores(), [2], outputs=2, largest=0)),
}
