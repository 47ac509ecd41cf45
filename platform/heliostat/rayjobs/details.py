"""A job as Ray's clients see it: their status words, and our reason in `message`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from heliostat_scheduler.core.lifecycle import TERMINAL, WAITING, JobState, ray_status

from heliostat.control.port import ControlPort
from heliostat.forecasting.link import Eta
from heliostat.store.reasons import reason_from, sentence_of
from heliostat.store.tables import Job

NOT_RUNNING = WAITING | {JobState.ADMITTED, JobState.STARTING, JobState.PREEMPTING}


def details(row: Job, control: ControlPort) -> dict[str, Any]:  # Any: JSON
    """The keys of Ray's JobDetails."""
    return {
        "type": "SUBMISSION",
        "job_id": None,
        "submission_id": row.id,
        "driver_info": None,
        "status": status_of(row),
        "entrypoint": row.entrypoint or " ".join(row.argv),
        "message": message_of(row, control),
        "error_type": None,
        "start_time": row.submitted_ms,
        "end_time": row.finished_ms,
        "metadata": row.job_metadata,
        "runtime_env": row.runtime_env,
        "driver_agent_http_address": None,
        "driver_node_id": None,
        "driver_exit_code": row.exit_code,
    }


def status_of(row: Job) -> str:
    """PENDING before the first run, RUNNING from then on (also while requeued), terminal only for the last attempt."""
    return ray_status(JobState(row.state), 1 if row.first_started_ms is not None else 0)


def message_of(row: Job, control: ControlPort) -> str:
    """One sentence: where the job is and why, and when it starts."""
    eta = control.etas([row.id]).get(row.id) if row.state in WAITING else None
    return "; ".join(part for part in (place_of(row, control), when(eta)) if part)


def place_of(row: Job, control: ControlPort) -> str:
    """Where the job is and why."""
    state = JobState(row.state)
    if state in TERMINAL:
        return row.error or row.message or f"The job {_past(state)}."
    where = f"{state} in queue {row.queue}"
    position = control.position(row.id) if state in WAITING else None
    if position is not None:
        where += f", position {position}"
    reason = control.reason(row.id) if state in WAITING else None
    if reason is None and row.reason is not None:
        reason = reason_from(row.reason)
    told = sentence_of(reason) if reason is not None else ""
    return f"{where}: {told}" if told else where


def when(eta: Eta | None) -> str:
    """`estimated start 14:05 UTC, in 9 of 10 cases by 14:40 UTC`."""
    if eta is None:
        return ""
    if eta.unknown:
        jobs = f"{eta.unknown} running job{'s' if eta.unknown > 1 else ''}"
        return f"it may start at any time: nothing is known yet about how long {jobs} will run"
    if eta.p50_ms is None:
        return "estimated start in more than a day"
    late = "in more than a day" if eta.p90_ms is None else f"by {_clock(eta.p90_ms)}"
    return f"estimated start {_clock(eta.p50_ms)}, in 9 of 10 cases {late}"


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%a %H:%M UTC")


def _past(state: JobState) -> str:
    return {
        JobState.SUCCEEDED: "succeeded",
        JobState.FAILED: "failed",
        JobState.CANCELLED: "was cancelled",
        JobState.TIMED_OUT: "ran into its time limit",
    }[state]
