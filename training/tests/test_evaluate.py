"""The command from a checkpoint to tables and files, on a tiny network and a few rendered scenes."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from m3vit import evaluate, metrics
from m3vit.compiled import CompiledError, compile_network, find_moecc
from m3vit.config import Config, read
from m3vit.data import build_dataset
from m3vit.moe import MoE
from m3vit.onnx_graph import export_any
from m3vit.tasks import TASK_SETS, Task
from m3vit.zoo import build_model

PICTURES = 4
MODEL: dict[str, Any] = {
    "preset": "nano", "dim": 24, "heads": 2, "blocks": 2, "experts": 4, "top_k": 2, "mlp_ratio": 2.0, "head_width": 8,
}  # fmt: skip
NETWORKS: dict[str, tuple[tuple[Task, ...], dict[str, Any]]] = {
    "multi": (TASK_SETS["scene"], {}),
    "conditioned": (
        (Task("depth", 1), Task("sal", 2)),
        {"routing": "conditioned", "gate_task_specific_dim": 6, "blocks": 4},
    ),
}


def no_moecc() -> str:
    """Why there is none, if there is none."""
    try:
        find_moecc()
    except CompiledError as error:
        return str(error)
    return ""


MOECC = pytest.param("moecc", marks=pytest.mark.skipif(bool(no_moecc()), reason=no_moecc()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints as training leaves them: a folder with config.yaml and best.pt."""
    folders = {}
    cache = tmp_path_factory.mktemp("cache")
    for name, (tasks, options) in NETWORKS.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        config = {
            "tasks": {t.name: t.channels for t in tasks},
            "model": {**MODEL, **options},
            "data": {"name": "rooms", "height": 64, "width": 96, "val": PICTURES, "cache": str(cache)},
            "save_dir": str(folder / "tiny"),
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        torch.manual_seed(1)
        model = build_model(read(folder / "config.yaml"))
        torch.save({"model": model.state_dict(), "step": 1}, folder / "best.pt")
    return folders


def command(folder: Path, *options: str | Path) -> int:
    return evaluate.main(["--checkpoint", str(folder / "best.pt"), *map(str, options)])


def loaded(folder: Path, *overrides: str) -> tuple[Config, Any]:
    config = read(folder / "config.yaml", overrides)
    return config, evaluate.load(config, folder / "best.pt")


@pytest.fixture(scope="module")
def graph(runs: dict[str, Path]) -> onnx.ModelProto:
    """The conditioned network as ONNX."""
    return export_any(loaded(runs["conditioned"])[1], 64, 96)


# ---- engines ----


@pytest.fixture(scope="module")
def judged(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, Any]]:
    """The command with all engines that there are: its status, what it prints, and its results."""
    file = tmp_path_factory.mktemp("judged") / "results.json"
    engines = ["--engine", "onnxruntime", *([] if no_moecc() else ["--engine", "moecc"])]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = command(runs["multi"], *engines, "--json", file)
    return status, out.getvalue(), json.loads(file.read_text())


@pytest.mark.parametrize("engine", ["onnxruntime", MOECC])
def test_engines_agree(judged: tuple[int, str, dict[str, Any]], engine: str) -> None:
    status, out, found = judged
    assert status == 0
    assert "All engines agree to the last printed digit." in out
    for task, values in found["figures"]["torch"].items():
        for name, value in values.items():
            assert evaluate.printed(name, found["figures"][engine][task][name]) == evaluate.printed(name, value)
    assert set(found["errors"][engine]) == set(found["figures"]["torch"])
    assert 0 < max(found["errors"][engine].values()) < 1e-5


def test_figures(judged: tuple[int, str, dict[str, Any]], runs: dict[str, Path]) -> None:
    """Those of PyTorch are what a plain loop over the pictures gives, and are printed for each engine."""
    _, out, found = judged
    assert found["pictures"] == PICTURES
    config, model = loaded(runs["multi"])
    data = build_dataset(config.data, "val", config.task_list)
    scores = {t.name: metrics.make(t) for t in config.task_list}
    with torch.no_grad():
        for i in range(PICTURES):
            outputs = model(data[i]["image"][None])
            for name, score in scores.items():
                score.update(outputs[name], data[i][name][None])
    columns = len(found["figures"])
    lines = out.splitlines()[3:]
    printed = [line.split()[-columns:] for line in lines[: lines.index("")]]
    for name, score in scores.items():
        assert found["figures"]["torch"][name] == pytest.approx(score.compute(), rel=1e-9)
    assert printed == [
        [evaluate.printed(figure, value)] * columns
        for score in scores.values()
        for figure, value in score.compute().items()
    ]


@pytest.mark.parametrize("engine", ["onnxruntime", MOECC])
def test_a_network_that_is_told_the_task(runs: dict[str, Path], graph: onnx.ModelProto, engine: str) -> None:
    _, model = loaded(runs["conditioned"])
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), contextlib.ExitStack() as stack:
        want = model(image)
        if engine == "moecc":
            compiled = stack.enter_context(compile_network(graph, find_moecc(), threads=2, flags="-O0"))
            got = compiled(image)
            with pytest.raises(CompiledError, match=r"the compiled network wants \(1, 3, 64, 96\)"):
                compiled(image[..., :64])
        else:
            got = evaluate.onnxruntime_engine(graph)(image)
    assert set(got) == set(want) == {"depth", "sal"}
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=0, atol=1e-5 * float(x.abs().max()))


def test_a_difference_is_found(
    runs: dict[str, Path], graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One output of one engine is off by 5 mm, which the third decimal of its RMSE shows."""
    real = evaluate.onnxruntime_engine(graph)

    def off(image: Tensor) -> dict[str, Tensor]:
        return {name: x + 5e-3 if name == "depth" else x for name, x in real(image).items()}

    monkeypatch.setattr(evaluate, "export_any", lambda *_: graph)
    monkeypatch.setattr(evaluate, "onnxruntime_engine", lambda graph: off)
    assert command(runs["conditioned"], "--engine", "onnxruntime") == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == "Not the same to the last printed digit: depth rmse (onnxruntime)"


# ---- experts ----


def count_by_hand(moe: MoE, inputs: list[Tensor], task: int, conditioned: Tensor | None) -> Counter[int]:
    """Of all tokens [T, dim] that reached a mixture: the k best by a plain sort."""
    counts: Counter[int] = Counter()
    weight = moe.router.gates[task if conditioned is None else 0].weight.detach().double()
    for x in inputs:
        rows = x.flatten(0, 1).double()
        if conditioned is not None:
            rows = torch.cat([rows, conditioned.double().expand(len(rows), -1)], 1)
        for scores in (rows @ weight.T).tolist():
            counts.update(sorted(range(moe.count), key=lambda e: -scores[e])[: moe.top_k])
    return counts


@pytest.mark.parametrize("network", NETWORKS)
def test_experts_are_counted(runs: dict[str, Path], network: str) -> None:
    config, model = loaded(runs[network])
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    seen: dict[str, list[Tensor]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, MoE)}
    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, moe in layers.items():

            def keep(_: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                seen.setdefault(name, []).append(inputs[0])

            stack.callback(moe.register_forward_pre_hook(keep).remove)
        with evaluate.counting(model, len(config.tasks)) as counts:
            model(image)
        before = {n: c.clone() for n, c in counts.items()}
        model(image)  # not counted any more
        assert list(counts) == list(layers) == [f"blocks.{i}.moe" for i in range(1, len(model.blocks), 2)]
        for name, moe in layers.items():
            assert torch.equal(counts[name], before[name])
            assert counts[name].sum(1).tolist() == [2 * 25 * 2] * len(config.tasks)  # pictures, tokens, k
            for task in range(len(config.tasks)):
                vector = model.task_vector(torch.tensor([task])) if network == "conditioned" else None
                want = count_by_hand(moe, [seen[name][task]], task, vector)
                assert counts[name][task].tolist() == [want[e] for e in range(moe.count)]


def test_pruned_experts_do_not_count(runs: dict[str, Path]) -> None:
    config, model = loaded(runs["multi"], "model.expert_prune=true", "model.prune_threshold=0.3")
    tasks = len(config.tasks)
    with evaluate.counting(model, tasks) as counts, torch.no_grad():
        model(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert 0 < counts["blocks.1.moe"].sum() < tasks * 25 * 2


def test_usage_table() -> None:
    tasks = (Task("semseg", 3), Task("depth", 1))
    counts = {"blocks.1.moe": torch.tensor([[1, 3, 0], [2, 2, 0]]), "blocks.3.moe": torch.tensor([[1, 1], [0, 0]])}
    names, share = evaluate.shares(counts, tasks)
    assert names == ["blocks.1.moe semseg", "blocks.1.moe depth", "", "blocks.3.moe all", ""]
    assert share[[0, 1]].tolist() == [[25, 75, 0], [50, 50, 0]]
    assert evaluate.usage_table(names, share).splitlines() == [
        "layer         task       0     1    2",
        "blocks.1.moe  semseg  25.0  75.0  0.0",
        "blocks.1.moe  depth   50.0  50.0  0.0",
        "blocks.3.moe  all     50.0  50.0",
    ]


# ---- files ----


def test_files(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --out writes: pictures of the wanted number, the heat map, and edges as seism wants them."""
    assert command(runs["multi"], "--out", tmp_path, "--pictures", "2", "data.val=3") == 0
    assert "3 pictures of rooms, val" in capsys.readouterr().out
    sheet = Image.open(tmp_path / "pictures.png")
    assert sheet.height > 2 * 2 * 64
    assert sheet.width > 6 * 96
    assert Image.open(tmp_path / "experts.png").height > 5 * 16
    seism = tmp_path / "seism"
    thresholds = (seism / "parameters" / "tiny.txt").read_text().split()
    assert thresholds == [f"{t:.2f}" for t in np.arange(0.01, 1, 0.01)]
    files = sorted((seism / "datasets" / "Rooms" / "tiny").iterdir())
    config, model = loaded(runs["multi"])
    data = build_dataset(config.data, "val", config.task_list)
    assert [f.name for f in files] == [f"{data.source.name(i)}.png" for i in range(3)]
    for i, file in enumerate(files):
        grey = np.asarray(Image.open(file))
        with torch.no_grad():
            chance = torch.sigmoid(model(data[i]["image"][None])["edge"])[0, 0].numpy()
        assert grey.dtype == np.uint8
        assert np.abs(grey - 255 * chance).max() < 0.51


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NYUD as published with M3ViT: mIoU 43.9 to 45.6, RMSE 0.585 to 0.589."""

    def results(name: str, **figures: dict[str, float]) -> str:
        (tmp_path / name).write_text(json.dumps({"figures": {"torch": figures}}))
        return str(tmp_path / name)

    multi = results("multi.json", semseg={"mIoU": 45.6}, depth={"rmse": 0.589})
    one, two = results("semseg.json", semseg={"mIoU": 43.9}), results("depth.json", depth={"rmse": 0.585})
    assert evaluate.main(["--compare", multi, one, two]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "task    figure  single  multi  change, %",
        "semseg  mIoU     43.90  45.60      +3.87",
        "depth   rmse     0.585  0.589      -0.68",
        "Δm                                 +1.59",
    ]
    assert evaluate.main(["--compare", multi, one]) == 2
    assert "no single-task result for depth" in capsys.readouterr().err


# ---- what can go wrong ----


def test_wrong_files(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs["multi"]
    for arguments, says in (
        (["--config", folder / "config.yaml", "--checkpoint", tmp_path / "none.pt"], "none.pt: No such file"),
        (["--checkpoint", tmp_path / "none.pt"], "config.yaml: No such file"),
        (["--checkpoint", folder / "best.pt", "model.experts=8"], "not a checkpoint of this network"),
        (["--checkpoint", folder / "best.pt", "--split", "best"], "rooms, best: a split is one of train, val, test"),
        (["--config", folder / "config.yaml", "--checkpoint", folder / "config.yaml"], "not a checkpoint"),
        (["--compare", folder / "config.yaml", folder / "config.yaml"], "not what --json writes"),
    ):
        assert evaluate.main([str(a) for a in arguments]) == 2
        assert says in capsys.readouterr().err


def test_wrong_compilers(
    runs: dict[str, Path],
    graph: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "export_any", lambda *_: graph)
    broken = tmp_path / "moecc"
    broken.write_text("#!/bin/sh\necho 'node 7 is at fault' >&2\nexit 1\n")
    assert command(runs["conditioned"], "--engine", "moecc", "--moecc", broken) == 3
    assert "is not a program" in capsys.readouterr().err
    broken.chmod(0o755)
    assert command(runs["conditioned"], "--engine", "moecc", "--moecc", broken) == 3
    said = capsys.readouterr().err
    assert "moecc failed with status 1" in said
    assert "node 7 is at fault" in said
