from m3vit.model import M3ViT, M3ViTConfig


def build_model(config):
    o = dict(config.model)
    preset = o.pop("preset", "nano")
    return M3ViT(
        M3ViTConfig.preset(
            preset, height=config.data.height, width=config.data.width, tasks=config.task_list, **o
        )
    )
