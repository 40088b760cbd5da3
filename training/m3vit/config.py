"""What a training run is: dataclasses, read from YAML, any key replaced on the command line (`train.epochs=3`).

The keys of `model` are those of zoo.py, with the names of M³ViT's own switches where it has one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from m3vit.tasks import KINDS, Task


class ConfigError(ValueError):
    """What is wrong with a configuration, and where."""


@dataclass(frozen=True)
class DataConfig:
    name: str = "rooms"  # rooms, nyud, pascal, cityscapes
    root: str = ""  # folder of the data set; rooms needs none
    height: int = 128  # of what the network sees
    width: int = 256
    train: int = 0  # pictures of the training split; 0: all (rooms: 2000)
    val: int = 0  # of the validation split (rooms: 250)
    seed: int = 0  # of rooms
    cache: str = ""  # rooms: folder that keeps what was rendered
    workers: int = 0  # processes that prepare samples; 0: the training process does
    augment: bool = True


@dataclass(frozen=True)
class OptimiserConfig:
    name: str = "sgd"  # sgd, adamw
    lr: float = 0.002
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "poly"  # poly: (1 - t)^0.9, cosine, constant
    warmup: float = 0.0  # share of the run in which lr rises from 0
    clip: float = 0.0  # norm of the gradient at most; 0: any


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 100
    batch: int = 8  # pictures in a step, of all processes together
    accumulate: int = 1  # passes that make a step
    precision: str = "float32"  # float32, bfloat16, float16 (graphics cards)
    seed: int = 0
    balance: float = 0.01  # weight of the experts' balance loss
    expert_parallel: bool = True  # with several processes: experts are shared out, not copied
    threads: int = 0  # of each process; 0: as many as there are processors for it
    save_every: float = 60.0  # seconds between checkpoints
    eval_every: int = 1  # epochs
    eval_final_10_epochs_only: bool = False


@dataclass(frozen=True)
class Config:
    tasks: dict[str, int]  # channels by task
    model: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    loss_weights: dict[str, float] = field(default_factory=dict)  # by task; else those of tasks.py
    save_dir: str = "runs/default"

    def __post_init__(self) -> None:
        def one_of(key: str, value: str, *known: str) -> None:
            if value not in known:
                raise ConfigError(f"{key} is one of {', '.join(known)}, not {value!r}")

        if not self.tasks:
            raise ConfigError("tasks: there is none")
        for name in (*self.tasks, *self.loss_weights):
            one_of("a task", name, *KINDS)
        one_of("data.name", self.data.name, "rooms", "nyud", "pascal", "cityscapes")
        one_of("optimiser.name", self.optimiser.name, "sgd", "adamw")
        one_of("optimiser.schedule", self.optimiser.schedule, "poly", "cosine", "constant")
        one_of("train.precision", self.train.precision, "float32", "bfloat16", "float16")
        for key in ("epochs", "batch", "accumulate", "eval_every"):
            if getattr(self.train, key) < 1:
                raise ConfigError(f"train.{key} must be at least 1")

    @property
    def task_list(self) -> tuple[Task, ...]:
        return tuple(Task(name, channels) for name, channels in self.tasks.items())

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A file, whose `base:` (a path from its folder) is read first and then added to."""
    values = _load(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r}: an override is key=value")
        *path_to, last = key.split(".")
        place = values
        for part in path_to:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {part} has no keys")
        place[last] = yaml.safe_load(text)
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Config:
    config = _fill(Config, values, "")
    assert isinstance(config, Config)
    return config


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a table of keys and values")
    if base := values.pop("base", None):
        return _merge(_load(path.parent / str(base)), values)
    return values


def _merge(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else replaced; tasks are replaced as a whole."""
    out = dict(base)
    for key, value in more.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict) and key != "tasks"
        out[key] = _merge(old, value) if both and isinstance(old, dict) else value
    return out


def _fill(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a table, with every key and type checked."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the file'} is a table of keys and values, not {values!r}")
    types = get_type_hints(kind)
    if unknown := sorted(set(values) - set(types)):
        raise ConfigError(f"no such key: {where}{unknown[0]}; there are {', '.join(sorted(types))}")
    if "tasks" in types and "tasks" not in values:
        raise ConfigError("tasks are missing")
    filled = {key: _value(types[key], value, where + key) for key, value in values.items()}
    return kind(**filled)


def _value(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _fill(kind, value, f"{key}.")
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
        return None if value is None else _value(kind, value, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is a table, not {value!r}")
        item = get_args(kind)[1]
        return {
            str(k): v if item is Any else _value(item, v, f"{key}.{k}") for k, v in value.items()
        }
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a text
        except ValueError:
            pass
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"{key} is of type {kind.__name__}, not {value!r}")
    return value
