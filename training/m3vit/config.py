"""What a training run is: dataclasses, read from YAML, any key replaced on the command line (`train.epochs=3`).

The keys of `model` are those of zoo.py, with the names of M³ViT's own switches where it has one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from m3vit.tasks import KINDS, Task


class ConfigError(ValueError):
    """What is wrong with a configuration, and where."""


def _one_of(key: str, value: str, *known: str) -> None:
    if value not in known:
        raise ConfigError(f"{key} is one of {', '.join(known)}, not {value!r}")


def _at_least(least: float, of: Any, where: str, *keys: str) -> None:
    for key in keys:
        if not getattr(of, key) >= least:
            raise ConfigError(f"{where}{key} must be at least {least:g}, not {getattr(of, key)}")


def _below(limit: float, of: Any, where: str, *keys: str) -> None:
    for key in keys:
        if not 0 <= getattr(of, key) < limit:
            raise ConfigError(f"{where}{key} must be from 0 to less than {limit:g}, not {getattr(of, key)}")


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

    def __post_init__(self) -> None:
        _one_of("data.name", self.name, "rooms", "nyud", "pascal", "cityscapes")
        _at_least(1, self, "data.", "height", "width")
        _at_least(0, self, "data.", "train", "val", "seed", "workers")


@dataclass(frozen=True)
class OptimiserConfig:
    name: str = "sgd"  # sgd, adamw
    lr: float = 0.002
    momentum: float = 0.9  # adamw: its first beta
    weight_decay: float = 1e-4
    schedule: str = "poly"  # poly: (1 - t)^0.9, cosine, constant
    warmup: float = 0.0  # share of the run in which lr rises from 0
    clip: float = 0.0  # norm of the gradient at most; 0: any

    def __post_init__(self) -> None:
        _one_of("optimiser.name", self.name, "sgd", "adamw")
        _one_of("optimiser.schedule", self.schedule, "poly", "cosine", "constant")
        _at_least(0, self, "optimiser.", "lr", "weight_decay", "clip")
        _below(1, self, "optimiser.", "momentum", "warmup")


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 100
    batch: int = 8  # pictures in a step, of all passes and processes together
    accumulate: int = 1  # passes that make a step
    precision: str = "float32"  # float32, bfloat16, float16 (graphics cards)
    seed: int = 0
    balance: float = 0.01  # weight of the experts' balance loss
    expert_parallel: bool = True  # with several processes: experts are shared out, not copied
    threads: int = 0  # of each process; 0: as many as there are processors for it
    save_every: float = 60.0  # seconds between checkpoints; 0: after each step
    eval_every: int = 1  # epochs
    eval_final_10_epochs_only: bool = False
    tensorboard: bool = False  # besides the CSV files

    def __post_init__(self) -> None:
        _one_of("train.precision", self.precision, "float32", "bfloat16", "float16")
        _at_least(1, self, "train.", "epochs", "batch", "accumulate", "eval_every")
        _at_least(0, self, "train.", "seed", "balance", "threads", "save_every")


@dataclass(frozen=True)
class Config:
    tasks: dict[str, int]  # channels by task
    model: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    loss_weights: dict[str, float] = field(default_factory=dict)  # by task; else those of tasks.py
    save_dir: str = "runs/default"  # read(): runs/FOLDER/FILE of the configuration

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("tasks: there is none")
        for name in (*self.tasks, *self.loss_weights):
            _one_of("a task", name, *KINDS)
        for name, channels in self.tasks.items():
            wanted = KINDS[name].channels
            if channels < 1 or channels != (wanted or channels):
                raise ConfigError(f"tasks.{name} has {wanted or 'one or more'} channels, not {channels}")
        for name, weight in self.loss_weights.items():
            if weight < 0:
                raise ConfigError(f"loss_weights.{name} must be at least 0, not {weight}")

    @property
    def task_list(self) -> tuple[Task, ...]:
        return tuple(Task(name, channels) for name, channels in self.tasks.items())

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


# --------------------------------------------------------------------------------------
# Reading


def read(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A file, added to what its `base:` (a path from its folder, or several) has; then overrides, key=value."""
    path = Path(path)
    values = _load(path, ())
    values.setdefault("save_dir", str(Path("runs", path.resolve().parent.name, path.stem)))
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
        place[last] = _parsed(text, override)
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Config:
    config = _fill(Config, values, "")
    assert isinstance(config, Config)
    return config


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {error}") from error


def _load(path: Path, inside: tuple[Path, ...]) -> dict[str, Any]:
    """inside: the files that have this one as their base."""
    path = path.resolve()
    if path in inside:
        raise ConfigError(f"{path} is its own base")
    try:
        values = _parsed(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a table of keys and values")
    bases = values.pop("base", [])
    out: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        out = _merge(out, _load(path.parent / str(base), (*inside, path)))
    return _merge(out, values)


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else replaced; tasks are replaced as a whole."""
    out = dict(base)
    for key, value in more.items():
        old = out.get(key)
        merge = isinstance(old, dict) and isinstance(value, dict) and key != "tasks"
        out[key] = _merge(old, value) if merge and isinstance(old, dict) else value
    return out


def _fill(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a table, with every key and type checked."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'the file'} is a table of keys and values, not {values!r}")
    types = get_type_hints(kind)
    if unknown := sorted(set(map(str, values)) - set(types)):
        raise ConfigError(f"no such key: {where}{unknown[0]}; there are {', '.join(sorted(types))}")
    if "tasks" in types and "tasks" not in values:
        raise ConfigError("tasks are missing")
    return kind(**{key: check_type(types[key], value, where + key) for key, value in values.items()})


def check_type(kind: Any, value: Any, key: str) -> Any:
    """The value of a key, if it is of the kind."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _fill(kind, value, f"{key}.")
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is a table, not {value!r}")
        item = get_args(kind)[1]
        return {str(k): v if item is Any else check_type(item, v, f"{key}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as a text
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise ConfigError(f"{key} is a number, not {value!r}")
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"{key} is of type {kind.__name__}, not {value!r}")
    return value
