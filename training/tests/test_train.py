"""Training: schedules, accumulation, precision, what is kept, and going on after being killed."""

from __future__ import annotations

import csv
import math
import os
import random
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR

from m3vit import train
from m3vit.config import OptimiserConfig
from m3vit.model import ConvBlock
from m3vit.parallel import World


@pytest.fixture
def use_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.use_tiny(monkeypatch.setattr)


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(run: train.Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


# --------------------------------------------------------------------------------------
# Optimisation


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_schedules_are_torchs(schedule: str) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    theirs = PolynomialLR(optimiser, 20, 0.9) if schedule == "poly" else CosineAnnealingLR(optimiser, 20)
    config = OptimiserConfig(lr=0.3, schedule=schedule)
    for step in range(20):
        assert train.learning_rate(config, step, 20) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        theirs.step()


def test_warming_up() -> None:
    config = OptimiserConfig(lr=1.0, schedule="constant", warmup=0.25)
    assert [train.learning_rate(config, s, 20) for s in range(7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    # Of a run that the share does not divide evenly no step is above the rate.
    assert max(train.learning_rate(config, s, 10) for s in range(10)) == 1.0


def test_adamw_decays_matrices_only() -> None:
    config = tiny.config("unused")
    model = tiny.network(config)
    optimiser = train.make_optimiser(OptimiserConfig("adamw", weight_decay=0.5), model)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert len(decay) == len(named)
    yes = ["patch_embed.weight", "blocks.0.attn.qkv.weight", "blocks.1.moe.experts.fc1_weight"]
    no = ["pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.1.moe.experts.fc1_bias", "patch_embed.bias"]
    assert [decay[id(named[n])] for n in yes] == [0.5] * 3
    assert [decay[id(named[n])] for n in no] == [0.0] * 5


def test_passes_add_up_to_the_larger_batch(use_tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for batch normalisation and the balance of experts, which are of a pass; masks differ much."""
    monkeypatch.setattr(ConvBlock, "forward", lambda self, x: torch.relu(self.conv(x)))
    found = []
    for passes in (1, 2, 4):
        options = {"train": {"batch": 4, "epochs": 1, "accumulate": passes, "balance": 0.0}}
        run = train.start(tiny.config(tmp_path / str(passes), **options), World())
        train.train_one_epoch(run)
        assert run.step == 2
        found.append((weights(run), rows(run.folder / "train.csv")))
    for after, logged in found[1:]:
        assert float((after - found[0][0]).abs().max()) < 1e-5
        for a, b in zip(logged, found[0][1], strict=True):
            assert {**a, "balance": 0} == pytest.approx({**b, "balance": 0}, rel=1e-4)
    torch.manual_seed(0)
    fresh = torch.cat([p.detach().flatten() for p in tiny.network(run.config).parameters()])
    assert float((weights(run) - fresh).abs().max()) > 1e-3


def test_gradients_are_clipped(use_tiny: None, tmp_path: Path) -> None:
    norms = {}
    for clip in (0.0, 0.5):
        sections = {"optimiser": {"clip": clip, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}}
        run = train.start(tiny.config(tmp_path / str(clip), **sections), World())
        before = weights(run)
        train.train_one_epoch(run)
        first = rows(run.folder / "train.csv")[0]["gradient"]
        norms[clip] = first, float((weights(run) - before).norm()) / 0.01
    assert norms[0.0][0] == norms[0.5][0] > 5
    assert norms[0.5][1] <= 2 * 0.5 * 1.001 < norms[0.0][1]


def test_bfloat16_is_near_float32(use_tiny: None, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        run = train.start(
            tiny.config(tmp_path / precision, train={"precision": precision, "epochs": 1, "eval_every": 9}), World()
        )
        train.train(run)
        losses[precision] = [row["loss"] for row in rows(run.folder / "train.csv")]
        assert all(p.dtype is torch.float32 for p in run.model.parameters())
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_float16_leaves_out_steps_that_overflow(use_tiny: None, tmp_path: Path) -> None:
    """A scale that is too large is lowered, and the weights wait until it fits."""
    run = train.start(tiny.config(tmp_path, train={"precision": "float16", "epochs": 2}), World())
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = weights(run)
    train.train_one_epoch(run)
    assert run.scaler.get_scale() == 2.0**38
    assert torch.equal(weights(run), before)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    run.epoch, run.batch = 1, 0
    train.train_one_epoch(run)
    assert torch.isfinite(weights(run)).all()
    assert not torch.equal(weights(run), before)


def test_it_learns(use_tiny: None, tmp_path: Path) -> None:
    """Noise by heart."""
    sections = {"optimiser": {"name": "adamw", "lr": 0.01}, "train": {"epochs": 12, "eval_final_10_epochs_only": True}}
    sections["tasks"] = {"depth": 1}
    train.train(train.start(tiny.config(tmp_path, **sections), World()))
    logged = [row["loss"] for row in rows(tmp_path / "train.csv")]
    assert len(logged) == 24
    assert max(logged[-2:]) < 0.5 * min(logged[:2])
    assert [row["epoch"] for row in rows(tmp_path / "validation.csv")] == list(range(3, 13))


# --------------------------------------------------------------------------------------
# What is kept


def write_config(folder: Path, **sections: Any) -> list[str]:
    values = tiny.config(folder / "run", **{"tasks": tiny.TWO, **sections}).as_dict()
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return ["--config", str(folder / "config.yaml")]


def test_the_best_is_kept(use_tiny: None, tmp_path: Path) -> None:
    assert train.main(write_config(tmp_path, optimiser={"lr": 0.1}, train={"epochs": 4})) == 0
    found = [row["loss"] for row in rows(tmp_path / "run" / "validation.csv")]
    best, last = (torch.load(tmp_path / "run" / f"{name}.pt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == found.index(min(found)) + 1
    assert best["best"] == last["best"] == min(found)
    assert (last["epoch"], last["step"]) == (4, 8)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "best.pt", "config.yaml", "last.pt", "train.csv", "validation.csv",
    ]  # fmt: skip


def test_another_run_is_not_overwritten(use_tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = write_config(tmp_path, train={"epochs": 1})
    assert train.main(argv) == 0
    kept = (tmp_path / "run" / "config.yaml").read_bytes()
    assert train.main([*argv, "train.seed=1"]) == 2
    assert "is of another run, whose train.seed is 0: choose another save_dir" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == kept
    assert train.main([*argv, "train.epochs=2"]) == 0  # it can be made longer
    assert "goes on after step 2 of 4" in capsys.readouterr().out
    (tmp_path / "run" / "last.pt").write_bytes(b"no weights")
    assert train.main(argv) == 2
    assert "last.pt is no checkpoint" in capsys.readouterr().err


def test_a_loss_that_is_not_finite(use_tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = write_config(tmp_path, optimiser={"lr": 1e30}, train={"epochs": 4, "save_every": 0})
    assert train.main(argv) == 1
    error = capsys.readouterr().err
    assert "is not finite (loss " in error
    assert "try a lower optimiser.lr" in error
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path / "run" / "train.csv"))


class Terminal:
    """Takes what is written, and says that it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals(
    use_tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_config(tmp_path, train={"epochs": 1})
    assert train.main(argv) == 0
    out = capsys.readouterr()
    assert out.err == ""
    assert out.out.startswith("epoch 1: loss ")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert train.main([*argv, "train.epochs=2"]) == 0
    assert "epoch 2/2" in terminal.text


def test_tensorboard(use_tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets what the CSV files have, and a run that goes on has it drop what came after the checkpoint."""
    made: list[tuple[str, int]] = []
    scalars: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            made.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((name, value, step))

        def flush(self) -> None: ...

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    argv = write_config(tmp_path, train={"epochs": 1, "tensorboard": True})
    assert train.main(argv) == 0
    assert train.main([*argv, "train.epochs=2"]) == 0
    assert made == [(str(tmp_path / "run"), 1), (str(tmp_path / "run"), 3)]
    for name in ("train", "validation"):
        for row in rows(tmp_path / "run" / f"{name}.csv"):
            assert {(f"{name}/{key}", value, row["step"]) for key, value in row.items()} <= set(scalars)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main([*argv, f"save_dir={tmp_path / 'other'}"]) == 2


def test_rows_after_a_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("step,loss\r\n1,0.5\r\n2,0.25\r\n3,0.125\r\n4,0.0")
    train.cut_rows(path, "step", 2)
    assert path.read_bytes() == b"step,loss\r\n1,0.5\r\n2,0.25\r\n"
    path.write_text("step,lo")
    train.cut_rows(path, "step", 2)
    assert path.read_bytes() == b""


def test_pictures_that_are_rendered(tmp_path: Path) -> None:
    """Everything as it is, with pictures that are rendered: an epoch of two steps."""
    small = {"preset": "nano", "dim": 16, "heads": 2, "blocks": 2, "experts": 2, "head_width": 4}
    data = {"train": 4, "val": 1, "cache": str(tmp_path / "cache")}
    argv = write_config(
        tmp_path, model=small, data=data, tasks={**tiny.TASKS, "semseg": 21}, train={"epochs": 1, "batch": 2}
    )
    assert train.main(argv) == 0
    assert [row["step"] for row in rows(tmp_path / "run" / "train.csv")] == [1, 2]


# --------------------------------------------------------------------------------------
# Killed


PLACES = {"save": torch, "fsync": os, "replace": Path, "writerow": csv.DictWriter, "take_step": train}
# Before (odd) or after (even) one of the calls of a function: 3 is before the second.
MOMENTS = [("save", 3), ("replace", 3), ("writerow", 4), ("save", 5), ("fsync", 4), ("writerow", 2), ("take_step", 3)]


def live(argv: list[str], name: str, moment: int) -> None:
    """Trains until it has ended, or dies at a moment."""
    tiny.use_tiny()
    left = moment

    def pass_by() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    original = getattr(PLACES[name], name)

    def watched(*arguments: Any, **options: Any) -> Any:
        pass_by()
        result = original(*arguments, **options)
        pass_by()
        return result

    setattr(PLACES[name], name, watched)
    sys.exit(train.main(argv))


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Before and after whatever is written, and at any other moments; with routers' noise and two passes for a step."""
    sections = {
        "model": {"noise_std": 1.0},
        "optimiser": {"name": "adamw"},
        "train": {"batch": 4, "accumulate": 2, "epochs": 4, "save_every": 0},
    }
    files = ("last.pt", "best.pt", "train.csv", "validation.csv", "config.yaml")
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    argv = write_config(tmp_path / "killed", **sections)
    whole = tiny.launch(live, write_config(tmp_path / "whole", **sections), "save", 0)
    chance = random.Random(1)
    for place, moment in MOMENTS:
        process = tiny.launch(live, argv, place, moment)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, place
    for _ in range(3):
        process = tiny.launch(live, argv, "save", 0)
        time.sleep(chance.uniform(0.05, 0.3))
        process.kill()
        process.join(60)
    process = tiny.launch(live, argv, "save", 0)
    process.join(60)
    whole.join(60)
    assert (process.exitcode, whole.exitcode) == (0, 0)
    one, two = (tmp_path / name / "run" for name in ("whole", "killed"))
    for name in files[2:4]:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    for name in files[:2]:
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, two))
        assert (a["step"], a["best"]) == (b["step"], b["best"])
        for kind in ("model", *(f"optimiser.{k}" for k in a["optimiser"])):
            x, y = (train.value_of(s, kind) for s in (a, b))
            assert x.keys() == y.keys()
            assert all(torch.equal(x[key], y[key]) for key in x), kind
    assert len(rows(two / "train.csv")) == 8
