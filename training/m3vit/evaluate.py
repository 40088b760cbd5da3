"""Judges a trained network on a whole split, in PyTorch and in the forms that it is handed over in:

    python -m m3vit.evaluate --checkpoint runs/x/best.pt
    python -m m3vit.evaluate --checkpoint runs/x/best.pt --engine onnxruntime --engine moecc --out judged
    python -m m3vit.evaluate --compare multi.json semseg.json depth.json

The first two print a table with a column per engine (1 is the exit status where they do not agree to the last printed
digit) and how many tokens each expert gets. --out adds pictures and, of edges, the files that seism reads. The last one
takes what --json has written, and prints how a multi-task network differs from single-task ones, and their mean, Δm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from m3vit import draw, metrics
from m3vit.compiled import CompiledError, compile_network, find_moecc
from m3vit.config import Config, ConfigError, read
from m3vit.data import Samples, build_dataset
from m3vit.model import MoE
from m3vit.onnx_graph import export_any
from m3vit.tasks import IGNORE, Task
from m3vit.zoo import build_model

Engine = Callable[[Tensor], Mapping[str, Tensor]]  # a picture [1, 3, H, W] to its predictions
Figures = dict[str, dict[str, float]]  # by task and figure
Watcher = Callable[[int, Mapping[str, Tensor], Mapping[str, Tensor]], None]  # of each picture's sample and predictions

ENGINES = ("torch", "onnxruntime", "moecc")
UNITS = {"rmse": ("m", 3), "mean": ("degrees", 2), "median": ("degrees", 2), "threshold": ("", 2)}  # and printed digits
PERCENT = ("%", 2)  # everything else
USAGE = "Tokens of each expert, % of a task's"
SEISM = {"pascal": "PASCALContext", "nyud": "NYUD", "cityscapes": "Cityscapes", "rooms": "Rooms"}


# ---- engines --------------------------------------------------------------------------------------------------------


def torch_engine(model: nn.Module) -> Engine:
    device = next(model.parameters()).device

    def run(image: Tensor) -> dict[str, Tensor]:
        return {name: x.float().cpu() for name, x in model(image.to(device)).items()}

    return run


def onnxruntime_engine(graph: onnx.ModelProto) -> Engine:
    """A graph that wants a task's number runs once for each task."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    told = any(i.name == "task_id" for i in session.get_inputs())

    def run(image: Tensor) -> dict[str, Tensor]:
        if not told:
            return _tensors(names, session.run(names, {"image": image.numpy()}))
        found: dict[str, Tensor] = {}
        for number, name in enumerate(names):
            inputs = {"image": image.numpy(), "task_id": np.array([number])}
            found |= _tensors([name], session.run([name], inputs))
        return found

    return run


def _tensors(names: Sequence[str], arrays: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


@contextlib.contextmanager
def engines(
    names: Sequence[str], model: nn.Module, size: tuple[int, int], device: str, moecc: str | None = None
) -> Iterator[dict[str, Engine]]:
    """PyTorch, always the first, and those that are named. size: of the pictures, height and width."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Engine] = {}
        compiler = find_moecc(moecc) if "moecc" in names else None
        others = [name for name in dict.fromkeys(names) if name != "torch"]
        graph = export_any(model, *size) if others else None
        for name in others:
            assert graph is not None
            if compiler and name == "moecc":
                found[name] = stack.enter_context(compile_network(graph, compiler, torch.get_num_threads()))
            else:
                found[name] = onnxruntime_engine(graph)
        yield {"torch": torch_engine(model.to(device).eval()), **found}


# ---- judging --------------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was found, by engine."""

    figures: dict[str, Figures]
    errors: dict[str, dict[str, float]] = field(default_factory=dict)  # by task: from torch, of its largest value

    def differences(self) -> list[str]:
        """Figures that are not the same to the last printed digit."""
        first = self.figures["torch"]
        return [
            f"{task} {name} ({engine})"
            for task, values in first.items()
            for name, value in values.items()
            for engine, others in self.figures.items()
            if printed(name, others[task][name]) != printed(name, value)
        ]


@torch.no_grad()
def judge(
    runs: Mapping[str, Engine], data: Samples, tasks: Sequence[Task], watchers: Sequence[Watcher] = (), workers: int = 0
) -> Verdict:
    """Every engine on every picture."""
    scores = {engine: {task.name: metrics.make(task) for task in tasks} for engine in runs}
    errors = {engine: {task.name: 0.0 for task in tasks} for engine in runs if engine != "torch"}
    loader = DataLoader(data, batch_size=1, num_workers=workers)
    for number, sample in enumerate(tqdm(loader, unit="picture", disable=not sys.stderr.isatty(), leave=False)):
        found = {engine: run(sample["image"]) for engine, run in runs.items()}
        for task in (t.name for t in tasks):
            for engine, outputs in found.items():
                scores[engine][task].update(outputs[task], sample[task])
            for engine, worst in errors.items():
                worst[task] = max(worst[task], _error(found[engine][task], found["torch"][task]))
        for watch in watchers:
            watch(number, sample, found["torch"])
    return Verdict({e: {t: metric.compute() for t, metric in s.items()} for e, s in scores.items()}, errors)


def _error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))


def printed(figure: str, value: float) -> str:
    return f"{value:.{UNITS.get(figure, PERCENT)[1]}f}"


def table(verdict: Verdict) -> str:
    names = list(verdict.figures)
    rows = [["task", "figure", *names]]
    for task, values in verdict.figures["torch"].items():
        for i, figure in enumerate(values):
            unit = UNITS.get(figure, PERCENT)[0]
            title = f"{figure}, {unit}" if unit else figure
            columns = [printed(figure, verdict.figures[engine][task][figure]) for engine in names]
            rows.append(["" if i else task, title, *columns])
    return aligned(rows, left=2)


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns as wide as they must be; the first `left` ones start where they start, the others end where they end."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


# ---- experts --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def counting(model: nn.Module, tasks: int) -> Iterator[dict[str, Tensor]]:
    """By layer, [tasks, experts]: how many tokens each expert gets meanwhile. Experts of weight 0 do not count."""
    counts: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, moe in model.named_modules():
            if isinstance(moe, MoE):
                counts[name] = torch.zeros(tasks, moe.count, dtype=torch.int64)
                stack.enter_context(_counted(moe, counts[name]))
        yield counts


@contextlib.contextmanager
def _counted(moe: MoE, counts: Tensor) -> Iterator[None]:
    choose, task = moe.choose, 0

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal task
        task = int(inputs[1])

    def noted(*inputs: Any) -> tuple[Tensor, Tensor]:
        weights, index = choose(*inputs)
        counts[task] += torch.bincount(index[weights > 0].cpu(), minlength=moe.count)
        return weights, index

    hook = moe.register_forward_pre_hook(note)
    moe.choose = noted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        hook.remove()
        del moe.choose


def shares(counts: Mapping[str, Tensor], tasks: Sequence[Task]) -> tuple[list[str], NDArray[np.float64]]:
    """Rows "layer task" and the experts' shares, percent; a row "" of no numbers after each layer. A layer that runs
    once for all tasks has one row."""
    names: list[str] = []
    rows: list[NDArray[np.float64]] = []
    width = max(c.shape[1] for c in counts.values())
    for layer, count in counts.items():
        seen = [(task.name, n) for task, n in zip(tasks, count.numpy(), strict=True) if n.any()]
        if len(seen) == 1 and len(tasks) > 1:
            seen = [("all", seen[0][1])]
        for name, n in (*seen, ("", np.zeros(0))):
            row = np.full(width, np.nan)
            row[: len(n)] = 100 * n / max(n.sum(), 1)
            names.append(f"{layer} {name}" if name else "")
            rows.append(row)
    return names, np.stack(rows)


def usage_table(names: Sequence[str], share: NDArray[np.float64]) -> str:
    rows = [["layer", "task", *map(str, range(share.shape[1]))]]
    for name, row in zip(names, share, strict=True):
        if name:
            rows.append([*name.split(" "), *("" if np.isnan(s) else f"{s:.1f}" for s in row)])
    return aligned(rows, left=2)


# ---- files ----------------------------------------------------------------------------------------------------------


@dataclass
class Sheet:
    """Keeps `count` pictures, evenly spread, for a contact sheet."""

    data: Samples
    count: int
    shown: list[draw.Shown] = field(default_factory=list)

    def __post_init__(self) -> None:
        last = len(self.data) - 1
        self.wanted = {round(i * last / max(self.count - 1, 1)) for i in range(self.count)}

    def __call__(self, number: int, sample: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if number not in self.wanted:
            return
        labels = {name: x[0] for name, x in sample.items() if name != "image"}
        predictions = {name: x[0] for name, x in outputs.items()}
        self.shown.append(draw.Shown(self.data.source.name(number), sample["image"][0], labels, predictions))


@dataclass
class SeismFiles:
    """What seism reads of a contour detector, in its own root folder: datasets/DATABASE/METHOD/PICTURE.png, the chance
    of an edge from 0 to 255, at the size of the stored picture, and parameters/METHOD.txt, the thresholds to try. Its
    reader of them is read_one_cont_png."""

    root: Path
    data: Samples
    database: str
    method: str

    def __post_init__(self) -> None:
        self.folder = self.root / "datasets" / self.database / self.method
        self.folder.mkdir(parents=True, exist_ok=True)
        thresholds = self.root / "parameters" / f"{self.method}.txt"
        thresholds.parent.mkdir(exist_ok=True)
        thresholds.write_text("".join(f"{i / 100:.2f}\n" for i in range(1, 100)), encoding="ascii")

    def __call__(self, number: int, sample: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if bool((sample["edge"] == IGNORE).all()):
            return
        size = self.data.source[number]["edge"].shape[:2]
        chance = F.interpolate(outputs["edge"].sigmoid(), size, mode="bilinear", align_corners=False)[0, 0]
        grey = (255 * chance).round().to(torch.uint8).numpy()
        Image.fromarray(grey).save(self.folder / f"{self.data.source.name(number)}.png")


def write_pictures(
    folder: Path, shown: Sequence[draw.Shown], counts: Mapping[str, Tensor], tasks: Sequence[Task]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if shown:
        draw.sheet(shown, tasks).save(folder / "pictures.png")
    if counts:
        draw.heat_map(USAGE, *shares(counts, tasks)).save(folder / "experts.png")


def write_json(path: Path, verdict: Verdict, counts: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    content = {
        **about,
        "figures": verdict.figures,
        "errors": verdict.errors,
        "experts": {layer: count.tolist() for layer, count in counts.items()},
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# ---- comparing ------------------------------------------------------------------------------------------------------


def read_figures(path: Path) -> Figures:
    """PyTorch's, of a file that --json has written."""
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"))["figures"]["torch"]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not what --json writes") from error
    return figures


def compare(multi: Figures, single: Figures) -> str:
    """Each task's figure that counts, its change in percent, positive if better, and the mean change."""
    tasks = [Task(name, 1) for name in multi]
    missing = sorted(set(multi) - set(single))
    if missing:
        raise ConfigError(f"no single-task result for {', '.join(missing)}")
    rows = [["task", "figure", "single", "multi", "change, %"]]
    one, many = ({t.name: figures[t.name][t.kind.metric] for t in tasks} for figures in (single, multi))
    for task in tasks:
        name, metric = task.name, task.kind.metric
        change = metrics.change(many[name], one[name], task)
        rows.append([name, metric, printed(metric, one[name]), printed(metric, many[name]), f"{change:+.2f}"])
    rows.append(["Δm", "", "", "", f"{metrics.delta_m(many, one, tasks):+.2f}"])
    return aligned(rows, left=2)


# ---- the command ----------------------------------------------------------------------------------------------------


def load(config: Config, checkpoint: Path) -> nn.Module:
    """The network with the weights of a checkpoint, or of a file with nothing but a state_dict."""
    model = build_model(config, pretrained=False)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state.get("model", state))
    except OSError as error:
        raise ConfigError(f"{checkpoint}: {error.strerror}") from error
    except Exception as error:  # torch has no common one for files of another kind or network
        raise ConfigError(f"{checkpoint}: not a checkpoint of this network: {error}") from error
    return model.eval()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m m3vit.evaluate", description="Judges a trained network.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; default: config.yaml beside the checkpoint")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="best.pt or last.pt of a training run")
    parser.add_argument("--split", default="val", help="val (default), train, or another of the data set")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, default=[], help="beside torch; as often as wanted"
    )
    parser.add_argument("--moecc", metavar="PATH", help="the compiler; default: $MOECC, on the path, or ../build/moecc")
    parser.add_argument("--device", default="cpu", help="of torch: cpu (default), cuda")
    parser.add_argument("--out", type=Path, metavar="DIR", help="pictures, and edges for seism")
    parser.add_argument("--pictures", type=int, default=6, metavar="N", help="on the contact sheet (6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the results")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="FILE", help="results of a network, and of single-task ones"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="replaces a key: data.val=20")
    arguments = parser.parse_args(argv)
    if arguments.compare and len(arguments.compare) < 2:
        parser.error("--compare: the results of a network, then at least one of single-task networks")
    if not arguments.compare and not arguments.checkpoint:
        parser.error("--checkpoint is missing")
    return arguments


def samples(config: Config, split: str) -> Samples:
    try:
        data = build_dataset(replace(config.data, augment=False), split, config.task_list)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise ConfigError(f"{config.data.name}, {split}: {error}") from error
    if len(data) == 0:
        raise ConfigError(f"{config.data.name} has no picture in the split {split}")
    return data


def run(arguments: argparse.Namespace) -> int:
    config = read(arguments.config or arguments.checkpoint.parent / "config.yaml", arguments.overrides)
    tasks, data = config.task_list, samples(config, arguments.split)
    model = load(config, arguments.checkpoint)
    sheet = Sheet(data, arguments.pictures)
    watchers: list[Watcher] = [sheet] if arguments.out else []
    if arguments.out and "edge" in config.tasks:
        method = Path(config.save_dir).name
        watchers.append(SeismFiles(arguments.out / "seism", data, SEISM[config.data.name], method))
    with (
        engines(arguments.engine, model, data.size, arguments.device, arguments.moecc) as runs,
        counting(model, len(tasks)) as counts,
    ):
        verdict = judge(runs, data, tasks, watchers, config.data.workers)

    print(f"{len(data)} pictures of {config.data.name}, {arguments.split}\n\n{table(verdict)}")
    if counts:
        print(f"\n{USAGE}\n\n{usage_table(*shares(counts, tasks))}")
    if arguments.out:
        write_pictures(arguments.out, sheet.shown, counts, tasks)
    if arguments.json:
        about = {"checkpoint": str(arguments.checkpoint), "data": config.data.name, "split": arguments.split}
        write_json(arguments.json, verdict, counts, {**about, "pictures": len(data)})
    return 0 if len(runs) == 1 else agreement(verdict)


def agreement(verdict: Verdict) -> int:
    """Says whether the engines agree; the exit status."""
    for engine, worst in verdict.errors.items():
        far = ", ".join(f"{task} {error:.1e}" for task, error in worst.items())
        print(f"\n{engine}: farthest from torch, of an output's largest value: {far}")
    if different := verdict.differences():
        print(f"\nNot the same to the last printed digit: {', '.join(different)}")
        return 1
    print("\nAll engines agree to the last printed digit.")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        if arguments.compare:
            first, *others = map(read_figures, arguments.compare)
            print(compare(first, {task: figures for other in others for task, figures in other.items()}))
            return 0
        return run(arguments)
    except ConfigError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except (CompiledError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
