"""Writes an M3ViT as ONNX for moecc:

    python -m m3vit.export --config nano -o nano.onnx

torch.onnx.export gives the graph, in which each mixture of experts is one
node; the rest is surgery on that graph: nodes get the names of their layers,
the mixtures the wanted form (see lower.py), tasks and pictures are described
in metadata_props. The result is run and compared with PyTorch in float64
before it is written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import os
import pickle
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from m3vit.lower import BODIES, FORMS, lower
from m3vit.model import PRESETS, M3ViT, M3ViTConfig, MoE, routed
from m3vit.moe import CLOSED
from m3vit.tasks import KINDS, MEAN, STD, TASK_SETS, Task

TOLERANCE = 1e-5  # of an output's largest value
MARGIN = 1e-6  # closer scores than this may be ordered differently in float32
PICTURES = 16  # tried until the margin is met


class ExportError(Exception):
    """The exported graph is not the network it should be."""


# --------------------------------------------------------------------------------------
# The graph


Mix = Callable[[MoE, Tensor, Tensor], Tensor]


@contextlib.contextmanager
def mixing(layers: Iterable[MoE], mix: Mix) -> Iterator[None]:
    """Meanwhile the layers mix their experts in another way."""
    previous = {moe: moe.mix for moe in layers}
    for moe in previous:
        moe.mix = mix
    try:
        yield
    finally:
        for moe, former in previous.items():
            moe.mix = former


def as_node(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
    """In place of the experts, while the network is exported: one node, scaled outside where experts are pruned."""
    kept = None
    if moe.threshold > 0:
        logits, kept = pruned_scores(moe, logits)
    e = moe.experts
    y = torch.onnx.ops.symbolic(
        "com.microsoft::MoE",
        (x, logits, e.fc1_weight, e.fc1_bias, e.fc2_weight, e.fc2_bias),
        {
            "k": moe.top_k,
            "activation_type": "gelu",
            "normalize_routing_weights": int(moe.gate == "noisy"),
        },
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )
    return y if kept is None else y * kept


def pruned_scores(moe: MoE, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [T, E] and factors [T, 1]: the weights that those scores give, times the factor, are those after pruning.

    A mixture of experts without pruning divides by the sum of what is left, and the factor is that sum. Compared are
    logarithms, so that the scores and the factor agree on who is left.
    """
    among = logits.topk(moe.top_k, dim=-1).values if moe.gate == "noisy" else logits
    total = among.logsumexp(dim=-1, keepdim=True)
    limit = total + math.log(moe.threshold)
    shares = torch.where(among > limit, (among - total).exp(), 0.0)
    return torch.where(logits > limit, logits, CLOSED), shares.sum(dim=-1, keepdim=True)


def example_inputs(model: M3ViT, seed: int = 0, task: int = 0) -> dict[str, Tensor]:
    """A picture of noise, and the number of a task where the router wants one."""
    generator = torch.Generator().manual_seed(seed)
    c = model.config
    inputs = {"image": torch.randn(1, 3, c.height, c.width, generator=generator)}
    if model.task_vector is not None:
        inputs["task_id"] = torch.tensor([task])
    return inputs


def output_names(model: M3ViT) -> list[str]:
    """Of the graph: the tasks, and their levels if those are wanted."""
    levels = range(1, 4) if model.config.multi_level and model.all_levels else ()
    return [*model.heads, *(f"{name}@level{level}" for name in model.heads for level in levels)]


def task_names(graph: onnx.ModelProto) -> list[str]:
    return list(dict.fromkeys(task_of(o.name) for o in graph.graph.output))


def task_of(output: str) -> str:
    return output.split("@")[0]


def export(model: M3ViT, form: str = "function", body: str = "dense", opset: int = 20) -> onnx.ModelProto:
    """The network as ONNX: inputs image (and task_id), one output per task (and level)."""
    model.eval()
    inputs = example_inputs(model)
    with mixing(model.moe_layers().values(), as_node):
        graph = to_onnx(model, tuple(inputs.values()), list(inputs), output_names(model), opset)
    merge_duplicates(graph.graph)
    name_layers(graph)
    describe(graph, model.config)
    graph.producer_name, graph.producer_version, graph.graph.name = "m3vit", "", "m3vit"
    graph = lower(graph, form, body)
    onnx.checker.check_model(graph)
    return graph


def to_onnx(
    model: torch.nn.Module,
    args: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
) -> onnx.ModelProto:
    """torch.onnx.export, quietly, at exactly the opset asked for, 17 or later."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            args,
            dynamo=True,
            opset_version=max(opset, 18),
            verbose=False,
            input_names=inputs,
            output_names=outputs,
        )
    assert program is not None
    graph = program.model_proto
    if opset == 17:
        _downgrade_from_18(graph)
    got = next(o.version for o in graph.opset_import if o.domain == "")
    if got != opset:
        raise ExportError(f"opset {opset} was asked for, the exporter gave {got}")
    return graph


def _downgrade_from_18(model: onnx.ModelProto) -> None:
    """Opset 18 to 17. Of the operators here only Resize changed, by attributes at their default."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            new = ("antialias", "keep_aspect_ratio_policy")
            old = [a for a in node.attribute if a.name not in new]
            del node.attribute[:]
            node.attribute.extend(old)
    next(o for o in model.opset_import if o.domain == "").version = 17


def merge_duplicates(graph: onnx.GraphProto) -> None:
    """Computes once what several tasks compute alike: equal nodes of equal inputs."""
    renamed: dict[str, str] = {}
    seen: dict[tuple[Any, ...], Sequence[str]] = {}
    for tensor in graph.initializer:
        if tensor.name.startswith("val_"):  # a constant of the exporter's making
            content = (tensor.data_type, *tensor.dims, numpy_helper.to_array(tensor).tobytes())
            renamed[tensor.name] = seen.setdefault(content, [tensor.name])[0]
    results = {o.name for o in graph.output}
    nodes = []
    for node in graph.node:
        node.input[:] = [renamed.get(v, v) for v in node.input]
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        key = (node.domain, node.op_type, *node.input, *attributes)
        if key in seen and results.isdisjoint(node.output):
            renamed.update(zip(node.output, seen[key], strict=True))
        else:
            seen[key] = node.output
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def name_layers(model: onnx.ModelProto) -> None:
    """Renames nodes to /layer/operator and values after the node they come from.

    A node that only one of several tasks needs is put under that task's name:
    /depth/blocks.3/attn/MatMul, but /blocks.0/attn/MatMul.
    """
    graph = model.graph
    owners = _owners(graph)
    several = len({task_of(o.name) for o in graph.output}) > 1
    fixed = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    initializers = {t.name: t for t in graph.initializer}
    values: dict[str, str] = {}
    used: dict[str, int] = defaultdict(int)
    nodes = []
    for node in graph.node:
        layers = _layers(node)
        if node.op_type == "Transpose" and node.input[0] in initializers:
            _transpose_initializer(node, initializers, graph)
            continue
        if node.op_type == "MatMul" and node.input[1].startswith("val_") and layers:
            _rename_initializer(node.input[1], f"{layers[-1]}.weight_transposed", graph, values)
        if node.op_type == "Conv" and layers:  # may have taken in a BatchNorm: named by its weight
            layers = [*layers[:-1], node.input[1].removesuffix(".weight")]
        scope = "".join(f"/{part}" for part in _relative(layers))
        tasks = owners[node.name]
        if len(tasks) == 1 and several and not scope.startswith("/heads."):
            scope = f"/{next(iter(tasks))}{scope}"
        name = f"{scope}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
        for i, value in enumerate(node.output):
            if value not in fixed:
                values[value] = f"{node.name}_output_{i}"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        node.input[:] = [values.get(v, v) for v in node.input]
        node.output[:] = [values.get(v, v) for v in node.output]
    del graph.value_info[:]
    strip(model)


def _owners(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """Which tasks need each node."""
    need: dict[str, set[str]] = defaultdict(set)
    for output in graph.output:
        need[output.name].add(task_of(output.name))
    owners = {}
    for node in reversed(graph.node):
        owners[node.name] = set().union(*(need[o] for o in node.output))
        for value in node.input:
            need[value] |= owners[node.name]
    return owners


def _layers(node: onnx.NodeProto) -> list[str]:
    """The modules a node came from, outermost first: blocks.0, blocks.0.attn, ..."""
    notes = {p.key: p.value for p in node.metadata_props}
    scopes = notes.get("pkg.torch.onnx.name_scopes", "[]")
    names = [s.strip().strip("'\"") for s in scopes.strip("[]").split(",")]
    return [s for s in names[:-1] if s]


def _relative(layers: Sequence[str]) -> list[str]:
    """blocks.0, blocks.0.attn, blocks.0.attn.qkv -> blocks.0, attn, qkv."""
    outer = ["", *(f"{name}." for name in layers)]
    return [name.removeprefix(prefix) for prefix, name in zip(outer, layers, strict=False)]


def _transpose_initializer(
    node: onnx.NodeProto, initializers: Mapping[str, onnx.TensorProto], graph: onnx.GraphProto
) -> None:
    """Replaces a transposition of a weight by the transposed weight."""
    perm = next(list(a.ints) for a in node.attribute if a.name == "perm")
    name = f"{node.input[0]}_transposed"
    if all(t.name != name for t in graph.initializer):
        array = numpy_helper.to_array(initializers[node.input[0]]).transpose(perm)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    for other in graph.node:
        other.input[:] = [name if v == node.output[0] else v for v in other.input]


def _rename_initializer(old: str, new: str, graph: onnx.GraphProto, values: dict[str, str]) -> None:
    names = {t.name for t in graph.initializer}
    if old in names and old not in values and new not in names:
        next(t for t in graph.initializer if t.name == old).name = new
        values[old] = new


def strip(model: onnx.ModelProto) -> None:
    """Drops the exporter's notes and weights that nothing uses."""
    graph = model.graph
    used = {v for node in graph.node for v in node.input} | {o.name for o in graph.output}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for noted in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del noted.metadata_props[:]
        noted.doc_string = ""


def describe(model: onnx.ModelProto, config: M3ViTConfig) -> None:
    """metadata_props: the tasks, and what pictures the inputs and outputs are."""

    def numbers(values: Sequence[float]) -> str:
        return ",".join(f"{v:g}" for v in values)

    notes = {"moecc.input.image": f"image layout=NCHW color=RGB mean={numbers(MEAN)} std={numbers(STD)} resize=stretch"}
    for number, task in enumerate(config.tasks):
        bind = f" bind=task_id:{number}" if config.routing == "conditioned" and config.experts > 0 else ""
        outputs = [o.name for o in model.graph.output if task_of(o.name) == task.name]
        notes[f"moecc.task.{task.name}"] = f"outputs={','.join(outputs)}{bind}"
        if task.name in KINDS and config.decoder == "up":
            for name in outputs:
                notes[f"moecc.output.{name}"] = KINDS[task.name].picture.format(channels=task.channels)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, notes)


# --------------------------------------------------------------------------------------
# The check


def reference(model: M3ViT, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Outputs in float64, and for each the smallest routing margin on the way to it.

    The margin of a token is the difference in probability of the last expert chosen and the first one not chosen; where
    experts are pruned, also that between a weight and the threshold.
    """
    margins = dict.fromkeys(model.heads, math.inf)
    names, layers = list(model.heads), model.moe_layers()
    calls: dict[MoE, int] = defaultdict(int)

    def note(margin: float, call: int) -> None:
        for name in names if model.config.once or "task_id" in inputs else names[call : call + 1]:
            margins[name] = min(margins[name], margin)

    def watched(moe: MoE, x: Tensor, logits: Tensor) -> Tensor:
        call = calls[moe]
        calls[moe] += 1
        if moe.top_k < moe.count:
            best = logits.softmax(-1).topk(moe.top_k + 1, dim=-1).values
            margin = float((best[:, -2] - best[:, -1]).min())
            note(margin, call)
        if moe.threshold > 0:
            note(float((moe.best(logits)[0] - moe.threshold).abs().min()), call)
        return routed(moe, x, logits)

    training, dtype = model.training, next(model.parameters()).dtype
    try:
        model.double().eval()
        wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        with mixing(layers.values(), watched), torch.no_grad():
            out = model(**wide)
    finally:
        model.to(dtype).train(training)
    return out, margins


def run(model: onnx.ModelProto, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """The graph's outputs in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v.numpy() for k, v in inputs.items()}), strict=True))


def check(model: M3ViT, graph: onnx.ModelProto) -> float:
    """Compares the graph with the network in float64. Returns the largest error of an output.

    com.microsoft::MoE is checked as plain ONNX made from the same node, because
    onnxruntime takes another GELU for it. An output is compared on the first
    picture on which its routing does not depend on rounding.
    """
    plain = lower(graph, "routed") if _has_moe_nodes(graph) else graph
    open_tasks, worst = set(model.heads), 0.0
    for seed in range(PICTURES):
        task = seed % len(model.heads)
        inputs = example_inputs(model, seed, task)
        wanted, margins = reference(model, inputs)
        ready = {name for name in open_tasks if margins[name] >= MARGIN}
        if not ready:
            continue
        got = run(plain, inputs)
        for name in (n for n in wanted if task_of(n) in ready):
            want = wanted[name].numpy()
            error = float(np.abs(got[name] - want).max() / np.abs(want).max())
            if not error <= TOLERANCE:
                raise ExportError(
                    f"output {name} differs from PyTorch by {error:.1e} of its largest value, "
                    f"allowed is {TOLERANCE:.0e} (picture {seed})"
                )
            worst = max(worst, error)
        open_tasks -= ready
        if not open_tasks:
            return worst
    raise ExportError(
        f"outputs {sorted(open_tasks)} could not be compared: in each of {PICTURES} pictures two "
        f"experts' scores were closer than {MARGIN:.0e}; try another --seed"
    )


def _has_moe_nodes(graph: onnx.ModelProto) -> bool:
    return any(node.domain == "com.microsoft" for node in graph.graph.node)


# --------------------------------------------------------------------------------------
# The command line


def parse_tasks(text: str) -> tuple[Task, ...]:
    """'pascal' or another set, or 'semseg:21,depth:1'."""
    if text in TASK_SETS:
        return TASK_SETS[text]
    result = []
    for item in text.split(","):
        name, _, channels = item.partition(":")
        if not name.isidentifier() or not channels.isdecimal():
            raise argparse.ArgumentTypeError(f"{item!r}: expected one of {', '.join(TASK_SETS)}, or NAME:CHANNELS,...")
        result.append(Task(name, int(channels)))
    return tuple(result)


def parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected true or false")
    return text.lower() == "true"


KINDS_OF_FIELDS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "bool": parse_bool}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m m3vit.export",
        description="Write a network as ONNX: an M3ViT with random or given weights, or whatever was trained.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--config", choices=sorted(PRESETS), default="nano", help="a preset")
    parser.add_argument("--form", choices=FORMS, default="function", help="how a mixture of experts is written")
    parser.add_argument(
        "--body",
        choices=BODIES,
        default="dense",
        help="what the function does inside (--form function)",
    )
    parser.add_argument("--opset", type=int, default=20, help="17 or later")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="a state_dict to load instead")
    weights.add_argument("--checkpoint", type=Path, help="of m3vit.train: its network and weights; no preset is used")
    parser.add_argument("--levels", action="store_true", help="the predictions of multi_level as outputs, too")
    group = parser.add_argument_group("fields of the preset that are replaced")
    for field in fields(M3ViTConfig):
        kind = KINDS_OF_FIELDS.get(str(field.type), parse_tasks)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=field.name.upper(),
            help=argparse.SUPPRESS if kind is not parse_tasks else f"{', '.join(TASK_SETS)}, or NAME:CHANNELS,...",
        )
    group.description = "any of: " + ", ".join(f"--{f.name.replace('_', '-')}" for f in fields(M3ViTConfig))
    arguments = parser.parse_args(argv)
    if arguments.opset < 17:
        parser.error(f"--opset {arguments.opset}: 17 is the first with LayerNormalization")
    return arguments


def build(arguments: argparse.Namespace) -> tuple[torch.nn.Module, int, int]:
    """The network that the command line describes, and the height and width of its picture."""
    model: torch.nn.Module
    names = {f.name for f in fields(M3ViTConfig)}
    overrides = {k: v for k, v in vars(arguments).items() if k in names}
    if arguments.checkpoint:
        from m3vit.onnx_graph import load_checkpoint

        if overrides:
            raise ValueError(f"the checkpoint says what the network is: {', '.join(overrides)} cannot be replaced")
        config, model = load_checkpoint(arguments.checkpoint)
        height, width = config.data.height, config.data.width
    else:
        if overrides.get("routing") == "conditioned" and not overrides.get("task_one_hot"):
            overrides.setdefault("gate_task_specific_dim", 16)
        torch.manual_seed(arguments.seed)
        shape = M3ViTConfig.preset(arguments.config, **overrides)
        model, height, width = M3ViT(shape), shape.height, shape.width
        if arguments.weights:
            model.load_state_dict(torch.load(arguments.weights, map_location="cpu", weights_only=True))
    if isinstance(model, M3ViT):
        model.all_levels = arguments.levels
    return model.eval(), height, width


def main(argv: Sequence[str] | None = None) -> int:
    from m3vit.onnx_graph import check_any, export_any

    arguments = parse_arguments(argv)
    try:
        if not arguments.output.parent.is_dir():
            raise ValueError(f"{arguments.output.parent}: no such folder")
        model, height, width = build(arguments)
    except (ValueError, OSError, RuntimeError, pickle.UnpicklingError) as fault:
        print(f"m3vit.export: {fault}", file=sys.stderr)
        return 2
    try:
        graph = export_any(model, height, width, arguments.opset, arguments.form, arguments.body)
        worst = check_any(model, graph, height, width)
        temporary = arguments.output.with_name(f".{arguments.output.name}.part")
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
        os.replace(temporary, arguments.output)
    except (ExportError, OSError) as failure:
        print(f"m3vit.export: {failure}", file=sys.stderr)
        return 1
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{arguments.output}: {parameters / 1e6:.2f} M parameters, "
        f"{graph.ByteSize() / 1e6:.1f} MB, tasks {', '.join(task_names(graph))}; "
        f"within {worst:.1e} of PyTorch in float64",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    import m3vit.export  # so that there is one ExportError

    sys.exit(m3vit.export.main())
