"""The one place where the `model` of a configuration becomes a network.

| key | values |
|---|---|
| setup | multi_task; single_task: a network for each task |
| backbone | m3vit, vit_moe (one router for all tasks), vit (dense), resnet18, resnet50, hrnet18, hrnet18_small |
| model | baseline (a backbone, a head per task), cross_stitch, nddr_cnn, mtan, pad_net, mti_net |
| head | up (M3ViT's), deeplab, hrnet |
| preset | of m3vit, vit_moe and vit: a row of model.PRESETS, of which other keys replace fields |
| fields of M3ViTConfig, SWITCHES, multi_gate | of m3vit, vit_moe and vit; multi_gate: false, m3vit has one router |
| output_stride | of ResNets: 8, 16 or 32 |
| backbone_width | of ResNets (64) and HRNets (18): channels of the largest map |
| head_width | of up, deeplab and pad_net (256) |
| pretrained | a file of weights for the backbone |
| backbone_random_init | true: only the position embeddings are taken from it (a convolutional backbone: nothing) |
| pos_emb_from_pretrained | false: the position embeddings are not |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from torch import nn

from m3vit.config import Config, ConfigError, check_type
from m3vit.model import PRESETS, M3ViT, M3ViTConfig
from m3vit.pretrained import load_pretrained
from m3vit.tasks import Task

CHOICES = {
    "setup": ("multi_task", "single_task"),
    "backbone": ("m3vit", "vit_moe", "vit", "resnet18", "resnet50", "hrnet18", "hrnet18_small"),
    "model": ("baseline", "cross_stitch", "nddr_cnn", "mtan", "pad_net", "mti_net"),
    "head": ("up", "deeplab", "hrnet"),
}
SWITCHES = {  # M3ViT's own name: that of the field
    "moe_gate_type": "gate",
    "moe_experts": "experts",
    "moe_top_k": "top_k",
    "moe_mlp_ratio": "expert_ratio",
    "vmoe_noisy_std": "noise_std",
}
WEIGHTS = {"pretrained": str, "backbone_random_init": bool, "pos_emb_from_pretrained": bool}
CONVOLUTIONAL = {"output_stride": int, "backbone_width": int}
TRANSFORMERS = ("m3vit", "vit_moe", "vit")
OF_THE_DATA = ("height", "width", "tasks")  # fields that the configuration has elsewhere
FIELDS = {name: kind for name, kind in get_type_hints(M3ViTConfig).items() if name not in (*OF_THE_DATA, "decoder")}
OF_EXPERTS = (
    *SWITCHES, *SWITCHES.values(), "multi_gate", "routing", "gate_task_specific_dim", "task_one_hot",
    "gate_input_ahead", "regu_experts_fromtask", "num_experts_pertask", "expert_prune", "prune_threshold",
)  # fmt: skip
TYPES: dict[str, Any] = {
    **dict.fromkeys((*CHOICES, "preset"), str),
    **{switch: FIELDS[field] for switch, field in SWITCHES.items()},
    **FIELDS,
    **CONVOLUTIONAL,
    **WEIGHTS,
    "multi_gate": bool,
}


def build_model(config: Config, pretrained: bool = True) -> nn.Module:
    """A network with `tasks`, forward(image) -> predictions by task, and auxiliary_loss().

    pretrained: read the file of weights, if the configuration names one.
    """
    options = checked(config.model) | ({} if pretrained else {"pretrained": ""})
    if options["head"] == "deeplab" and config.train.batch // config.train.accumulate < 2:
        raise ConfigError(
            "model: the head deeplab normalises means over maps, which takes passes of 2 pictures or more"
        )
    try:
        if options["setup"] == "single_task" and len(config.tasks) > 1:
            from m3vit.baselines import SingleTasks

            return SingleTasks(config.task_list, lambda task: network(config, options, [task]))
        return network(config, options, config.task_list)
    except (ValueError, OSError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"model: {error}") from error


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `model` with their choices made, and only keys that mean something together."""
    if unknown := sorted(set(given) - set(TYPES)):
        raise ConfigError(f"no such key: model.{unknown[0]}; there are {', '.join(sorted(TYPES))}")
    options = {key: check_type(TYPES[key], value, f"model.{key}") for key, value in given.items()}
    options = {"setup": "multi_task", "backbone": "m3vit", "model": "baseline", **options}
    backbone, model = options["backbone"], options["model"]
    own_head = "up" if backbone in TRANSFORMERS else "hrnet" if "hrnet" in str(backbone) else "deeplab"
    if "head" not in options:
        options["head"] = own_head if model == "baseline" or own_head != "up" else "deeplab"
    for key, values in CHOICES.items():
        if options[key] not in values:
            raise ConfigError(f"model.{key} is one of {', '.join(values)}, not {options[key]!r}")

    def check(ok: bool, message: str) -> None:
        if not ok:
            raise ConfigError(f"model: {message}")

    head, convolutional = options["head"], backbone not in TRANSFORMERS
    check(options["setup"] == "multi_task" or model == "baseline", f"{model} is a network of several tasks")
    check(head != "up" or not convolutional, "the head up sees the tokens of m3vit, vit_moe or vit")
    check(
        backbone != "m3vit" or (model == "baseline" and head == "up"),
        "m3vit makes tokens for each task, which model baseline with the head up decodes",
    )
    check(head != "up" or model == "baseline", f"the head up is not for {model}")
    if model in ("cross_stitch", "nddr_cnn", "mtan"):
        check(backbone.startswith("resnet"), f"{model} mixes the stages of resnet18 or resnet50, not {backbone}")
    if model == "mti_net":
        check(backbone.startswith("hrnet"), f"mti_net needs the four maps of an hrnet, not {backbone}")
        check(head == "hrnet", "mti_net has the head hrnet")
    for key in given:
        if convolutional:
            ok = key not in {*FIELDS, *SWITCHES, "preset", "multi_gate", "pos_emb_from_pretrained"} - {"head_width"}
            ok = ok and (key != "output_stride" or backbone.startswith("resnet"))
            ok = ok and (key != "head_width" or head != "hrnet" or model == "pad_net")
        else:
            ok = key not in CONVOLUTIONAL and (backbone != "vit" or key not in OF_EXPERTS)
        check(
            ok, f"{key} is not for the backbone {backbone}" + (f" with the head {head}" if key == "head_width" else "")
        )
    check(options.get("output_stride", 8) in (8, 16, 32), "output_stride is 8, 16 or 32")
    check(options.get("backbone_width", 1) >= 1, "backbone_width must be at least 1")
    for switch, field in SWITCHES.items():
        check(switch not in given or field not in given, f"{switch} and {field} are the same")
    check("multi_gate" not in given or "routing" not in given, "multi_gate and routing are the same")
    return options


def network(config: Config, options: Mapping[str, Any], tasks: Sequence[Task]) -> nn.Module:
    """One network for the tasks; weights from the file, if there is one."""
    if options["head"] == "up":
        net = M3ViT(transformer(config, options, tasks))
        read_weights(net, options)
        return net
    from m3vit import baselines, heads
    from m3vit.backbones import Backbone

    first: Backbone = make_backbone(config, options, tasks)
    ready = [first]

    def backbone() -> Backbone:
        return ready.pop() if ready else make_backbone(config, options, tasks)

    width = options.get("head_width", 256)

    def head(task: Task) -> nn.Module:
        if options["head"] == "hrnet":
            return heads.HRNetHead(first.channels, task.channels)
        return heads.DeepLabHead(first.channels, task.channels, first.strides[0], width)

    match options["model"]:
        case "cross_stitch":
            return baselines.CrossStitch(tasks, backbone, head)
        case "nddr_cnn":
            return baselines.NDDRCNN(tasks, backbone, head)
        case "mtan":
            return baselines.MTAN(tasks, first, head)
        case "pad_net":
            return baselines.PADNet(tasks, first, width)
        case "mti_net":
            return baselines.MTINet(tasks, first)
    return baselines.SharedBackbone(tasks, first, head)


def make_backbone(config: Config, options: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
    from m3vit import backbones

    name = options["backbone"]
    net: Any
    if name in TRANSFORMERS:
        net = backbones.ViT(transformer(config, options, tasks))
    elif name.startswith("resnet"):
        depth = int(name.removeprefix("resnet"))
        net = backbones.ResNet(depth, options.get("output_stride", 8), options.get("backbone_width", 64))
    else:
        modules, blocks = ((1, 3, 2), 2) if name == "hrnet18_small" else ((1, 4, 3), 4)
        net = backbones.HRNet(options.get("backbone_width", 18), modules, blocks)
    read_weights(net, options)
    return net


def transformer(config: Config, options: Mapping[str, Any], tasks: Sequence[Task]) -> M3ViTConfig:
    preset = options.get("preset", "nano")
    if preset not in PRESETS:
        raise ConfigError(f"model.preset is one of {', '.join(PRESETS)}, not {preset!r}")
    known = {f.name for f in fields(M3ViTConfig)}
    given = {SWITCHES.get(key, key): value for key, value in options.items()}
    values = {key: value for key, value in given.items() if key in known}
    told = values.get("gate_task_specific_dim", -1) > 0 or values.get("task_one_hot", False)
    if options["backbone"] == "vit":
        values |= {"experts": 0, "routing": "shared"}
    elif options["backbone"] == "vit_moe":
        if options.get("multi_gate") or told or values.get("routing", "shared") != "shared":
            raise ConfigError("model: vit_moe has one router that knows no task; the backbone is m3vit")
        values["routing"] = "shared"
    elif "routing" not in values:
        multi = options.get("multi_gate", not told)
        values["routing"] = "multi" if multi else "conditioned" if told else "shared"
    decoder = "up" if options["head"] == "up" else "none"
    size = {"height": config.data.height, "width": config.data.width}
    return M3ViTConfig.preset(preset, **size, tasks=tuple(tasks), decoder=decoder, **values)


def read_weights(net: nn.Module, options: Mapping[str, Any]) -> None:
    """From the file that `pretrained` names, if it does, into a backbone or an M3ViT's."""
    path = options.get("pretrained", "")
    anew = options.get("backbone_random_init", False)
    if not path:
        return
    if options["backbone"] in TRANSFORMERS:
        vit = net if isinstance(net, M3ViT) else net.net
        assert isinstance(vit, M3ViT)
        print(load_pretrained(vit, path, options.get("pos_emb_from_pretrained", True), anew), flush=True)
    elif not anew:
        from m3vit import backbones

        assert isinstance(net, backbones.ResNet | backbones.HRNet)
        backbones.load_pretrained(net, path)
