"""Watching a job from a terminal: one line per change on standard error, its log on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from heliostat.cli.app import App, hint, show_json
from heliostat.client.asking import seconds
from heliostat.render.jobs import job_line

if TYPE_CHECKING:
    from heliostat.client.job import Job


def wait_with_lines(app: App, job: Job, timeout: str | None, *, quiet: bool) -> None:
    """Wait until the job is over; says each new state or reason once. Ctrl-C leaves the job alone."""
    said = ""
    try:
        for _ in job.watch(timeout=seconds(timeout, "--timeout")):
            line = _stable_line(app, job)
            if line != said and not quiet:
                hint(job_line(job.data, app.now()))
            said = line
    except KeyboardInterrupt:
        hint(f"\n{job.id} goes on. End it with: helio cancel {job.id}")
        raise


def follow_log(app: App, job: Job, *, as_json: bool) -> None:
    """Print the log until the job is over."""
    try:
        for piece in job.logs(follow=True).pieces():
            show_json({"text": piece}) if as_json else click.echo(piece, nl=False)
    except KeyboardInterrupt:
        hint(f"\n{job.id} goes on. End it with: helio cancel {job.id}")
        raise


def _stable_line(app: App, job: Job) -> str:
    """What counts as a change: the state and the reason, not the countdown of the estimate."""
    data = job.data
    return f"{data.get('state')} {(data.get('reason') or {}).get('sentence')} {data.get('position')} {data.get('attempts')}"
