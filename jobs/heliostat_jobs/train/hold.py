"""In the workers: what an order means to the thread that trains.

The script reports the checkpoint that an order asked for and stays inside `report()`. Its loop would go on meanwhile, and its next
incarnation would do those steps again. From there it either ends with its process, or leaves: `report()` raises LeaveTraining, the old
loop unwinds, and the same process runs the train function again in the next group (leave.py).

The ranks that attached the checkpoint wait until they are told, and say in their status which report it was. The others wait there too,
if their script has seen the order (`get_preemption_info()` gives every rank the same answer in the same step), but only a moment:
their script may report twice. Elsewhere a rank that is told to leave does so at its next word to Ray Train, or when a collective breaks.

Always true: a rank that says `held` runs no step until it leaves or the order's deadline is past. An order that is taken back lets go then.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from heliostat_jobs.train.ray_train_private import (
    FAILURE_LOGGER,
    DistributedTrainFnUtils,
    PreemptionInfo,
    WorkerCallback,
    get_train_context,
    set_train_fn_utils,
)
from heliostat_jobs.train.visible import keep_visible_devices

GRACE_S = 5.0
LOOK_EVERY_S = 0.02
WORD_S = 2.0
"""How long a rank without a checkpoint waits for the word to leave. It comes some 50 ms after the checkpoint is committed."""


@dataclass(frozen=True)
class OrderInfo(PreemptionInfo):  # type: ignore[misc]  # Ray is untyped here
    """The mark of one of our orders, which scripts read with `ray.train.get_preemption_info()`; Ray's own marks have no epoch.

    held: as a worker's status echoes it, the number (from 1, in this group) of the report with whose checkpoint the rank holds.
    """

    epoch: int = 0
    held: int = 0


class LeaveTraining(BaseException):
    """Ends the old training loop in a process that is kept. Not an Exception: scripts catch those."""


class ObedientTrainFnUtils(DistributedTrainFnUtils):  # type: ignore[misc]
    """What `ray.train.report` and `ray.train.get_preemption_info` call in a worker."""

    def __init__(self) -> None:
        self.leaving = threading.Event()
        self._has_seen_order = False
        self._first_report = get_train_context().report_call_index

    def get_preemption_info(self) -> Any:  # Any: PreemptionInfo, untyped there
        self._leave_if_told()
        info = super().get_preemption_info()
        self._has_seen_order = isinstance(info, OrderInfo)
        return info

    def report(self, metrics: dict[str, Any], checkpoint: Any = None, *args: Any, **kwargs: Any) -> None:
        self._leave_if_told()
        super().report(metrics, checkpoint, *args, **kwargs)
        if self._order() is not None:
            if checkpoint is not None:
                self._hold()
            elif self._has_seen_order and self.leaving.wait(WORD_S):
                self._leave_if_told()

    def _hold(self) -> None:
        while (info := self._order()) is not None and time.time() < (info.deadline_ms or 0) / 1000 + GRACE_S:
            context = get_train_context()
            if not info.held:  # also after a later order has replaced this one
                held = context.report_call_index - self._first_report
                context.preemption_context.preemption_info = dataclasses.replace(info, held=held)
            if self.leaving.wait(LOOK_EVERY_S):
                break
        self._leave_if_told()

    def _order(self) -> OrderInfo | None:
        info = get_train_context().preemption_context.preemption_info
        return info if isinstance(info, OrderInfo) else None

    def _leave_if_told(self) -> None:
        if self.leaving.is_set():
            raise LeaveTraining("The worker group changes its size; the train function runs again in this process.")


def _is_news(record: logging.LogRecord) -> bool:
    """Not what Ray Train logs when our own exception has ended a training thread: to a reader it looks like a failure."""
    return not isinstance(sys.exc_info()[1], LeaveTraining)


class Obedience(WorkerCallback):  # type: ignore[misc]
    """Puts the above in place whenever a worker joins a group."""

    def after_init_train_context(self) -> None:
        logging.getLogger(FAILURE_LOGGER).addFilter(_is_news)  # the same filter is added only once
        keep_visible_devices()
        set_train_fn_utils(ObedientTrainFnUtils())
