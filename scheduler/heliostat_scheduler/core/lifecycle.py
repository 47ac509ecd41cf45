"""Job states and the table of legal moves.

The table is the law: every part that changes a job's state (engine, store, front doors) asks `check_move` first, and the
diagram in the docs is generated from it by `mermaid`. A move that is not in the table is a programming error, so it raises
and names the job, both states and the job's story so far. Transitional states carry a deadline: the control plane moves a
job on when the deadline passes, so that no job stays "starting" for ever.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    HELD = "held"
    ADMITTED = "admitted"
    STARTING = "starting"
    RUNNING = "running"
    RESIZING = "resizing"
    PREEMPTING = "preempting"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


S = JobState

TERMINAL: frozenset[JobState] = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED, S.TIMED_OUT})
WAITING: frozenset[JobState] = frozenset({S.QUEUED, S.HELD})
LIVE: frozenset[JobState] = frozenset(JobState) - TERMINAL

MOVES: dict[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset({S.ADMITTED, S.HELD, S.CANCELLING, S.CANCELLED, S.TIMED_OUT, S.FAILED}),
    S.HELD: frozenset({S.QUEUED, S.CANCELLING, S.CANCELLED, S.TIMED_OUT}),
    S.ADMITTED: frozenset({S.STARTING, S.QUEUED, S.CANCELLING}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED, S.FAILED, S.PREEMPTING, S.CANCELLING}),
    S.RUNNING: frozenset({S.SUCCEEDED, S.FAILED, S.TIMED_OUT, S.PREEMPTING, S.RESIZING, S.CANCELLING, S.QUEUED}),
    S.RESIZING: frozenset({S.RUNNING, S.PREEMPTING, S.FAILED, S.SUCCEEDED, S.CANCELLING, S.QUEUED}),
    S.PREEMPTING: frozenset({S.QUEUED, S.SUCCEEDED, S.FAILED, S.CANCELLING}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.TIMED_OUT: frozenset(),
}

DEADLINES_MS: dict[JobState, int] = {
    S.ADMITTED: 60_000,
    S.STARTING: 900_000,
    S.PREEMPTING: 120_000,
    S.RESIZING: 300_000,
    S.CANCELLING: 60_000,
}
"""How long a transitional state may last, milliseconds, before the control plane ends it the hard way."""

RAY_STATUS: dict[JobState, str] = {
    S.QUEUED: "PENDING",
    S.HELD: "PENDING",
    S.ADMITTED: "PENDING",
    S.STARTING: "PENDING",
    S.RUNNING: "RUNNING",
    S.RESIZING: "RUNNING",
    S.PREEMPTING: "RUNNING",
    S.CANCELLING: "RUNNING",
    S.SUCCEEDED: "SUCCEEDED",
    S.FAILED: "FAILED",
    S.CANCELLED: "STOPPED",
    S.TIMED_OUT: "FAILED",
}
"""What Ray's clients are shown. After the first run a requeued job is shown as RUNNING (see `ray_status`)."""


class IllegalMove(Exception):
    """A job was asked to make a move that the table does not know."""


def check_move(job_id: str, old: JobState, new: JobState, story: str = "") -> None:
    """Raise `IllegalMove` unless `old -> new` is in the table."""
    if new not in MOVES[old]:
        told = f" Its story: {story}" if story else ""
        raise IllegalMove(f"job {job_id} cannot move from {old} to {new}.{told}")


def ray_status(state: JobState, attempts_run: int) -> str:
    """The status that Ray's own clients see: PENDING before the first run, RUNNING from then on until a terminal state."""
    if attempts_run > 0 and state not in TERMINAL:
        return "RUNNING"
    return RAY_STATUS[state]


def mermaid() -> str:
    """The state diagram of the docs, one line per move, in table order."""
    lines = ["stateDiagram-v2", "  [*] --> queued"]
    lines += [f"  {old} --> {new}" for old in JobState for new in JobState if new in MOVES[old]]
    lines += [f"  {end} --> [*]" for end in JobState if end in TERMINAL]
    return "\n".join(lines)
