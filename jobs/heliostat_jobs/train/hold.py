"""In the workers: after the checkpoint that an order asked for, stay inside `report()` until the controller ends us.

Between the commit of that checkpoint and the end of the process lie some 30 ms. A loop with shorter steps would go on
meanwhile, and its next incarnation would do those steps again. Only the ranks that attached the checkpoint hold; the others
wait for them at their next collective anyway. An order that is taken back lets go after its deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from heliostat_jobs.train.ray_train_private import PreemptionInfo, TrainContextCallback, get_train_context

GRACE_S = 5.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class OrderInfo(PreemptionInfo):  # type: ignore[misc]  # Ray is untyped here
    """The mark of one of our orders, which scripts read with `ray.train.get_preemption_info()`; Ray's own marks have no epoch."""

    epoch: int = 0


class HoldAfterCheckpoint(TrainContextCallback):  # type: ignore[misc]
    """See the module's head."""

    def __init__(self) -> None:
        self._attached = False

    @contextmanager
    def on_checkpoint_transfer(self) -> Iterator[None]:
        self._attached = True
        yield

    @contextmanager
    def on_report(self) -> Iterator[None]:
        self._attached = False
        yield
        info = get_train_context().preemption_context.preemption_info
        if self._attached and isinstance(info, OrderInfo):
            until = (info.deadline_ms or 0) / 1000 + GRACE_S
            while time.time() < until:
                time.sleep(LOOK_EVERY_S)
