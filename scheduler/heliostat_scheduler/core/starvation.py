"""The deadline after which a job that has never run gets its turn, whatever its class.

A starved job goes first, takes free GPUs before anybody, and may displace preemptible work of any class in its own queue, and work that
other queues hold above their quota. Minimum runtimes still hold, cooldowns do not. Once started it is left alone for a while, so that
its turn is worth something. So it starts within the deadline, plus the longest minimum runtime, plus a grace period, as long as what it
needs is held by work that may be asked at all. What may not be asked has to end first; nobody like it starts in its place meanwhile
(`reservation`, `turn`). `promise_of` is what `explain` states.
"""

from __future__ import annotations

from heliostat_scheduler.core.book import HOLDING, JobRec
from heliostat_scheduler.core.model import JobSpec, Policy


def deadline_ms(spec: JobSpec, policy: Policy) -> int | None:
    """When the job counts as starved; None where there is no deadline for its class."""
    wait = dict(policy.starvation_by_class).get(spec.priority, policy.starvation_ms)
    return spec.submitted_at_ms + wait if wait > 0 else None


def is_starved(rec: JobRec, policy: Policy, now_ms: int) -> bool:
    due = deadline_ms(rec.spec, policy)
    return due is not None and rec.attempt == 0 and rec.phase not in HOLDING and now_ms >= due


def next_starvation_ms(rec: JobRec, policy: Policy, now_ms: int) -> int | None:
    """When the job will be starved if it still waits, or None when it never will be or is already."""
    due = deadline_ms(rec.spec, policy)
    return due if due is not None and rec.attempt == 0 and due > now_ms else None
