"""The networks that M3ViT is compared with, after their papers and Multi-Task-Learning-PyTorch's way to build them.

Each is a module with `tasks`, forward(image [B, 3, H, W]) -> predictions [B, channels, H, W] by task, and
auxiliary_loss(). In training, PAD-Net and MTI-Net give their early predictions too, as NAME@WHERE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from m3vit.backbones import (
    Backbone,
    HRNet,
    ResNet,
    ResNetBasicLayer,
    ResNetBottleNeckLayer,
    add,
    conv_bn,
    resize,
)
from m3vit.heads import HRNetHead, join
from m3vit.model import M3ViT
from m3vit.tasks import Task

Features = dict[str, Tensor]  # by task, all of one shape [B, C, H, W]
MakeBackbone = Callable[[], Backbone]
MakeHead = Callable[[Task], nn.Module]  # from a backbone's maps to a prediction of their size


class Network(nn.Module):
    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @property
    def names(self) -> list[str]:
        return [task.name for task in self.tasks]

    def auxiliary_loss(self) -> Tensor:
        """The experts' balance, where the backbone has experts; else 0."""
        return add([torch.zeros(()), *(m.auxiliary_loss() for m in self.modules() if isinstance(m, M3ViT))])


# --------------------------------------------------------------------------------------
# One network, or one per task


class SharedBackbone(Network):
    """One backbone, a head per task. With one task: the single-task network."""

    def __init__(self, tasks: Sequence[Task], backbone: Backbone, head: MakeHead) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        self.heads = nn.ModuleDict({task.name: head(task) for task in tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(image)
        return {name: resize(head(maps), image.shape[-2:]) for name, head in self.heads.items()}


class SingleTasks(Network):
    """A network for each task, which have nothing in common but the picture."""

    def __init__(self, tasks: Sequence[Task], make: Callable[[Task], nn.Module]) -> None:
        super().__init__(tasks)
        self.networks = nn.ModuleDict({task.name: make(task) for task in tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {key: x for network in self.networks.values() for key, x in network(image).items()}


# --------------------------------------------------------------------------------------
# Cross-Stitch and NDDR-CNN: a network per task, whose maps are mixed


class Columns(Network):
    """A ResNet and a head per task; after the stages from number `first` on, a unit mixes the tasks' maps."""

    def __init__(
        self,
        tasks: Sequence[Task],
        backbone: MakeBackbone,
        head: MakeHead,
        unit: Callable[[int, int], nn.Module],
        first: int,
    ) -> None:
        super().__init__(tasks)
        columns = [backbone() for _ in tasks]
        assert isinstance(columns[0], ResNet), "its maps are mixed stage by stage"
        channels = columns[0].stage_channels
        self.backbones = nn.ModuleDict(dict(zip(self.names, columns, strict=True)))
        self.heads = nn.ModuleDict({task.name: head(task) for task in tasks})
        self.units = nn.ModuleList(
            unit(len(tasks), c) if number >= first else nn.Identity() for number, c in enumerate(channels)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = [image for _ in self.tasks]
        columns = [b.stages for b in self.backbones.values() if isinstance(b, ResNet)]
        for number, unit in enumerate(self.units):
            maps = unit([stages[number](x) for stages, x in zip(columns, maps, strict=True)])
        return {
            name: resize(head([x]), image.shape[-2:]) for (name, head), x in zip(self.heads.items(), maps, strict=True)
        }

    def unit_parameters(self) -> list[nn.Parameter]:
        """What the papers train at 100 times the learning rate."""
        return list(self.units.parameters())


def shares(count: int, own: float) -> Tensor:
    """[count, count]: each task's share of itself, and of the others alike; a row sums to 1."""
    other = (1 - own) / max(1, count - 1)
    return torch.full((count, count), other).fill_diagonal_(own if count > 1 else 1.0)


class StitchUnit(nn.Module):
    """Each task's map becomes a weighted sum of all tasks' maps, with weights per channel."""

    def __init__(self, count: int, channels: int, own: float = 0.9) -> None:
        super().__init__()
        self.weight = nn.Parameter(shares(count, own)[:, :, None, None, None].repeat(1, 1, channels, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [add(w * x for w, x in zip(row, maps, strict=True)) for row in self.weight]


class NDDRUnit(nn.Module):
    """Each task's map becomes a 1x1 convolution of all tasks' maps, normalised: at first a weighted sum."""

    def __init__(self, count: int, channels: int, own: float = 0.9) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for row in shares(count, own):
            conv = nn.Conv2d(count * channels, channels, 1, bias=False)
            with torch.no_grad():
                conv.weight.copy_(torch.cat([share * torch.eye(channels) for share in row], 1)[:, :, None, None])
            self.layers.append(nn.Sequential(conv, nn.BatchNorm2d(channels, momentum=0.05), nn.ReLU()))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        joined = torch.cat(list(maps), 1)
        return [layer(joined) for layer in self.layers]


class CrossStitch(Columns):
    """Misra et al., 2016, https://arxiv.org/abs/1604.03539: units after the four stages."""

    def __init__(self, tasks: Sequence[Task], backbone: MakeBackbone, head: MakeHead) -> None:
        super().__init__(tasks, backbone, head, StitchUnit, first=1)


class NDDRCNN(Columns):
    """Gao et al., 2019, https://arxiv.org/abs/1801.08297: units after the stem and the four stages."""

    def __init__(self, tasks: Sequence[Task], backbone: MakeBackbone, head: MakeHead) -> None:
        super().__init__(tasks, backbone, head, NDDRUnit, first=0)


# --------------------------------------------------------------------------------------
# MTAN


class MTAN(Network):
    """Liu et al., 2019, https://arxiv.org/abs/1803.10704: a shared ResNet, from whose stages each task picks.

    A task's mask of a stage comes from what the stage's last layer sees and what the task picked before; it
    multiplies what that layer gives. The picked map is refined, by layers that all tasks share, to the next
    stage's shape.
    """

    def __init__(self, tasks: Sequence[Task], backbone: Backbone, head: MakeHead) -> None:
        super().__init__(tasks)
        assert isinstance(backbone, ResNet), "its stages' last layers are attended to"
        self.backbone = backbone
        channels, strides = backbone.stage_channels[1:], backbone.stage_strides[1:]
        self.attention = nn.ModuleList(
            Attention(
                self.names,
                c,
                first=i == 0,
                next_channels=channels[i + 1] if i < 3 else 0,
                halve=i < 3 and strides[i + 1] > strides[i],
            )
            for i, c in enumerate(channels)
        )
        self.heads = nn.ModuleDict({task.name: head(task) for task in tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.backbone.stages[0](image)
        picked: Features = {}
        for number, attention in enumerate(self.attention, 1):
            before, x = self.backbone.around_last(number, x)
            picked = attention(before, x, picked)
        return {name: resize(head([picked[name]]), image.shape[-2:]) for name, head in self.heads.items()}


class Attention(nn.Module):
    """All tasks' attention at one stage."""

    def __init__(self, names: Sequence[str], channels: int, first: bool, next_channels: int, halve: bool) -> None:
        super().__init__()
        seen, middle = channels * (1 if first else 2), max(1, channels // 4)
        self.masks = nn.ModuleDict(
            {
                name: nn.Sequential(conv_bn(seen, middle, 1), conv_bn(middle, channels, 1, relu=False), nn.Sigmoid())
                for name in names
            }
        )
        self.refine = ResNetBottleNeckLayer(channels, next_channels) if next_channels else nn.Identity()
        self.halve = nn.MaxPool2d(2, ceil_mode=True) if halve else nn.Identity()

    def forward(self, before: Tensor, after: Tensor, picked: Features) -> Features:
        """before, after: [B, C, H, W] around the stage's last layer. picked: the previous stage's, in this shape."""
        out = {}
        for name, mask in self.masks.items():
            seen = torch.cat([before, picked[name]], 1) if picked else before
            out[name] = self.halve(self.refine(mask(seen) * after))
        return out


# --------------------------------------------------------------------------------------
# PAD-Net


class PADNet(Network):
    """Xu et al., 2018, https://arxiv.org/abs/1805.04409: early predictions, whose features then help each other."""

    def __init__(self, tasks: Sequence[Task], backbone: Backbone, width: int = 256) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        total = sum(backbone.channels)
        self.refine = nn.ModuleDict({name: _bottlenecks(total, width) for name in self.names})
        self.early = nn.ModuleDict({task.name: nn.Conv2d(width, task.channels, 1) for task in tasks})
        self.distil = Distillation(self.names, width)
        self.heads = nn.ModuleDict(
            {task.name: nn.Sequential(_bottlenecks(width, width), nn.Conv2d(width, task.channels, 1)) for task in tasks}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = join(self.backbone(image))
        features = {name: refine(x) for name, refine in self.refine.items()}
        distilled = self.distil(features)
        out = {name: resize(head(distilled[name]), image.shape[-2:]) for name, head in self.heads.items()}
        if self.training:
            out |= {f"{name}@initial": early(features[name]) for name, early in self.early.items()}
        return out


def _bottlenecks(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(ResNetBottleNeckLayer(inputs, outputs), ResNetBottleNeckLayer(outputs, outputs))


class Distillation(nn.Module):
    """Adds to each task's features what spatial attention lets through of the others'."""

    def __init__(self, names: Sequence[str], channels: int) -> None:
        super().__init__()
        self.messages = nn.ModuleDict(
            {to: nn.ModuleDict({of: Gated(channels) for of in names if of != to}) for to in names}
        )

    def forward(self, features: Features) -> Features:
        out = {}
        for to, messages in self.messages.items():
            assert isinstance(messages, nn.ModuleDict)
            x = features[to]
            for of, message in messages.items():
                x = x + message(features[of])
            out[to] = x
        return out


class Gated(nn.Module):
    """conv(x) sigmoid(conv(x)), 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gate(x).sigmoid()


# --------------------------------------------------------------------------------------
# MTI-Net


class MTINet(Network):
    """Vandenhende et al., 2020, https://arxiv.org/abs/2001.06902: predictions and distillation at HRNet's four scales.

    From the smallest scale up, each task's features go on to the next scale (Propagation), where they join the
    backbone's map; at every scale the tasks' features help each other; a task's head sees its features of all scales.
    """

    def __init__(self, tasks: Sequence[Task], backbone: Backbone) -> None:
        super().__init__(tasks)
        assert isinstance(backbone, HRNet), "it needs maps of four scales"
        self.backbone = backbone
        channels = backbone.channels
        coming = (*channels[1:], 0)  # from the next smaller scale
        self.scales = nn.ModuleList(Scale(tasks, c + more, c) for c, more in zip(channels, coming, strict=True))
        self.propagate = nn.ModuleList(Propagation(self.names, c) for c in channels[1:])
        self.distil = nn.ModuleList(Distillation(self.names, c) for c in channels)
        self.heads = nn.ModuleDict({task.name: HRNetHead(channels, task.channels) for task in tasks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(image)
        features: list[Features] = []  # the smallest scale first
        early: dict[str, Tensor] = {}
        for number in reversed(range(len(maps))):
            x, scale = maps[number], self.scales[number]
            above = self.propagate[number](features[-1]) if features else {}
            features.append(scale(x, above))
            if self.training:
                assert isinstance(scale, Scale)
                at = f"1/{self.backbone.strides[number]}"
                early |= {f"{name}@{at}": y for name, y in scale.predictions(features[-1]).items()}
        distilled = [distil(x) for distil, x in zip(self.distil, reversed(features), strict=True)]
        out = {
            name: resize(head([scale[name] for scale in distilled]), image.shape[-2:])
            for name, head in self.heads.items()
        }
        return out | early


class Scale(nn.Module):
    """Features and an early prediction of every task at one scale."""

    def __init__(self, tasks: Sequence[Task], inputs: int, channels: int) -> None:
        super().__init__()
        self.refine = nn.ModuleDict(
            {
                task.name: nn.Sequential(ResNetBasicLayer(inputs, channels), ResNetBasicLayer(channels, channels))
                for task in tasks
            }
        )
        self.predict = nn.ModuleDict({task.name: nn.Conv2d(channels, task.channels, 1) for task in tasks})

    def forward(self, x: Tensor, above: Mapping[str, Tensor]) -> Features:
        """x: the backbone's map. above: the next smaller scale's features, none at the smallest."""
        if not above:
            return {name: refine(x) for name, refine in self.refine.items()}
        return {name: refine(join([x, above[name]])) for name, refine in self.refine.items()}

    def predictions(self, features: Features) -> dict[str, Tensor]:
        return {name: predict(features[name]) for name, predict in self.predict.items()}


class Propagation(nn.Module):
    """What a scale hands to the next larger one: each task's features, and what it takes of all tasks'.

    A softmax over tasks weighs their features, a residual layer makes of them as many channels as a task has, and
    squeeze and excitation picks from those for each task.
    """

    def __init__(self, names: Sequence[str], channels: int) -> None:
        super().__init__()
        self.count = len(names)
        wide = self.count * channels
        narrow = max(1, wide // 4)
        self.weigh = nn.Sequential(
            ResNetBasicLayer(wide, narrow), ResNetBasicLayer(narrow, narrow), nn.Conv2d(narrow, wide, 1)
        )
        self.reduce = ResNetBasicLayer(wide, channels)
        self.excite = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(channels, max(1, channels // 16), 1),
                    nn.ReLU(),
                    nn.Conv2d(max(1, channels // 16), channels, 1),
                    nn.Sigmoid(),
                )
                for name in names
            }
        )

    def forward(self, features: Features) -> Features:
        every = torch.cat(list(features.values()), 1)
        shape = (every.shape[0], self.count, -1)  # pictures, tasks, all else
        weights = self.weigh(every).view(shape).softmax(1)
        shared = self.reduce((weights * every.view(shape)).view_as(every))
        mean = shared.mean((2, 3), keepdim=True)
        return {name: features[name] + excite(mean) * shared for name, excite in self.excite.items()}
