"""Trains a network:

    python -m m3vit.train --config configs/rooms/m3vit_tiny.yaml
    torchrun --nproc_per_node=2 -m m3vit.train --config configs/rooms/m3vit_tiny.yaml train.epochs=3

In `save_dir`: config.yaml, last.pt (written every minute, from which the same command goes on after any end), best.pt
(the least validation loss), train.csv (a row per step) and validation.csv (a row per evaluation). On processors a run
that was killed and taken up again gives the same weights and rows, bit by bit, as one that was not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from m3vit import losses, metrics, parallel
from m3vit.config import Config, ConfigError, OptimiserConfig, read
from m3vit.data import Order, Samples, build_dataset
from m3vit.parallel import World
from m3vit.zoo import build_model

UNITS = 100  # as their papers train them
PRECISION = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What a run that goes on must have in common with the one that it continues.
SAME = (
    "tasks", "model", "optimiser.name", "train.batch", "train.seed",
    "data.name", "data.height", "data.width", "data.train", "data.seed", "data.augment",
)  # fmt: skip

Sample = dict[str, Tensor]


class DivergedError(ArithmeticError):
    """The loss or its gradient is not finite."""


# --------------------------------------------------------------------------------------
# Optimisation


def make_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is for everything with SGD, as M3ViT was trained, and for matrices only with AdamW.

    With SGD the units of Cross-Stitch and NDDR-CNN learn UNITS times as fast as the rest.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.name == "sgd":
        units: Any = getattr(model, "unit_parameters", list)
        fast = {id(p) for p in units()}
        groups = [
            {"params": [p for _, p in named if id(p) not in fast], "times": 1},
            {"params": [p for _, p in named if id(p) in fast], "times": UNITS},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.SGD(groups, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    matrix = {name for name, p in named if p.dim() > 1 and name.endswith("weight")}
    groups = [
        {"params": [p for name, p in named if name in matrix], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if name not in matrix], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999))


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """At a step, from 0 on, of a run of so many."""
    t = step / steps
    if t < config.warmup:
        return config.lr * min(1.0, (step + 1) / (config.warmup * steps))
    t = (t - config.warmup) / (1 - config.warmup)
    if config.schedule == "poly":
        return config.lr * (1 - t) ** 0.9
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * t))
    return config.lr


# --------------------------------------------------------------------------------------
# A run


@dataclass
class Run:
    """Everything that a training run has, and what a checkpoint has to keep."""

    config: Config
    world: World
    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of float16's loss; does nothing otherwise
    train: Samples
    val: Samples
    folder: Path
    epoch: int = 0  # whole ones that are done
    batch: int = 0  # steps of this epoch that are done
    step: int = 0  # all steps that are done
    best: float = float("inf")  # least validation loss
    board: Any = None  # TensorBoard's writer, if wanted
    saved: float = field(default_factory=time.monotonic)

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return len(self.train) // self.config.train.batch

    @property
    def steps(self) -> int:
        return self.config.train.epochs * self.batches


def start(config: Config, world: World) -> Run:
    """Builds what a run needs; goes on with the last checkpoint, if there is one."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    elif world.size > 1 and world.device.type == "cpu":
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    batch, passes = config.train.batch, config.train.accumulate
    if batch % passes or batch // passes < world.size:
        raise ConfigError(f"train.batch {batch} cannot be divided into {passes} passes of {world.size} processes")
    try:
        train, val = (build_dataset(config.data, s, config.task_list, config.train.seed) for s in ("train", "val"))
        torch.manual_seed(config.train.seed)
        model = build_model(config).to(world.device)
        parallel.broadcast(model, world)
        parallel.share_statistics(model, world)
        if config.train.expert_parallel:
            parallel.shard_experts(model, world)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if len(train) < batch or len(val) < 1:
        raise ConfigError(f"{len(train)} pictures to train with, {len(val)} to validate: train.batch is {batch}")
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.train.precision == "float16")
    optimiser = make_optimiser(config.optimiser, model)
    run = Run(config, world, model, optimiser, scaler, train, val, Path(config.save_dir))
    load(run)
    world.barrier()
    if world.first:
        run.folder.mkdir(parents=True, exist_ok=True)
        write(run.folder / "config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False))
        cut_rows(run.folder / "train.csv", "step", run.step)
        cut_rows(run.folder / "validation.csv", "epoch", run.epoch)
        if config.train.tensorboard:
            run.board = open_board(run)
    return run


def train(run: Run) -> None:
    config = run.config
    while run.epoch < config.train.epochs:
        train_one_epoch(run)
        run.epoch, run.batch = run.epoch + 1, 0
        if wants_evaluation(config, run.epoch):
            found = evaluate(run)
            log(run, "validation", {"step": run.step, "epoch": run.epoch, **found})
            say(run, f"epoch {run.epoch}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
            if found["loss"] < run.best:
                run.best = found["loss"]
                save(run, "best.pt")
        save(run, "last.pt")


def train_one_epoch(run: Run) -> None:
    """From step run.batch on."""
    config, world = run.config.train, run.world
    run.model.train()
    each = config.batch // config.accumulate
    part = parallel.shard_batch(each, world)
    order = Order(len(run.train), each, config.seed, run.epoch, run.batch * config.accumulate, part)
    loader = iter(DataLoader(run.train, batch_sampler=order, num_workers=run.config.data.workers))
    hidden = not (world.first and sys.stderr.isatty())
    title = f"epoch {run.epoch + 1}/{config.epochs}"
    with tqdm(total=run.batches, initial=run.batch, desc=title, disable=hidden, leave=False) as bar:
        while run.batch < run.batches:
            step = [moved(next(loader), world.device) for _ in range(config.accumulate)]
            found = take_step(run, add_gradients(run, step))
            run.batch += 1
            bar.update()
            bar.set_postfix(loss=f"{found['loss']:.3f}")
            save_now_and_then(run)


def add_gradients(run: Run, step: Sequence[Sample]) -> dict[str, Tensor]:
    """Of this process's share of a step, pass by pass; gives the parts of the loss."""
    config = run.config
    run.optimiser.zero_grad(set_to_none=True)
    pixels = pixels_of(run, step)
    sums: dict[str, Tensor] = {}
    for number, sample in enumerate(step):
        # The noise of the routers depends on the step and the process alone.
        place = [config.train.seed, run.step, number, run.world.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        with precision(run):
            outputs = run.model(sample["image"])
        loss, each = losses.multitask(outputs, sample, config.task_list, config.loss_weights, pixels)
        balance = auxiliary_loss(run.model)
        whole = (loss + config.train.balance * balance) / len(step)
        torch.autograd.backward(run.scaler.scale(whole))
        for name, value in {"loss": loss, "balance": balance, **each}.items():
            part = value.detach().float() / len(step)
            sums[name] = sums[name] + part if name in sums else part
    return sums


def pixels_of(run: Run, step: Sequence[Sample]) -> losses.Pixels:
    """The pixels to be judged in all passes and processes of a step, as a mean over these."""

    @cache
    def pixels(name: str, size: losses.Size) -> Tensor:
        counts = [losses.count(name, losses.at_size(sample[name], size)) for sample in step]
        return run.world.mean(torch.stack(counts).mean(0))

    return pixels


@contextlib.contextmanager
def precision(run: Run) -> Iterator[None]:
    kind = PRECISION[run.config.train.precision]
    with torch.autocast(run.world.device.type, kind, enabled=kind is not None):
        yield


def auxiliary_loss(model: nn.Module) -> Tensor:
    """What a network adds to the tasks' losses: see zoo.py."""
    loss: Any = model.auxiliary_loss
    return loss()


def take_step(run: Run, sums: Mapping[str, Tensor]) -> dict[str, float]:
    """With the gradients of all processes; gives the loss and its parts, over all of them."""
    config, world = run.config.optimiser, run.world
    rate = learning_rate(config, run.step, run.steps)
    for group in run.optimiser.param_groups:
        group["lr"] = rate * group.get("times", 1)
    parallel.average_gradients(run.model, world)
    run.scaler.unscale_(run.optimiser)
    norm = parallel.gradient_norm(run.model, world)
    means = world.mean(torch.stack([value.to(world.device) for value in sums.values()])).tolist()
    found = dict(zip(sums, means, strict=True))
    # float16 leaves out a step whose gradient is not finite, and scales the loss down.
    finite = math.isfinite(found["loss"] + found["balance"]) and (math.isfinite(norm) or run.scaler.is_enabled())
    if not finite:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        raise DivergedError(
            f"step {run.step + 1} is not finite ({parts}, gradient {norm:.4g}); the weights of the last checkpoint are "
            "as they were: try a lower optimiser.lr, or optimiser.clip=1"
        )
    if 0 < config.clip < norm < math.inf:
        for p in run.model.parameters():
            if p.grad is not None:
                p.grad *= config.clip / norm
    run.scaler.step(run.optimiser)
    run.scaler.update()
    run.step += 1
    log(run, "train", {"step": run.step, "lr": rate, "gradient": norm, **found})
    return found


@torch.no_grad()
def evaluate(run: Run) -> dict[str, float]:
    """The validation loss per picture and, in the first process, every task's metrics.

    The processes take turns with the pictures, and the first judges what all predict. All take part to the end, with
    the last picture once more if need be, since one may have the experts that another needs.
    """
    world, tasks, count = run.world, run.config.task_list, len(run.val)
    run.model.eval()
    scores = {task.name: metrics.make(task) for task in tasks}
    mine = [min(at + world.rank, count - 1) for at in range(0, count, world.size)]
    loader = DataLoader(run.val, batch_size=1, sampler=mine, num_workers=run.config.data.workers)
    total = 0.0
    for turn, stored in enumerate(loader):
        sample = moved(stored, world.device)
        outputs = run.model(sample["image"])
        loss, _ = losses.multitask(outputs, sample, tasks, run.config.loss_weights)
        valid = min(world.size, count - turn * world.size)
        total += sum(float(x) for x in world.gather(loss)[:valid])
        for name, score in scores.items():
            pairs = zip(world.gather(outputs[name].float()), world.gather(sample[name]), strict=True)
            for prediction, target in list(pairs)[: valid if world.first else 0]:
                score.update(prediction.cpu(), target.cpu())
    found = {"loss": total / count}
    for name, score in scores.items() if world.first else ():
        found |= {f"{name} {figure}": value for figure, value in score.compute().items()}
    return found


def wants_evaluation(config: Config, epoch: int) -> bool:
    """After epoch number `epoch`, from 1 on."""
    last = config.train.epochs
    if config.train.eval_final_10_epochs_only and epoch <= last - 10:
        return False
    return epoch % config.train.eval_every == 0 or epoch == last


def moved(sample: Mapping[str, Tensor], device: torch.device) -> Sample:
    return {name: x.to(device) for name, x in sample.items()}


# --------------------------------------------------------------------------------------
# Checkpoints


def save(run: Run, name: str) -> None:
    """Weights and moments by parameter name, experts whole: how many processes there were does not show."""
    model = parallel.full_state(run.model, dict(run.model.state_dict()), run.world)
    moments = moments_of(run)
    if run.world.first:
        state = {
            "config": run.config.as_dict(),
            "model": model,
            "epoch": run.epoch,
            "batch": run.batch,
            "step": run.step,
            "best": run.best,
            "optimiser": moments,
            "scaler": run.scaler.state_dict(),
        }
        write(run.folder / name, state)
    run.saved = time.monotonic()
    run.world.barrier()


def save_now_and_then(run: Run) -> None:
    """The first process says when."""
    due = run.world.first and time.monotonic() - run.saved >= run.config.train.save_every
    if float(run.world.mean(torch.tensor(float(due), device=run.world.device))) > 0:
        save(run, "last.pt")


def moments_of(run: Run) -> dict[str, dict[str, Tensor]]:
    """What the optimiser remembers, by kind and parameter name."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, p in run.model.named_parameters():
        for kind, value in run.optimiser.state.get(p, {}).items():
            if isinstance(value, Tensor):
                kinds.setdefault(kind, {})[name] = value
    return {kind: parallel.full_state(run.model, values, run.world) for kind, values in kinds.items()}


def load(run: Run) -> None:
    path = run.folder / "last.pt"
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before, now = state["config"], run.config.as_dict()
    except Exception as error:  # what torch raises for a file that is none of its own is not written down
        raise ConfigError(f"{path} is no checkpoint: {error}") from error
    if other := [key for key in SAME if value_of(before, key) != value_of(now, key)]:
        raise ConfigError(
            f"{path} is of another run, whose {other[0]} is {value_of(before, other[0])}: choose another save_dir"
        )
    run.model.load_state_dict(parallel.own_state(run.model, state["model"], run.world))
    for kind, values in state["optimiser"].items():
        own = parallel.own_state(run.model, values, run.world)
        for name, p in run.model.named_parameters():
            if name in own:  # numbers of steps stay where the optimiser wants them
                run.optimiser.state[p][kind] = own[name].to(p.device) if own[name].dim() else own[name]
    if state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    run.epoch, run.batch, run.step, run.best = (state[k] for k in ("epoch", "batch", "step", "best"))
    say(run, f"goes on after step {run.step} of {run.steps}")


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Of a key like train.seed."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part)
    return value


# --------------------------------------------------------------------------------------
# Files


def write(path: Path, content: str | Mapping[str, Any]) -> None:
    """Written beside, then moved: there is always a whole one. A text, or what torch.save makes of a state."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        if isinstance(content, str):
            file.write(content.encode())
        else:
            torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def log(run: Run, name: str, row: Mapping[str, float]) -> None:
    """A row of train.csv or validation.csv, and the same for TensorBoard."""
    if not run.world.first:
        return
    path = run.folder / f"{name}.csv"
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
    if run.board is not None:
        for key, value in row.items():
            run.board.add_scalar(f"{name}/{key}", value, row["step"])
        run.board.flush()


def cut_rows(path: Path, column: str, last: int) -> None:
    """Drops what was logged after the checkpoint, and a row that was not written to its end."""
    if not path.exists():
        return
    text = path.read_text()
    head, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    place = head.index(column) if column in head else None
    kept = [row for row in rows if place is not None and len(row) == len(head) and int(row[place]) <= last]
    lines = [",".join(row) + "\r\n" for row in ([head, *kept] if kept else [])]
    write(path, "".join(lines))


def open_board(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("train.tensorboard: pip install tensorboard") from error
    return SummaryWriter(str(run.folder), purge_step=run.step + 1)


def say(run: Run, text: str) -> None:
    if run.world.first:
        print(text, flush=True)


# --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m m3vit.train", description="Trains a network.")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="replaces a key: train.epochs=3")
    arguments = parser.parse_args(argv)
    try:
        config = read(arguments.config, arguments.overrides)
        with parallel.world() as world:
            train(start(config, world))
    except (ConfigError, DivergedError) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"train: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
