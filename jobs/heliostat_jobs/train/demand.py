"""Discovered demand: a program says what it can run on; one that declared nothing does so at its first `fit()` and waits for the lease.

The wait is one long poll on the lease board, so it costs nothing. The scheduler answers with a lease that has slots, or with STOP and
the reason why it never can. An order to let go while nothing is held yet is acked at once. A program that holds its lease already
tells its range all the same: a declared range of 1 to 4 whose script wants exactly 2 is rigid, and the scheduler should know.
"""

from __future__ import annotations

import logging
from typing import Protocol

from heliostat_scheduler.live.protocol import DEMAND, PREEMPT, RELEASED, STOP, Lease

from heliostat_jobs.errors import DemandRefused
from heliostat_jobs.train.facts import Facts

logger = logging.getLogger(__name__)

LONG_POLL_S = 20.0


class Board(Protocol):
    """The blocking lease client of heliostat_scheduler.live.board."""

    def wait(self, known_epoch: int, timeout_s: float) -> Lease: ...
    def ack(self, epoch: int, what: str, facts: Facts | None = None) -> None: ...


def wait_for_gpus(board: Board, lease: Lease, fewest: int, most: int, by: str) -> Lease:
    """Ask for `fewest` to `most` GPUs and return the lease that has them. Raises DemandRefused when it will never come."""
    facts = demand_facts(fewest, most, by)
    board.ack(lease.epoch, DEMAND, facts)
    text = facts["text"]
    logger.info("%s: the job waits for its lease", text)
    while not lease.slots:
        seen = lease.epoch
        lease = board.wait(seen, LONG_POLL_S)
        if lease.epoch == seen or lease.slots:
            continue
        if lease.order == STOP and lease.why:
            raise DemandRefused(
                f"{text}, and the scheduler refused: {lease.why}", "Ask for less, or for another queue."
            )
        if lease.order in (PREEMPT, STOP):
            board.ack(lease.epoch, RELEASED, {"how": "idle", "forced": False})
    return lease


def demand_facts(fewest: int, most: int, by: str) -> Facts:
    """What a DEMAND ack says."""
    text = f"{by} needs {fewest} GPUs" if fewest == most else f"{by} needs {fewest} to {most} GPUs"
    return {"min_gpus": fewest, "max_gpus": most, "gpus_per_task": 1, "by": by, "text": text}
