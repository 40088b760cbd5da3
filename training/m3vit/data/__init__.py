"""Data sets: Rooms, which is rendered here, and NYUD, PASCAL-Context and Cityscapes from folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from m3vit.config import DataConfig
from m3vit.data import transforms
from m3vit.data.folders import Cityscapes, DataError, Folder, Nyud, Pascal
from m3vit.tasks import Task

FOLDERS: dict[str, type[Folder]] = {"nyud": Nyud, "pascal": Pascal, "cityscapes": Cityscapes}


class Source(Protocol):
    """What a data set of arrays has: see transforms.py."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]: ...
    def name(self, index: int) -> str: ...


def source(config: DataConfig, split: str, tasks: Sequence[Task]) -> Source:
    """The pictures and labels as they are stored. split: "train" or "val"."""
    count = config.train if split == "train" else config.val
    if config.name == "rooms":
        from m3vit.data.rooms import Rooms  # here, so that it can be run as a module without being imported twice

        count = count or (2000 if split == "train" else 250)
        cache = Path(config.cache) if config.cache else None
        return Rooms(split, count, config.height, config.width, config.seed, cache)
    if not config.root:
        raise DataError(f"data.root: the folder of {config.name} is not given")
    return FOLDERS[config.name](Path(config.root), split, [t.name for t in tasks], count)


def augmentation(config: DataConfig) -> list[transforms.Transform]:
    """Of training. For the folders that of Multi-Task-Learning-PyTorch, for Cityscapes that of MTAN."""
    if config.name == "rooms":  # rendered at its size
        return [transforms.flip, transforms.Colours()]
    if config.name == "pascal":
        return [transforms.flip, transforms.ScaleRotate()]
    middle = config.name == "nyud"
    return [transforms.flip, transforms.ScaleCrop(config.height, config.width, middle=middle)]


@dataclass(frozen=True)
class Samples(Dataset[dict[str, Tensor]]):
    """Tensors for a network. What chance does to a sample depends on the seed, the epoch and the sample alone, so that
    a run that is taken up again sees what it would have seen."""

    source: Source
    tasks: Sequence[Task]
    size: tuple[int, int]
    augment: Sequence[transforms.Transform] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def __getitem__(self, place: int | tuple[int, int]) -> dict[str, Tensor]:
        """By number, or in training by epoch and number."""
        epoch, index = place if isinstance(place, tuple) else (0, place)
        stored = self.source[index]
        sample = {name: stored[name] for name in ("image", *(t.name for t in self.tasks))}
        random = np.random.default_rng([self.seed, epoch, index])
        for transform in self.augment:
            sample = transform(sample, random)
        if sample["image"].shape[:2] != self.size:
            sample = transforms.resize(sample, *self.size)
        return transforms.tensors(sample)


def build_dataset(config: DataConfig, split: str, tasks: Sequence[Task], seed: int = 0) -> Samples:
    augment = augmentation(config) if split == "train" and config.augment else ()
    return Samples(source(config, split, tasks), tasks, (config.height, config.width), augment, seed)


@dataclass(frozen=True)
class Order(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch from batch `start` on, in an order that the seed and the epoch decide. The last pictures
    that make no whole batch are left out. `part`: which of a batch's pictures are wanted."""

    count: int
    batch: int
    seed: int
    epoch: int
    start: int = 0
    part: range | None = None

    def __len__(self) -> int:
        return self.count // self.batch - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        for b in range(self.start, self.count // self.batch):
            batch = order[b * self.batch : (b + 1) * self.batch]
            yield [(self.epoch, batch[i]) for i in (range(self.batch) if self.part is None else self.part)]
