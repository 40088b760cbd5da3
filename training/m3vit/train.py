"""Trains a network:

    python -m m3vit.train --config configs/rooms/m3vit_tiny.yaml
    torchrun --nproc_per_node=2 -m m3vit.train --config configs/rooms/m3vit_tiny.yaml train.epochs=3

In `save_dir`: config.yaml, last.pt (written every minute, from which the same command goes on after any end), best.pt
(the least validation loss), train.csv and validation.csv. A run that was killed and taken up again gives the same
weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

PRECISION = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


# --------------------------------------------------------------------------------------
# Optimisation


def make_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is for matrices only, as is usual for transformers, when the optimiser is AdamW."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999))


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """At a step of a run of so many."""
    t = step / steps
    if t < config.warmup:
        return config.lr * (step + 1) / (config.warmup * steps)
    t = (t - config.warmup) / (1 - config.warmup)
    if config.schedule == "poly":
        return config.lr * (1 - t) ** 0.9
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * t))))
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
    scaler: torch.amp.GradScaler
    train: Samples
    val: Samples
    folder: Path
    epoch: int = 0
    batch: int = 0  # of the epoch, the next one
    step: int = 0
    best: float = float("inf")
    saved: float = field(default_factory=time.monotonic)

    @property
    def batches(self) -> int:
        """Of an epoch; `accumulate` of them make a step."""
        return len(self.train) // (self.config.train.batch // self.config.train.accumulate)

    @property
    def steps(self) -> int:
        return self.config.train.epochs * (self.batches // self.config.train.accumulate)


def start(config: Config, world: World) -> Run:
    """Builds what a run needs; goes on with the last checkpoint, if there is one."""
    torch.manual_seed(config.train.seed)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    elif world.size > 1 and world.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world.size))
    each = config.train.batch // config.train.accumulate
    if config.train.batch % config.train.accumulate or each < world.size:
        raise ConfigError(
            f"train.batch {config.train.batch} cannot be divided into {config.train.accumulate} passes of "
            f"{world.size} processes"
        )
    train, val = (
        build_dataset(config.data, s, config.task_list, config.train.seed) for s in ("train", "val")
    )
    if len(train) < each:
        raise ConfigError(f"{len(train)} pictures do not fill a batch of {each}")
    model = build_model(config).to(world.device)
    parallel.broadcast(model, world)
    parallel.share_statistics(model, world)
    if config.train.expert_parallel:
        parallel.shard_experts(model, world)
    scaler = torch.amp.GradScaler(world.device.type, enabled=config.train.precision == "float16")
    run = Run(
        config,
        world,
        model,
        make_optimiser(config.optimiser, model),
        scaler,
        train,
        val,
        Path(config.save_dir),
    )
    if world.first:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.yaml").write_text(yaml.safe_dump(config.as_dict(), sort_keys=False))
    world.barrier()
    load(run)
    return run


@contextlib.contextmanager
def precision(run: Run) -> Iterator[None]:
    kind = PRECISION[run.config.train.precision]
    with torch.autocast(run.world.device.type, kind, enabled=kind is not None):
        yield


def loss_of(
    run: Run, outputs: Mapping[str, Tensor], sample: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    config = run.config
    return losses.multitask(outputs, sample, config.task_list, config.loss_weights, run.world.mean)


def train_one_epoch(run: Run) -> None:
    """From batch run.batch on."""
    config, world, model = run.config, run.world, run.model
    model.train()
    passes = config.train.accumulate
    each = config.train.batch // passes
    part = parallel.shard_batch(each, world)
    order = Order(len(run.train), each, config.train.seed, run.epoch, run.batch, part)
    loader = DataLoader(run.train, batch_sampler=order, num_workers=config.data.workers)
    whole = run.batches // passes * passes  # batches that make whole steps
    bar = tqdm(
        total=whole, initial=run.batch, desc=f"epoch {run.epoch + 1}/{config.train.epochs}",
        disable=not (world.first and sys.stderr.isatty()), leave=False,
    )  # fmt: skip
    sums: dict[str, Tensor] = {}
    for sample in loader:
        if run.batch == whole:
            break
        if run.batch % passes == 0:
            run.optimiser.zero_grad(set_to_none=True)
            sums = {}
        # The noise of the gates depends on the step and the process alone.
        torch.manual_seed(hash((config.train.seed, run.epoch, run.batch, world.rank)) % 2**63)
        sample = {name: x.to(world.device) for name, x in sample.items()}
        with precision(run):
            outputs = model(sample["image"])
        loss, each_loss = loss_of(run, outputs, sample)
        balance = model.auxiliary_loss()
        run.scaler.scale((loss + config.train.balance * balance) / passes).backward()
        for name, value in {"loss": loss, "balance": balance, **each_loss}.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / passes
        run.batch += 1
        bar.update()
        if run.batch % passes == 0:
            take_step(run, sums)
            bar.set_postfix(loss=f"{float(sums['loss']):.3f}")
            maybe_save(run)
    bar.close()


def take_step(run: Run, sums: Mapping[str, Tensor]) -> None:
    config = run.config.optimiser
    rate = learning_rate(config, run.step, run.steps)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    parallel.average_gradients(run.model, run.world)
    if config.clip > 0:
        run.scaler.unscale_(run.optimiser)
        parallel.clip_gradients(run.model, config.clip, run.world)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    run.step += 1
    means = {name: float(run.world.mean(value)) for name, value in sums.items()}
    if run.world.first:
        write_row(run.folder / "train.csv", {"step": run.step, "lr": rate, **means})


@torch.no_grad()
def evaluate(run: Run) -> dict[str, float]:
    """The validation loss, and every task's metrics. All processes do the same."""
    run.model.eval()
    scores = {task.name: metrics.make(task) for task in run.config.task_list}
    loader = DataLoader(run.val, batch_size=1, num_workers=run.config.data.workers)
    total = 0.0
    for sample in loader:
        moved = {name: x.to(run.world.device) for name, x in sample.items()}
        outputs = run.model(moved["image"])
        loss, _ = losses.multitask(outputs, moved, run.config.task_list, run.config.loss_weights)
        total += float(loss) / len(loader)
        for name, score in scores.items():
            score.update(outputs[name].float().cpu(), sample[name])
    found = {"loss": total}
    for name, score in scores.items():
        found |= {f"{name} {figure}": value for figure, value in score.compute().items()}
    return found


def wants_evaluation(config: Config, epoch: int) -> bool:
    """After epoch number `epoch`, from 1 on."""
    last = config.train.epochs
    if config.train.eval_final_10_epochs_only and epoch <= last - 10:
        return False
    return epoch % config.train.eval_every == 0 or epoch == last


def train(run: Run) -> None:
    config = run.config
    while run.epoch < config.train.epochs:
        train_one_epoch(run)
        run.epoch, run.batch = run.epoch + 1, 0
        if wants_evaluation(config, run.epoch):
            found = evaluate(run)
            if run.world.first:
                write_row(
                    run.folder / "validation.csv", {"step": run.step, "epoch": run.epoch, **found}
                )
                print(
                    f"epoch {run.epoch}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()),
                    flush=True,
                )
            if found["loss"] < run.best:
                run.best = found["loss"]
                save(run, "best.pt")
        save(run, "last.pt")


# --------------------------------------------------------------------------------------
# Files


def save(run: Run, name: str) -> None:
    """Written beside, then moved: there is always a whole one."""
    model = parallel.full_state(run.model, dict(run.model.state_dict()), run.world)
    moments = moments_of(run)
    if run.world.first:
        state = {
            "config": run.config.as_dict(),
            "model": model,
            "epoch": run.epoch, "batch": run.batch, "step": run.step, "best": run.best,
            "optimiser": moments,
            "scaler": run.scaler.state_dict(),
        }  # fmt: skip
        part = run.folder / f"{name}.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(run.folder / name)
    run.saved = time.monotonic()
    run.world.barrier()


def maybe_save(run: Run) -> None:
    """A checkpoint now and then; the first process says when."""
    due = torch.tensor(
        float(run.world.first and time.monotonic() - run.saved > run.config.train.save_every)
    )
    if float(run.world.mean(due.to(run.world.device))) > 0:
        save(run, "last.pt")


def moments_of(run: Run) -> dict[str, dict[str, Tensor]]:
    """What the optimiser remembers, by kind and parameter name, so that it does not depend on the processes."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, p in run.model.named_parameters():
        for kind, value in run.optimiser.state.get(p, {}).items():
            if isinstance(value, Tensor):
                kinds.setdefault(kind, {})[name] = value
    return {
        kind: parallel.full_state(run.model, values, run.world) for kind, values in kinds.items()
    }


def load(run: Run) -> None:
    path = run.folder / "last.pt"
    if not path.exists():
        return
    state = torch.load(path, map_location=run.world.device, weights_only=True)
    if state["config"]["model"] != run.config.model or state["config"]["tasks"] != run.config.tasks:
        raise ConfigError(f"{path} is of another network: choose another save_dir")
    run.model.load_state_dict(parallel.own_state(run.model, state["model"], run.world))
    for kind, values in state["optimiser"].items():
        own = parallel.own_state(run.model, values, run.world)
        for name, p in run.model.named_parameters():
            if name in own:
                run.optimiser.state[p][kind] = own[name].clone()
    run.scaler.load_state_dict(state["scaler"])
    run.epoch, run.batch, run.step, run.best = (
        state[k] for k in ("epoch", "batch", "step", "best")
    )
    if run.world.first:
        for log in ("train.csv", "validation.csv"):
            cut_rows(run.folder / log, run.step)
        print(f"goes on at step {run.step} of {run.steps}", flush=True)


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def cut_rows(path: Path, step: int) -> None:
    """Drops what was logged after the step."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    kept = [row for row in rows if row and int(row[0]) <= step]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *kept])


# --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m m3vit.train", description="Trains a network.")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML, see configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="replaces a key: train.epochs=3"
    )
    arguments = parser.parse_args(argv)
    try:
        config = read(arguments.config, arguments.overrides)
        with parallel.world() as world:
            train(start(config, world))
    except ConfigError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
