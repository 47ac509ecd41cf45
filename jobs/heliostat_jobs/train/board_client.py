"""Which lease client the Train processes use: the one of the live scheduler."""

from __future__ import annotations

from heliostat_scheduler.live.board import AsyncLeaseClient, LeaseClient
from heliostat_scheduler.live.protocol import Lease, LeaseGone

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.errors import LeaseLost
from heliostat_jobs.train.lease_link import BoardClient


def connect(attempt: Attempt, claim: str = "") -> BoardClient:
    """The asynchronous client of this attempt's lease, or of a claim on a part of it."""
    if claim:
        from heliostat_jobs.slots.access import slot_access
        from heliostat_jobs.slots.broker import ClaimClient

        return ClaimClient(slot_access().broker(), claim)
    return AsyncLeaseClient(attempt.job, attempt.secret)


def current_lease(attempt: Attempt) -> Lease:
    """This attempt's lease now. Waits for the board; raises LeaseLost when the attempt has none any more."""
    try:
        return LeaseClient(attempt.job, attempt.secret).get()
    except LeaseGone as error:
        raise LeaseLost(
            f"Attempt {attempt.number} of job {attempt.job} holds no lease any more ({error}).",
            "Nothing is lost: a later attempt of the job goes on from its last checkpoint.",
        ) from error
