"""The package in training/, which the generators use without its being installed."""

import sys
from pathlib import Path

TRAINING = Path(__file__).resolve().parents[2] / "training"
sys.path.insert(0, str(TRAINING))

from m3vit import export, lower, model  # noqa: E402
from m3vit.tasks import MEAN, STD, TASK_SETS  # noqa: E402
from m3vit.tasks import tasks as task_set  # noqa: E402

__all__ = ["MEAN", "STD", "TASK_SETS", "TRAINING", "export", "lower", "model", "task_set"]
