"""What the end of a process means for its job. Pure: the table of every way in which an attempt can end.

A process that was told to stop ended because of that, whatever it returned. A process that nobody told to stop and that was
killed from outside, or whose holder or supervisor died, crashed: that is not the script's fault, so it is tried again (at most
`INFRASTRUCTURE_TRIES` times). Everything else is the script's own word.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.live import protocol

from heliostat.control.attempts import Attempt, Ending, Finish, Requeue
from heliostat.control.messages import DriverInfo

INFRASTRUCTURE_TRIES = 3
SIGKILL = 9
TIME_USED_UP = "The job used up its declared max_runtime."
RETRY_BASE_MS = 2_000
RETRY_MAX_MS = 60_000

INFRASTRUCTURE_ERRORS = frozenset(
    {
        "JOB_SUPERVISOR_ACTOR_DIED",
        "JOB_SUPERVISOR_ACTOR_START_FAILURE",
        "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
        "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
        "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    }
)


@dataclass(frozen=True, slots=True)
class Tries:
    """crashed: earlier attempts that crashed. allowed: retries that the job asked for on its own failures."""

    crashed: int
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """code: as a shell says it (128 + n for signal n), None when unknown. lost: whoever watched the process died."""

    code: int | None
    lost: bool = False
    text: str = ""

    @property
    def killed(self) -> bool:
        return self.lost or self.code in (128 + SIGKILL, -SIGKILL)


def of_order(attempt: Attempt) -> Ending:
    """The attempt was told to end, and has."""
    if attempt.state is JobState.CANCELLING:
        return Finish(JobState.CANCELLED)
    if attempt.timed_out:
        return Finish(JobState.TIMED_OUT, error=TIME_USED_UP)
    return Requeue("preempted")


def of_exit(attempt: Attempt, exit_: Exit, tries: Tries, now_ms: int) -> Ending:
    """A command's process has ended."""
    if attempt.order != protocol.RUN or attempt.state is JobState.CANCELLING:
        return of_order(attempt)
    if exit_.code == 0 and not exit_.lost:
        return Finish(JobState.SUCCEEDED, 0)
    text = exit_.text or f"The command ended with exit code {exit_.code}."
    return _again_or_failed(exit_.code, text, tries, infrastructure=exit_.killed, now_ms=now_ms)


def of_driver(attempt: Attempt, info: DriverInfo | None, tries: Tries, now_ms: int) -> Ending:
    """A driver has ended, or Ray does not know it any more (None)."""
    if attempt.order != protocol.RUN or attempt.state is JobState.CANCELLING:
        finished = info is not None and info.status == "SUCCEEDED" and attempt.state is JobState.PREEMPTING
        return Finish(JobState.SUCCEEDED, 0) if finished else of_order(attempt)
    if info is None:
        return _again_or_failed(None, "Ray has lost the driver.", tries, infrastructure=True, now_ms=now_ms)
    if info.status == "SUCCEEDED":
        return Finish(JobState.SUCCEEDED, 0)
    if info.status == "STOPPED":
        return Finish(JobState.FAILED, info.exit_code, "The driver was stopped past Heliostat, by Ray's own Jobs API.")
    infrastructure = info.error_type in INFRASTRUCTURE_ERRORS or Exit(info.exit_code).killed
    return _again_or_failed(info.exit_code, info.message, tries, infrastructure=infrastructure, now_ms=now_ms)


def retry_at(earlier: int, now_ms: int) -> int:
    """Doubling pauses: 2 s, 4 s, ... at most a minute."""
    return now_ms + min(RETRY_MAX_MS, RETRY_BASE_MS << min(earlier, 10))


def _again_or_failed(code: int | None, text: str, tries: Tries, *, infrastructure: bool, now_ms: int) -> Ending:
    limit = max(INFRASTRUCTURE_TRIES if infrastructure else 0, tries.allowed)
    if tries.crashed < limit:
        return Requeue("crashed", retry_at(tries.crashed, now_ms), code, text)
    times = f" It was tried {tries.crashed + 1} times." if tries.crashed else ""
    return Finish(JobState.FAILED, code, text + times)
