"""Configurations: those that are here, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from m3vit import train
from m3vit.config import Config, ConfigError, DataConfig, OptimiserConfig, TrainConfig, from_dict, read
from m3vit.model import M3ViT
from m3vit.tasks import KINDS
from m3vit.zoo import build_model, checked

CONFIGS = Path(__file__).parents[1] / "configs"
DATA = ("rooms", "nyud", "pascal", "cityscapes")
NETWORKS = (
    "m3vit_tiny", "m3vit_small", "m3vit_cond", "vit_small", "vit_moe", "resnet18", "resnet50", "hrnet18",
    "single_task", "cross_stitch", "nddr_cnn", "mtan", "pad_net", "mti_net",
)  # fmt: skip
ROOMS = {"nano", "quick", "compare_m3vit", "compare_vit"}  # besides NETWORKS
SIZES = {"rooms": (128, 256), "nyud": (480, 640), "pascal": (512, 512), "cityscapes": (128, 256)}
TASKS = {
    "rooms": {"semseg": 21, "depth": 1, "normals": 3, "edge": 1, "sal": 2, "human_parts": 7},
    "nyud": {"semseg": 40, "depth": 1, "normals": 3, "edge": 1},
    "pascal": {"semseg": 21, "human_parts": 7, "sal": 2, "edge": 1, "normals": 3},
    "cityscapes": {"semseg": 19, "depth": 1},
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_data_set_and_network_has_its_configuration(data: str, network: str) -> None:
    """With the numbers that M³ViT was trained with."""
    config = read(CONFIGS / data / f"{network}.yaml")
    assert config.tasks == TASKS[data]
    assert (config.data.name, (config.data.height, config.data.width)) == (data, SIZES[data])
    assert config.optimiser == OptimiserConfig("sgd", 0.002, 0.9, 1e-4, "poly", 0.0, 0.0)
    assert (config.train.epochs, config.train.eval_final_10_epochs_only) == (100, True)
    assert config.loss_weights == {name: KINDS[name].loss_weight for name in config.tasks}
    assert config.save_dir == f"runs/{data}/{network}"
    checked(config.model)


def test_compared_networks_compute_the_same_for_a_task() -> None:
    gated, dense = (build_model(read(CONFIGS / "rooms" / f"compare_{name}.yaml")) for name in ("m3vit", "vit"))
    assert isinstance(gated, M3ViT)
    assert isinstance(dense, M3ViT)
    assert dense.config.experts == 0
    assert gated.config.top_k * gated.config.expert_ratio == dense.config.mlp_ratio == gated.config.mlp_ratio
    assert (gated.config.dim, gated.config.blocks) == (dense.config.dim, dense.config.blocks)


def test_there_are_no_others() -> None:
    for data in DATA:
        here = {path.stem for path in (CONFIGS / data).glob("*.yaml")} - {"base"}
        assert here - set(NETWORKS) == (ROOMS if data == "rooms" else set())
    quick = read(CONFIGS / "rooms" / "quick.yaml")
    assert quick.model == read(CONFIGS / "rooms" / "nano.yaml").model
    assert quick.optimiser.name == "adamw"


@pytest.mark.parametrize(
    ("name", "millions"), [("rooms/nano", 2.4), ("rooms/m3vit_tiny", 31.4), ("cityscapes/m3vit_tiny", 22.4)]
)
def test_small_networks_are_built(name: str, millions: float) -> None:
    """Sizes by hand: tiny has 20.2 M weights but for its heads and routers, a head has about 2.2 M."""
    with torch.device("meta"):
        model = build_model(read(CONFIGS / f"{name}.yaml"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


# --------------------------------------------------------------------------------------
# Reading


def written(folder: Path, name: str, values: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def test_defaults_and_forms_of_numbers(tmp_path: Path) -> None:
    config = read(written(tmp_path, "set/net.yaml", "tasks: {depth: 1}\noptimiser: {lr: 1e-3, weight_decay: 0}\n"))
    assert config.data == DataConfig()
    assert config.train == TrainConfig()
    assert (config.optimiser.lr, config.optimiser.weight_decay) == (0.001, 0.0)
    assert config.save_dir == "runs/set/net"
    assert [(t.name, t.channels) for t in config.task_list] == [("depth", 1)]
    assert from_dict(config.as_dict()) == config


def test_bases_are_added_to(tmp_path: Path) -> None:
    written(tmp_path, "far.yaml", {"tasks": {"edge": 1}, "train": {"epochs": 3, "batch": 4}})
    written(tmp_path, "model.yaml", {"model": {"experts": 4, "top_k": 1}, "train": {"epochs": 5}})
    written(tmp_path, "near/near.yaml", {"base": "../far.yaml", "train": {"seed": 9}})
    top = written(
        tmp_path, "top.yaml", {"base": ["near/near.yaml", "model.yaml"], "tasks": {"depth": 1}, "model": {"top_k": 2}}
    )
    config = read(top, ["train.batch=6", "model.gate=noisy", "data.augment=false", "save_dir=a=b"])
    assert config.tasks == {"depth": 1}  # replaced as a whole
    assert (config.train.epochs, config.train.batch, config.train.seed) == (5, 6, 9)
    assert config.model == {"experts": 4, "top_k": 2, "gate": "noisy"}
    assert (config.data.augment, config.save_dir) == (False, "a=b")


def test_a_file_that_is_its_own_base(tmp_path: Path) -> None:
    written(tmp_path, "a.yaml", {"base": "b.yaml"})
    with pytest.raises(ConfigError, match=r"b\.yaml is its own base"):
        read(written(tmp_path, "b.yaml", {"base": "a.yaml"}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "no such key: train.epoch; there are accumulate, balance,"),
        ("colour=red", "no such key: colour"),
        ("train.epochs=many", "train.epochs is of type int, not 'many'"),
        ("train.epochs=2.5", "train.epochs is of type int, not 2.5"),
        ("train.epochs=true", "train.epochs is of type int, not True"),
        ("train.epochs=0", "train.epochs must be at least 1, not 0"),
        ("train.expert_parallel=1", "train.expert_parallel is of type bool, not 1"),
        ("train.precision=float8", "train.precision is one of float32, bfloat16, float16, not 'float8'"),
        ("train.seed=-1", "train.seed must be at least 0"),
        ("train=3", "train is a table of keys and values, not 3"),
        ("train.epochs.more=3", "train.epochs is of type int, not {'more': 3}"),
        ("save_dir.more=3", "save_dir.more: save_dir has no keys"),
        ("train.epochs", "'train.epochs': an override is key=value"),
        ("train.epochs=[1", "train.epochs=[1: "),
        ("optimiser.lr=fast", "optimiser.lr is a number, not 'fast'"),
        ("optimiser.lr=.nan", "optimiser.lr is a number, not nan"),
        ("optimiser.lr=-1", "optimiser.lr must be at least 0, not -1.0"),
        ("optimiser.name=adam", "optimiser.name is one of sgd, adamw"),
        ("optimiser.momentum=1", "optimiser.momentum must be from 0 to less than 1"),
        ("optimiser.warmup=1.5", "optimiser.warmup must be from 0 to less than 1"),
        ("optimiser.schedule=step", "optimiser.schedule is one of poly, cosine, constant"),
        ("data.name=kitchens", "data.name is one of rooms, nyud, pascal, cityscapes, not 'kitchens'"),
        ("data.height=0", "data.height must be at least 1"),
        ("data.name=nyud", "the folder of nyud is not given"),
        ("tasks={}", "tasks: there is none"),
        ("tasks=depth", "tasks is a table, not 'depth'"),
        ("tasks.smell=1", "a task is one of semseg, human_parts, sal, edge, normals, depth, not 'smell'"),
        ("tasks.normals=2", "tasks.normals has 3 channels, not 2"),
        ("tasks.semseg=0", "tasks.semseg has one or more channels, not 0"),
        ("loss_weights.depth=-1", "loss_weights.depth must be at least 0"),
        ("loss_weights.smell=1", "a task is one of"),
        ("train.accumulate=3", "train.batch 8 cannot be divided into 3 passes of 1 processes"),
        ("data.train=7", "7 pictures to train with, 2 to validate: train.batch is 8"),
        ("model.colour=red", "no such key: model.colour"),
        ("model.top_k=0", "top_k"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str) -> None:
    values = {"tasks": {"depth": 1}, "data": {"train": 8, "val": 2}, "save_dir": str(tmp_path / "run")}
    path = written(tmp_path, "x.yaml", values)
    assert train.main(["--config", str(path), override]) == 2
    found = capsys.readouterr().err
    assert found.startswith("train: ")
    assert message in found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tasks: {depth: 1", "x.yaml: while parsing"),
        ("- depth", "x.yaml: not a table of keys and values"),
        ("train: {epochs: 1}", "tasks are missing"),
        ("base: none.yaml", "none.yaml: No such file or directory"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(written(tmp_path, "x.yaml", content))
    assert message in str(error.value)


def test_the_original_switches_are_keys() -> None:
    config = read(CONFIGS / "pascal" / "m3vit_small.yaml", ["model.moe_top_k=2"])
    assert isinstance(config, Config)
    with torch.device("meta"):
        options = checked(config.model)
    assert (options["moe_top_k"], options["multi_gate"], options["vmoe_noisy_std"]) == (2, True, 0.0)
