"""M3ViT: a multi-task vision transformer with mixtures of experts, and its export to ONNX."""

from m3vit.model import PRESETS, M3ViT, M3ViTConfig
from m3vit.tasks import TASK_SETS, Task

__all__ = ["PRESETS", "TASK_SETS", "M3ViT", "M3ViTConfig", "Task"]
