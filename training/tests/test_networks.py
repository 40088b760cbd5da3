"""The networks that M3ViT is compared with: sizes as published, ResNets as the transformers library computes them,
every baseline trained a step, exported, run in onnxruntime and, where there is a moecc ($MOECC), compiled by it."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel

from m3vit import losses
from m3vit.backbones import (
    RESNETS,
    HRNet,
    ResNet,
    ResNetBottleNeckLayer,
    ViT,
    conv_bn,
    load_pretrained,
    own_name,
)
from m3vit.baselines import (
    MTAN,
    NDDRCNN,
    CrossStitch,
    MTINet,
    NDDRUnit,
    PADNet,
    SharedBackbone,
    SingleTasks,
    StitchUnit,
    shares,
)
from m3vit.config import ConfigError, OptimiserConfig, from_dict
from m3vit.heads import DeepLabHead, HRNetHead
from m3vit.model import M3ViT, M3ViTConfig
from m3vit.onnx_graph import check_any, export_any, load_checkpoint, picture, reference
from m3vit.pretrained import PretrainedError
from m3vit.tasks import Task
from m3vit.train import make_optimiser
from m3vit.zoo import build_model

TASKS = (Task("semseg", 3), Task("depth", 1), Task("normals", 3))
HEIGHT, WIDTH = 32, 64


RESNETS[10] = ("basic", 1, [1, 1, 1, 1])  # half of ResNet-18, which is soon exported


def resnet() -> ResNet:
    return ResNet(10, width=8)


def hrnet() -> HRNet:
    return HRNet(width=4, modules=(1, 1, 1), blocks=1)


def vit() -> ViT:
    return ViT(M3ViTConfig(height=HEIGHT, width=WIDTH, dim=16, heads=2, blocks=2, experts=0, routing="shared"))


def vit_moe() -> ViT:
    moe = {"experts": 4, "top_k": 2, "routing": "shared"}
    return ViT(M3ViTConfig(height=HEIGHT, width=WIDTH, dim=16, heads=2, blocks=2, **moe))


def deeplab(task: Task) -> nn.Module:
    return DeepLabHead((64,), task.channels, 8, 8)


def mti_net() -> MTINet:
    net = MTINet(TASKS[:2], hrnet())
    for module in net.propagate.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels == 1:
            nn.init.ones_(module.bias)  # a ReLU of one channel may otherwise be born dead
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: SharedBackbone(TASKS[:2], resnet(), deeplab),
    "hrnet": lambda: SharedBackbone(TASKS, hrnet(), lambda t: HRNetHead((4, 8, 16, 32), t.channels)),
    "vit_moe": lambda: SharedBackbone(TASKS[1:], vit_moe(), lambda t: DeepLabHead((16,), t.channels, 16, 8)),
    "single_tasks": lambda: SingleTasks(TASKS[:2], lambda t: SharedBackbone([t], resnet(), deeplab)),
    "cross_stitch": lambda: CrossStitch(TASKS[:2], resnet, deeplab),
    "nddr_cnn": lambda: NDDRCNN(TASKS[:2], resnet, deeplab),
    "mtan": lambda: MTAN(TASKS[:2], ResNet(18, width=8), deeplab),
    "pad_net": lambda: PADNet(TASKS[:2], vit(), width=16),
    "mti_net": lambda: mti_net(),
}
EXPORTED = [name for name in NETWORKS if name != "resnet"]  # two of which are single_tasks


def make(name: str) -> Any:
    torch.manual_seed(0)
    return NETWORKS[name]()


def sample(count: int = 4) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(count, 3, HEIGHT, WIDTH, generator=g),
        "semseg": torch.randint(3, (count, HEIGHT, WIDTH), generator=g),
        "depth": 1 + torch.rand(count, 1, HEIGHT, WIDTH, generator=g),
        "normals": F.normalize(torch.randn(count, 3, HEIGHT, WIDTH, generator=g), dim=1),
    }


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "published"), [(18, 11_689_512), (50, 25_557_032)])
def test_resnets_are_of_the_published_size(depth: int, published: int) -> None:
    """Of torchvision's table, which counts the classifier of 1000 classes."""
    with torch.device("meta"):
        net = ResNet(depth)
        assert parameters(net, nn.Linear(net.channels[-1], 1000)) == published


@pytest.mark.parametrize(("modules", "blocks", "published"), [((1, 4, 3), 4, 21_299_004), ((1, 3, 2), 2, 15_597_464)])
def test_hrnets_are_of_the_published_size(modules: tuple[int, ...], blocks: int, published: int) -> None:
    """Of timm's table for hrnet_w18 and hrnet_w18_small_v2, which counts what classification adds."""
    with torch.device("meta"):
        net = HRNet(18, modules, blocks)
        wide = [128, 256, 512, 1024]
        classifier = [
            *(ResNetBottleNeckLayer(c, w) for c, w in zip(net.channels, wide, strict=True)),
            *(conv_bn(w, 2 * w, 3, stride=2) for w in wide[:3]),
            conv_bn(1024, 2048, 1),
            nn.Linear(2048, 1000),
        ]
        biases = 256 + 512 + 1024 + 2048  # its other convolutions have a bias before the normalisation
        assert parameters(net, *classifier) + biases == published


@pytest.mark.parametrize(("preset", "published"), [("tiny", 5_717_416), ("small", 22_050_664)])
def test_dense_vits_are_of_the_published_size(preset: str, published: int) -> None:
    """Of DeiT's tiny and small, at 224x224, with the classifier."""
    with torch.device("meta"):
        net = ViT(M3ViTConfig.preset(preset, height=224, width=224, experts=0, routing="shared"))
        assert parameters(net, nn.Linear(net.channels[0], 1000)) == published


def test_hrnet_for_segmentation_is_of_the_published_size() -> None:
    """HRNetV2-W18 with its head for the 19 classes of Cityscapes: 9.6 M."""
    with torch.device("meta"):
        net = HRNet()
        assert abs(parameters(net, HRNetHead(net.channels, 19)) - 9.6e6) < 0.05e6


def test_deeplab_head_is_of_the_published_size() -> None:
    """torchvision's deeplabv3_resnet50 has 42 004 074 parameters, 2 365 205 of them in its auxiliary head."""
    with torch.device("meta"):
        assert parameters(ResNet(50), DeepLabHead((2048,), 21)) == 42_004_074 - 2_365_205


# ---- ResNet and HRNet ------------------------------------------------------------------------------------------------


def library_resnet(depth: int) -> Any:
    torch.manual_seed(depth)
    kind = {18: ("basic", [2] * 4, [8, 16, 32, 64]), 50: ("bottleneck", [3, 4, 6, 3], [32, 64, 128, 256])}[depth]
    net = ResNetModel(ResNetConfig(embedding_size=8, layer_type=kind[0], depths=kind[1], hidden_sizes=kind[2]))
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return net.eval()


def in_torchvisions_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's ResNet: conv1, bn1, layer1.0.conv1, layer1.0.bn1, ..., layer2.0.downsample.0, ..., fc."""
    parts = {"convolution": "conv", "normalization": "bn"}
    out = {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    for name, tensor in state.items():
        *path, part, kind = name.split(".")
        if path[0] == "embedder":
            new = [parts[part] + "1"]
        else:
            _, _, stage, _, layer, where, *number = path
            new = [f"layer{int(stage) + 1}", layer]
            if where == "shortcut":
                new += ["downsample", str(list(parts).index(part))]
            else:
                new += [parts[part] + str(int(number[0]) + 1)]
        out[".".join([*new, kind])] = tensor
    return out


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("names", ["transformers", "torchvision"])
def test_a_resnet_computes_what_the_library_does(tmp_path: Path, depth: int, names: str) -> None:
    library = library_resnet(depth)
    state = library.state_dict()
    torch.save(state if names == "transformers" else in_torchvisions_names(state), tmp_path / "weights.pt")
    own = ResNet(depth, output_stride=32, width=8).eval()
    load_pretrained(own, tmp_path / "weights.pt")
    image = picture(0, 70, 90)
    with torch.no_grad():
        torch.testing.assert_close(own(image)[0], library(image).last_hidden_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_keeps_what_the_weights_compute_and_adds_the_places_between(depth: int, stride: int) -> None:
    strided = ResNet(depth, output_stride=32, width=8).double().eval()
    dilated = ResNet(depth, output_stride=stride, width=8).double().eval()
    dilated.load_state_dict(strided.state_dict())
    image, step = picture(0, 64, 96).double(), 32 // stride
    with torch.no_grad():
        dense, sparse = dilated(image)[0], strided(image)[0]
    assert dense.shape[2:] == (64 // stride, 96 // stride)
    torch.testing.assert_close(dense[:, :, ::step, ::step], sparse)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "part.pt")
    with pytest.raises(PretrainedError, match="is missing"):
        load_pretrained(resnet(), tmp_path / "part.pt")
    torch.save(ResNet(10, width=4).state_dict(), tmp_path / "thin.pt")
    with pytest.raises(PretrainedError, match="has shape"):
        load_pretrained(resnet(), tmp_path / "thin.pt")


def test_hrnets_authors_names_are_understood() -> None:
    with torch.device("meta"):
        own = HRNet().state_dict()
    for name in (
        "conv2.weight", "bn2.running_var", "layer1.0.downsample.1.bias", "layer1.3.conv3.weight",
        "transition1.0.0.weight", "transition1.1.0.1.weight", "transition3.3.0.0.weight",
        "stage2.0.branches.1.3.conv2.weight", "stage3.3.fuse_layers.0.2.1.bias",
        "stage4.2.fuse_layers.3.0.2.1.running_mean", "stage4.2.branches.3.3.bn2.weight",
    ):  # fmt: skip
        assert own_name(HRNet, name) in own


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_hrnets_maps_have_their_strides(size: tuple[int, int]) -> None:
    net = hrnet().eval()
    maps = net(picture(0, *size))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(net.channels, net.strides, strict=True)
    ]


# ---- baselines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_reaches_every_parameter_and_lowers_the_loss(name: str) -> None:
    net, batch = make(name).train(), sample()

    def loss() -> Tensor:
        torch.manual_seed(2)  # of dropout and of the gates' noise
        outputs = net(batch["image"])
        assert all(outputs[t.name].shape == (4, t.channels, HEIGHT, WIDTH) for t in net.tasks)
        return losses.multitask(outputs, batch, net.tasks, {})[0] + 0.01 * net.auxiliary_loss()

    optimiser = torch.optim.SGD(net.parameters(), 1e-4)
    before = loss()
    before.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    optimiser.step()
    assert loss().item() < before.item()


@pytest.mark.parametrize(
    ("name", "levels"), [("pad_net", ["initial"]), ("mti_net", ["1/4", "1/8", "1/16", "1/32"]), ("mtan", [])]
)
def test_early_predictions_come_in_training(name: str, levels: list[str]) -> None:
    net, image = make(name), sample()["image"]
    names = {t.name for t in net.tasks}
    early = set(net.train()(image)) - names
    assert early == {f"{task}@{level}" for task in names for level in levels}
    assert set(net.eval()(image)) == names


def test_networks_without_experts_have_no_balance_loss() -> None:
    net = make("vit_moe").train()
    net(sample()["image"])
    assert net.auxiliary_loss().item() > 0
    assert float(make("mtan").auxiliary_loss()) == 0


def test_stitched_by_the_identity_networks_are_separate() -> None:
    stitched, single = make("cross_stitch").eval(), make("single_tasks").eval()
    for unit in stitched.units[1:]:
        unit.weight.data = torch.eye(2)[:, :, None, None, None].expand_as(unit.weight).clone()
    for name, network in single.networks.items():
        network.backbone.load_state_dict(stitched.backbones[name].state_dict())
        network.heads[name].load_state_dict(stitched.heads[name].state_dict())
    image = picture(0, HEIGHT, WIDTH)
    torch.testing.assert_close(stitched(image), single(image))


def test_a_stitch_unit_weighs_channels() -> None:
    maps = torch.randn(3, 2, 5, 4, 6)  # tasks, pictures, channels
    unit = StitchUnit(3, 5)
    unit.weight.data = torch.randn_like(unit.weight)
    expected = torch.einsum("ijc,jbchw->ibchw", unit.weight[..., 0, 0], maps)
    torch.testing.assert_close(torch.stack(unit(list(maps))), expected)


def test_units_begin_as_weighted_means() -> None:
    torch.testing.assert_close(shares(3, 0.9), torch.full((3, 3), 0.05) + 0.85 * torch.eye(3))
    assert float(shares(1, 0.9)) == 1
    a, b = torch.rand(2, 2, 5, 4, 6)
    for unit in (StitchUnit(2, 5), NDDRUnit(2, 5).eval()):
        first, second = unit([a, b])
        torch.testing.assert_close(first, 0.9 * a + 0.1 * b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(second, 0.1 * a + 0.9 * b, rtol=1e-5, atol=1e-5)


def test_nddr_of_equal_networks_begins_as_one_of_them() -> None:
    mixed = make("nddr_cnn").eval()
    mixed.backbones["depth"].load_state_dict(mixed.backbones["semseg"].state_dict())
    image = picture(0, HEIGHT, WIDTH)
    found = mixed(image)
    for task in mixed.tasks:
        alone = SharedBackbone([task], mixed.backbones[task.name], lambda t: mixed.heads[t.name]).eval()
        # Five normalisations by 1 + 1e-5 are all that is between them.
        torch.testing.assert_close(found[task.name], alone(image)[task.name], rtol=1e-3, atol=1e-4)


def test_units_learn_a_hundred_times_as_fast() -> None:
    net = make("nddr_cnn")
    optimiser = make_optimiser(OptimiserConfig(name="sgd"), net)
    times = {id(p): group["times"] for group in optimiser.param_groups for p in group["params"]}
    assert {name for name, p in net.named_parameters() if times[id(p)] == 100} == {
        f"units.{name}" for name, _ in net.units.named_parameters()
    }
    assert set(times.values()) == {1, 100}


def test_pad_net_lets_tasks_help_each_other() -> None:
    """A task's prediction depends on what another task's early layers see, and only through the messages."""
    net, image = make("pad_net").eval(), picture(0, HEIGHT, WIDTH)

    def change() -> float:
        other = copy.deepcopy(net)
        for p in other.refine["depth"].parameters():
            p.data *= 2
        return (other(image)["semseg"] - net(image)["semseg"]).abs().max().item()

    assert change() > 0
    net.distil.messages["semseg"]["depth"].conv.weight.data.zero_()
    assert change() == 0


# ---- export ----------------------------------------------------------------------------------------------------------


def moecc_command() -> str:
    found = os.environ.get("MOECC")
    if not found:
        pytest.skip("no $MOECC, the compiler's path")
    return found


def settle(net: nn.Module) -> None:
    """Gives batch normalisation the statistics of a batch, as training would."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(sample()["image"])
    net.eval()


@pytest.fixture(scope="module")
def graphs() -> Callable[[str], tuple[nn.Module, onnx.ModelProto]]:
    """Networks and their graphs, each made once."""
    made: dict[str, tuple[nn.Module, onnx.ModelProto]] = {}

    def get(name: str) -> tuple[nn.Module, onnx.ModelProto]:
        if name not in made:
            net = make(name)
            settle(net)
            made[name] = net, export_any(net, HEIGHT, WIDTH)
        return made[name]

    return get


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_computes_what_the_network_does(name: str, graphs: Any) -> None:
    net, graph = graphs(name)
    assert check_any(net, graph, HEIGHT, WIDTH) < 1e-5
    notes = {p.key: p.value for p in graph.metadata_props}
    assert notes["moecc.input.image"].startswith("image layout=NCHW color=RGB")
    for task in net.tasks:
        assert notes[f"moecc.task.{task.name}"] == f"outputs={task.name}"
    assert [o.name for o in graph.graph.output] == [t.name for t in net.tasks]
    assert notes["moecc.output.depth"] == "depth unit=m"


@pytest.mark.parametrize("name", EXPORTED)
def test_moecc_compiles_it(name: str, graphs: Any, tmp_path: Path) -> None:
    command = moecc_command()
    net, graph = graphs(name)
    image = picture(5, HEIGHT, WIDTH)
    wanted, _ = reference(net, image)
    onnx.save(graph, tmp_path / "model.onnx")
    data = tmp_path / "test_data_set_0"
    data.mkdir()
    for file, array, title in [
        ("input_0", image, "image"),
        *((f"output_{i}", wanted[t.name].float(), t.name) for i, t in enumerate(net.tasks)),
    ]:
        (data / f"{file}.pb").write_bytes(numpy_helper.from_array(array.numpy(), title).SerializeToString())
    done = subprocess.run(
        [command, "verify", tmp_path / "model.onnx", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- configurations --------------------------------------------------------------------------------------------------


def config(**model: Any) -> Any:
    return from_dict({"tasks": {"semseg": 3, "depth": 1}, "data": {"height": HEIGHT, "width": WIDTH}, "model": model})


SMALL_VIT = {"preset": "nano", "dim": 12, "heads": 2, "blocks": 2, "head_width": 4}
SMALL_RESNET = {"backbone": "resnet18", "backbone_width": 4, "head_width": 8}
SMALL_HRNET = {"backbone": "hrnet18_small", "backbone_width": 2}


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (SMALL_VIT, M3ViT),
        ({**SMALL_VIT, "backbone": "vit_moe"}, M3ViT),
        ({**SMALL_VIT, "backbone": "vit"}, M3ViT),
        ({**SMALL_VIT, "backbone": "vit", "head": "deeplab"}, SharedBackbone),
        ({**SMALL_VIT, "backbone": "vit_moe", "model": "pad_net"}, PADNet),
        ({**SMALL_VIT, "setup": "single_task"}, SingleTasks),
        ({**SMALL_RESNET, "setup": "single_task"}, SingleTasks),
        (SMALL_RESNET, SharedBackbone),
        ({**SMALL_RESNET, "backbone": "resnet50", "output_stride": 16}, SharedBackbone),
        ({**SMALL_RESNET, "model": "cross_stitch"}, CrossStitch),
        ({**SMALL_RESNET, "model": "nddr_cnn"}, NDDRCNN),
        ({**SMALL_RESNET, "model": "mtan"}, MTAN),
        ({**SMALL_RESNET, "model": "pad_net"}, PADNet),
        (SMALL_HRNET, SharedBackbone),
        ({**SMALL_HRNET, "model": "pad_net", "head_width": 8}, PADNet),
        ({**SMALL_HRNET, "model": "mti_net"}, MTINet),
    ],
)
def test_a_configuration_names_a_network(keys: dict[str, Any], kind: type) -> None:
    net = build_model(config(**keys)).eval()
    assert type(net) is kind
    assert {n: tuple(x.shape) for n, x in net(picture(0, HEIGHT, WIDTH)).items()} == {
        "semseg": (1, 3, HEIGHT, WIDTH),
        "depth": (1, 1, HEIGHT, WIDTH),
    }


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        (
            {"moe_gate_type": "noisy", "moe_experts": 6, "moe_top_k": 3, "moe_mlp_ratio": 1, "vmoe_noisy_std": 0},
            {"gate": "noisy", "experts": 6, "top_k": 3, "expert_ratio": 1.0, "noise_std": 0.0, "routing": "multi"},
        ),
        ({"multi_gate": True, "gate_task_specific_dim": -1, "task_one_hot": False}, {"routing": "multi"}),
        ({"multi_gate": False}, {"routing": "shared"}),
        ({"multi_gate": False, "gate_task_specific_dim": 5}, {"routing": "conditioned", "gate_task_specific_dim": 5}),
        ({"task_one_hot": True}, {"routing": "conditioned", "task_one_hot": True}),
        (
            {"regu_experts_fromtask": True, "num_experts_pertask": 4},
            {"regu_experts_fromtask": True, "num_experts_pertask": 4},
        ),
        (
            {"expert_prune": True, "gate_input_ahead": True, "distilled": True, "multi_level": True},
            {"expert_prune": True, "gate_input_ahead": True, "distilled": True, "multi_level": True},
        ),
        ({"backbone": "vit"}, {"experts": 0}),
    ],
)
def test_switches_of_the_original_are_fields(keys: dict[str, Any], fields: dict[str, Any]) -> None:
    net: Any = build_model(config(**SMALL_VIT, **keys))
    found = dataclasses.asdict(net.config)
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"moe_expert": 4}, "no such key: model.moe_expert; there are "),
        ({"backbone": "resnet34"}, "model.backbone is one of m3vit, "),
        ({"moe_top_k": "two"}, "model.moe_top_k is of type int"),
        ({"moe_top_k": 2, "top_k": 2}, "moe_top_k and top_k are the same"),
        ({"moe_experts": 2, "moe_top_k": 3}, "top_k 3 of 2 experts"),
        ({"preset": "huge"}, "model.preset is one of nano, "),
        ({"setup": "single_task", "backbone": "resnet18", "model": "mtan"}, "mtan is a network of several tasks"),
        ({"backbone": "vit", "moe_experts": 4}, "moe_experts is not for the backbone vit"),
        ({"backbone": "vit_moe", "multi_gate": True}, "vit_moe has one router that knows no task"),
        ({"backbone": "resnet18", "moe_experts": 4}, "moe_experts is not for the backbone resnet18"),
        ({"backbone": "resnet18", "head": "up"}, "the head up sees the tokens"),
        ({"backbone": "resnet18", "output_stride": 4}, "output_stride is 8, 16 or 32"),
        ({"backbone": "hrnet18", "output_stride": 8}, "output_stride is not for the backbone hrnet18"),
        ({"backbone": "hrnet18", "head_width": 8}, "head_width is not for the backbone hrnet18 with the head hrnet"),
        ({"backbone": "hrnet18", "model": "mtan"}, "mtan mixes the stages of resnet18 or resnet50"),
        ({"backbone": "resnet18", "model": "mti_net"}, "mti_net needs the four maps of an hrnet"),
        ({"model": "pad_net"}, "m3vit makes tokens for each task"),
        ({"backbone_width": 4}, "backbone_width is not for the backbone m3vit"),
        ({"multi_gate": True, "gate_task_specific_dim": 4}, "belong together"),
        ({"pretrained": "/nowhere.pt"}, "/nowhere.pt: "),
        ({"backbone": "resnet18", "pretrained": "/nowhere.pt"}, "/nowhere.pt: "),
    ],
)
def test_what_cannot_be_built_is_said(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(config(**keys))


def test_deeplab_is_not_trained_on_single_pictures() -> None:
    wanted = config(**SMALL_RESNET).as_dict()
    wanted["train"] |= {"batch": 4, "accumulate": 4}
    with pytest.raises(ConfigError, match="2 pictures or more"):
        build_model(from_dict(wanted))


def test_a_checkpoint_is_loaded_without_the_file_of_pretrained_weights(tmp_path: Path) -> None:
    run = config(**SMALL_RESNET)
    net = build_model(run)
    wanted: Any = run.as_dict()
    wanted["model"]["pretrained"] = "/nowhere.pt"
    torch.save({"config": wanted, "model": net.state_dict()}, tmp_path / "best.pt")
    found, loaded = load_checkpoint(tmp_path / "best.pt")
    assert found.tasks == run.tasks
    image = picture(0, HEIGHT, WIDTH)
    torch.testing.assert_close(loaded(image), net.eval()(image))
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "empty.pt")
