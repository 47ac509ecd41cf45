"""`helio queue`: the tree of queues and the file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.cli.policy import policy
from heliostat.client.files import text_of
from heliostat.render.amounts import by_flavor
from heliostat.render.cluster import queue_table
from heliostat.render.jobs import job_table
from heliostat.render.table import pairs, table


@click.group(invoke_without_command=False)
def queue() -> None:
    """List, show and change queues."""


queue.add_command(policy)


@queue.command("ls")
@json_option
@pass_app
def list_queues(app: App, as_json: bool) -> None:
    """All queues: quota, limit, use, what runs and what waits."""
    told = app.client().queue_document()
    if as_json:
        show_json(told)
        return
    show(queue_table(told["items"], width()))
    for warning in told.get("warnings") or []:
        hint(f"warning: {warning}")


@queue.command("show")
@click.argument("name", required=False)
@json_option
@pass_app
def show_queue(app: App, name: str | None, as_json: bool) -> None:
    """One queue with its waiting jobs, or (without NAME) the file queues.yaml that is in force."""
    client = app.client()
    if name is None:
        text = client.queue_file().text
        show_json({"file": text}) if as_json else click.echo(text, nl=not text.endswith("\n"))
        return
    found = client.queue(name)
    jobs = list(client.list_jobs(state=["queued", "held"], queue=name, user=None, limit=20))
    if as_json:
        show_json({**found, "jobs": jobs})
        return
    show(name)
    show(pairs([(key.replace("_", " "), by_flavor(value)) for key, value in found.items() if key != "name"]))
    show(job_table(jobs, app.now(), width()) if jobs else "  no job waits here")


@queue.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--diff", is_flag=True, help="Only show what would change.")
@json_option
@pass_app
def apply(app: App, file: Path, diff: bool, as_json: bool) -> None:
    """Put FILE (queues.yaml) in force, for running and waiting jobs alike."""
    text = text_of(file)
    client = app.client()
    outcome = client.diff_queues(text) if diff else client.apply_queues(text)
    if as_json:
        show_json(outcome)
        return
    changes = outcome.get("changes") or []
    show(_changes(changes) if changes else "Nothing changes.")
    for warning in outcome.get("warnings") or []:
        hint(f"warning: {warning}")
    if changes and diff:
        hint(f"Nothing was changed yet. Put it in force with: helio queue apply {file}")


def _changes(changes: list[dict[str, Any]]) -> str:
    """QUEUE, FIELD, from, to."""
    rows = [
        (
            str(change.get("queue") or "-"),
            str(change.get("field") or "-"),
            _value(change.get("old")),
            _value(change.get("new")),
        )
        for change in changes
    ]
    return table(("QUEUE", "FIELD", "FROM", "TO"), rows)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return by_flavor(value)
