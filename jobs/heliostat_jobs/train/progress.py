"""What a run tells the lease board: steps, numbers, checkpoints, and which rank runs where.

Train calls `after_report` in the controller once all ranks have reported the same round, after the checkpoint of the round
was committed. The controller also counts here whether a checkpoint came since an order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.fs

from heliostat_jobs.train.ray_train_private import ReportCallback

MAX_NUMBERS = 32
Facts = dict[str, Any]  # Any: JSON


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:  # Any: users report what they like
    """The finite numbers among reported metrics, at most MAX_NUMBERS of them, in the user's order."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        found[str(name)] = value
        if len(found) == MAX_NUMBERS:
            break
    return found


def size_of(checkpoint: Any) -> int:  # Any: ray.train.Checkpoint
    """Bytes of a checkpoint, as its file system lists them."""
    selector = pyarrow.fs.FileSelector(checkpoint.path, recursive=True)
    infos = checkpoint.filesystem.get_file_info(selector)
    return sum(info.size or 0 for info in infos if info.type == pyarrow.fs.FileType.File)


class Progress(ReportCallback):  # type: ignore[misc]  # Ray is untyped here
    """Counts reports and checkpoints of the run and passes them on through `tell` once the controller has set it."""

    def __init__(self) -> None:
        self.reports = 0
        self.checkpoints = 0
        self.checkpoint: Facts = {}
        self.tell: Callable[[Facts], None] | None = None

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        self.reports += 1
        facts: Facts = {**numbers_of(training_report.metrics), "world_size": len(metrics)}
        if training_report.checkpoint is not None:
            self.checkpoints += 1
            self.checkpoint = {
                "checkpoint": training_report.checkpoint.path,
                "checkpoint_at_ms": int(time.time() * 1000),
                "checkpoint_bytes": size_of(training_report.checkpoint),
            }
            facts |= self.checkpoint
        if self.tell is not None:
            self.tell(facts)
