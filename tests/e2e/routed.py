"""Small networks with two MoE layers whose routers pass on what their inputs say, and routings to try them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from emitted import Array
from onnx import TensorProto, helper, numpy_helper
from reads import Queues

WIDTH, INNER = 8, 12
SIZES = [(4, 1), (4, 2), (16, 2), (16, 4), (64, 1), (64, 4)]  # experts, k


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens_of(experts: int, k: int) -> int:
    return experts // k  # so that every expert may have exactly one


class Builder:
    """Nodes and weights as they come; weights are made once for each name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}

    def weight(self, name: str, *shape: int) -> str:
        self.weights.setdefault(name, noise(len(self.weights), *shape))
        return name

    def product(self, task: str, x: str, weight: str) -> str:
        self.nodes.append(helper.make_node("MatMul", [x, weight], [f"{weight}({x})"], f"/{task}/{weight}/MatMul"))
        return f"{weight}({x})"

    def mixture(self, task: str, x: str, scores: str, table: str, experts: int, k: int) -> str:
        fc = [self.weight(f"{table}.fc1", experts, INNER, WIDTH), "", self.weight(f"{table}.fc2", experts, WIDTH, INNER)]
        y = f"{table}({x})"
        self.nodes.append(
            helper.make_node(
                "MoE", [x, scores, *fc], [y], f"/{task}/{table}/MoE", domain="com.microsoft", k=k, activation_type="relu"
            )
        )
        return y


def two_layers(experts: int, k: int, tasks: Sequence[str] = ("net",), own: Sequence[int] = ()) -> onnx.ModelProto:
    """Each task begins and ends with a matrix of its own. Between them are dense layers that all tasks share, and two
    MoE layers with a router for each task, which picks the task's columns out of the inputs s1 and s2; in the layers in
    `own` each task has experts of its own, in the others they share theirs."""
    b, tokens, outputs = Builder(), tokens_of(experts, k), []
    columns = np.eye(len(tasks) * experts, dtype=np.float32)
    for t, task in enumerate(tasks):
        x = b.product(task, "x", b.weight(f"{task}.first", WIDTH, WIDTH))
        for i in (1, 2):
            x = b.product(task, x, b.weight(f"dense{i}", WIDTH, WIDTH))
            b.weights[f"{task}.router{i}"] = columns[:, t * experts : (t + 1) * experts] * np.float32(i)
            scores = b.product(task, f"s{i}", f"{task}.router{i}")
            x = b.mixture(task, x, scores, f"{task}.moe{i}" if i in own else f"moe{i}", experts, k)
        x = b.product(task, b.product(task, x, b.weight("dense3", WIDTH, WIDTH)), b.weight(f"{task}.last", WIDTH, WIDTH))
        b.nodes.append(helper.make_node("Identity", [x], [f"y_{task}"], f"/{task}/give"))
        outputs.append(helper.make_tensor_value_info(f"y_{task}", TensorProto.FLOAT, (tokens, WIDTH)))
    shapes = {"x": (tokens, WIDTH), "s1": (tokens, len(tasks) * experts), "s2": (tokens, len(tasks) * experts)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in b.weights.items()]
    graph = helper.make_graph(b.nodes, "net", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    for task in tasks:
        model.metadata_props.add(key=f"moecc.task.{task}", value=f"outputs=y_{task}")
    return model


# ---- routings ----


def choosing(chosen: list[list[int]], experts: int) -> Array:
    """Scores by which each token chooses these experts."""
    scores = -np.abs(noise(5, len(chosen), experts)) - 1
    for token, own in enumerate(chosen):
        scores[token, own] = 1 + np.arange(len(own)) / 8
    return scores.astype(np.float32)


def alternating(experts: int, k: int) -> Array:
    ends = [list(range(k)), list(range(experts - k, experts))]
    return choosing([ends[t % 2] for t in range(tokens_of(experts, k))], experts)


def inner_only(experts: int, k: int) -> Array:
    """Neither the first expert nor the last, where there are enough between them."""
    first = 1 if experts - 2 >= k else 0
    return choosing(
        [[first + (t + i) % (experts - 2 * first) for i in range(k)] for t in range(tokens_of(experts, k))], experts
    )


ROUTINGS: dict[str, Callable[[int, int], Array]] = {
    "first": lambda e, k: choosing([list(range(k))] * tokens_of(e, k), e),
    "last": lambda e, k: choosing([list(range(e - k, e))] * tokens_of(e, k), e),
    "inner": inner_only,
    "alternating": alternating,
    "each-once": lambda e, k: choosing([list(range(t * k, t * k + k)) for t in range(tokens_of(e, k))], e),
    "all-tied": lambda e, k: np.zeros((tokens_of(e, k), e), np.float32),
    "many-ties": lambda e, k: np.round(noise(6, tokens_of(e, k), e)),
    **{f"random{seed}": lambda e, k, seed=seed: noise(seed, tokens_of(e, k), e) for seed in (7, 8, 9)},  # type: ignore[misc]
}


def queues_of(scores: Array, k: int) -> Queues:
    """Tokens by expert: each goes to the k with the highest scores, of equal ones to the first."""
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    experts, counts = np.unique(chosen, return_counts=True)
    return dict(zip(experts.tolist(), counts.tolist(), strict=True))
