"""What a run tells the lease board: steps, numbers, checkpoints, and which rank runs where.

Train calls `after_report` in the controller once all ranks have reported the same round, after the checkpoint of the round
was committed. A script that names no `step` has its reports counted. The controller also counts here whether a checkpoint came since an order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pyarrow.fs

from heliostat_jobs.train.facts import Facts, Pace, numbers_of
from heliostat_jobs.train.ray_train_private import ReportCallback

logger = logging.getLogger(__name__)


def size_of(checkpoint: Any) -> int | None:  # Any: ray.train.Checkpoint
    """Bytes of a checkpoint, as its file system lists them; None when it cannot be listed, which is no reason to fail a run."""
    selector = pyarrow.fs.FileSelector(checkpoint.path, recursive=True)
    try:
        infos = checkpoint.filesystem.get_file_info(selector)
    except OSError as error:
        logger.warning("checkpoint %s cannot be listed (%s); its size is unknown", checkpoint.path, error)
        return None
    return sum(info.size or 0 for info in infos if info.type == pyarrow.fs.FileType.File)


class Progress(ReportCallback):  # type: ignore[misc]  # Ray is untyped here
    """Counts reports and checkpoints of the run and passes them on through `tell` once the controller has set it."""

    def __init__(self) -> None:
        self.reports = 0
        self.checkpoints = 0
        self.checkpoint: Facts = {}
        self.tell: Callable[[Facts], None] | None = None
        self._pace = Pace()

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        self.reports += 1
        facts: Facts = {"step": self.reports, **numbers_of(training_report.metrics), "world_size": len(metrics)}
        pace = self._pace.per_second(int(facts["step"]), time.monotonic())
        if pace is not None:
            facts["steps_per_s"] = pace
        if training_report.checkpoint is not None:
            self.checkpoints += 1
            self.checkpoint = {
                "checkpoint": training_report.checkpoint.path,
                "checkpoint_at_ms": int(time.time() * 1000),
                "checkpoint_bytes": size_of(training_report.checkpoint),
            }
            facts |= self.checkpoint
        elif self.checkpoint:
            facts["checkpoint_at_ms"] = self.checkpoint["checkpoint_at_ms"]  # the board keeps the last words only
        if self.tell is not None:
            self.tell(facts)
