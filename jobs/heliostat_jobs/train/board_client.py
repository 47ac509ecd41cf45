"""Which lease client the Train processes use: the one of the live scheduler."""

from __future__ import annotations

from heliostat_scheduler.live.board import AsyncLeaseClient, LeaseClient
from heliostat_scheduler.live.protocol import Lease

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.train.lease_link import BoardClient


def connect(attempt: Attempt) -> BoardClient:
    """The asynchronous client of this attempt's lease."""
    return AsyncLeaseClient(attempt.job, attempt.secret)


def current_lease(attempt: Attempt) -> Lease:
    """This attempt's lease now. Raises LeaseGone. Waits for the board."""
    return LeaseClient(attempt.job, attempt.secret).get()
