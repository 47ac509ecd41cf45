"""Jobs as text: the table of `helio ps`, the line of `helio submit --wait`, the receipt of a finished job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from heliostat.render.amounts import age, clock, count, duration, parse_time, seconds_between, unknown_start
from heliostat.render.table import pairs, table
from heliostat.wire.shapes import TERMINAL_STATES, WAITING_STATES, JobJson

MOST_METRICS = 3
HEAD = ("JOB", "NAME", "QUEUE", "STATE", "GPUS", "AGE", "WHY")
ICONS = {
    "queued": "◔", "held": "‖", "admitted": "◑", "starting": "◑", "running": "▶", "resizing": "↔", "preempting": "↺",
    "cancelling": "■", "succeeded": "✔", "failed": "✖", "cancelled": "■", "timed_out": "⧖",
}  # fmt: skip


def job_table(jobs: Sequence[JobJson], now: datetime, width: int = 0) -> str:
    """One line per job; the WHY column says what the job waits for, how it ended, or why it has what it has."""
    rows = [
        (
            job.get("id", "?"),
            job.get("name") or "-",
            job.get("queue") or "-",
            job.get("state", "?"),
            gpus(job),
            age(seconds_between(job.get("submitted_at"), now)),
            why(job, now),
        )
        for job in jobs
    ]
    return table(HEAD, rows, width=width)


def gpus(job: JobJson) -> str:
    """`8/-` wants 8, holds none; `5/2+` holds 5, needs 2, takes more; `2/2` holds what it asked for; `-` needs none."""
    asked = job.get("gpus") or {}
    least, most, held = asked.get("min") or 0.0, asked.get("max") or 0.0, asked.get("held") or 0.0
    if not least and not most:
        return "-"
    more = "+" if most > least else ""
    if job.get("state") in TERMINAL_STATES:
        return f"{count(least)}{more}"
    return f"{count(held)}/{count(least)}{more}" if held else f"{count(least)}{more}/-"


def why(job: JobJson, now: datetime) -> str:
    """One line that answers the next question about a job."""
    state = job.get("state", "")
    sentence = (job.get("reason") or {}).get("sentence", "")
    if state in WAITING_STATES:
        unheard = "until somebody releases it" if state == "held" else "submitted a moment ago"
        return "; ".join(part for part in (sentence or unheard, _place_in_queue(job), starts_in(job, now)) if part)
    if state in TERMINAL_STATES:
        return outcome(job)
    again = f"attempt {job['attempts']}" if job.get("attempts", 1) > 1 else ""
    return "; ".join(part for part in (sentence, _replicas(job), again) if part)


def _replicas(job: JobJson) -> str:
    """Of a serving job: the pressure of its endpoint."""
    tasks = job.get("tasks") or {}
    held, wanted = tasks.get("running") or 0, tasks.get("max") or 0
    if job.get("kind") != "serve" or not held:
        return ""
    if held >= wanted:
        return f"{held} {'replica' if held == 1 else 'replicas'}"
    return f"{held} of {wanted} replicas that its load asks for: helio explain {job.get('id', '')}"


def starts_in(job: JobJson, now: datetime) -> str:
    at, late = parse_time(job.get("estimated_start")), parse_time(job.get("estimated_start_p90"))
    if job.get("unknown_runtimes"):
        return unknown_start(job["unknown_runtimes"])
    if at is None:
        return "starts in more than a day" if job.get("estimate_made") else ""
    soon = f"starts in about {duration(max(1.0, (at - now).total_seconds() // 1))}"
    if not job.get("estimate_made"):
        return soon
    most = "> 1d" if late is None else duration(max(1.0, (late - now).total_seconds() // 1))
    return f"{soon} (9 of 10: {most})"


def outcome(job: JobJson) -> str:
    """How a finished job ended, in half a line."""
    took = f"ran {duration(job.get('ran_s'))}" if job.get("ran_s") else "never ran"
    if job.get("state") == "succeeded":
        return ", ".join([*(f"{name} {value:.4g}" for name, value in numbers(job)[:MOST_METRICS]), took])
    if job.get("error"):
        return f"{job['error']}"
    code = job.get("exit_code")
    return f"exit code {code}, {took}" if code is not None else took


def numbers(job: JobJson) -> list[tuple[str, float]]:
    """Its result metrics, by name."""
    return [
        (name, value) for name, value in sorted((job.get("metrics") or {}).items()) if isinstance(value, int | float)
    ]


def job_line(job: JobJson, now: datetime) -> str:
    """`job-01 queued: needs 2 GPUs, 1 is free; position 2`: one line per change while somebody waits."""
    text = why(job, now)
    return f"{job.get('id', '?')} {job.get('state', '?')}" + (f": {text}" if text else "")


def receipt(job: JobJson) -> str:
    """What a finished job got: waited, ran, attempts, GPU-seconds."""
    seconds = job.get("gpu_seconds") or {}
    parts = [
        f"waited {duration(job.get('waited_s') or 0.0)}",
        f"ran {duration(job.get('ran_s') or 0.0)}",
        f"{job.get('attempts', 0)} attempt" + ("" if job.get("attempts") == 1 else "s"),
    ]
    if seconds.get("held"):
        used = seconds.get("used")
        parts.append(
            f"{count(round(seconds['held'], 1))} GPU-seconds held"
            + (f", {count(round(used, 1))} used" if used is not None else "")
        )
    return ", ".join(parts)


def details(job: JobJson, now: datetime) -> str:
    """Everything about one job that fits a screen (`helio ps JOB`)."""
    items = [
        ("state", f"{job.get('state', '?')} for {duration(seconds_between(job.get('state_since'), now))}"),
        ("why", why(job, now)),
        ("queue", f"{job.get('queue', '-')}, priority {job.get('priority_class') or job.get('priority', '-')}"),
        ("gpus", f"{gpus(job)} (holds/needs), flavor {job.get('flavor') or 'any'}"),
        ("command", job.get("entrypoint") or "-"),
        ("owner", f"{job.get('user', '-')} in project {job.get('project', '-')}"),
        ("got", receipt(job)),
    ]
    told = "\n".join(
        f"  {clock(at)}  {past.get('sentence') or past.get('code')}"
        for past in job.get("reason_history") or []
        if (at := parse_time(past.get("at")))
    )
    title = f"{job.get('id', '?')}" + (f"  {job['name']}" if job.get("name") else "")
    return "\n".join(part for part in (title, pairs(items), "  story" if told else "", told) if part)


def _place_in_queue(job: JobJson) -> str:
    position = job.get("position")
    return f"position {position}" if position else ""
