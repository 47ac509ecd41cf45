"""`helio audit`: who changed what, and whether the records are whole."""

from __future__ import annotations

import json

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.render.amounts import age, parse_time
from heliostat.render.table import table
from heliostat.wire.errors import ExitCode


@click.group()
def audit() -> None:
    """Who changed what, and whether the records are whole."""


@audit.command("ls")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only entries after this number.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many, oldest first."
)
@json_option
@pass_app
def list_audit(app: App, after: int, limit: int, as_json: bool) -> None:
    """Entries of the audit log, oldest first, and the head of its chain."""
    told = app.client().forecasts.audit(after, limit)
    if as_json:
        show_json(told)
        return
    rows = []
    for item in told["items"]:
        at = parse_time(item["at"])
        passed = None if at is None else (app.now() - at).total_seconds()
        rows.append(
            (
                str(item["seq"]),
                age(passed),
                item["actor"],
                item["action"],
                item["object"],
                json.dumps(item["data"]) if item["data"] else "",
            )
        )
    show(table(("SEQ", "AGE", "WHO", "WHAT", "OBJECT", "DETAILS"), rows, width=width()) if rows else "No entries.")
    hint(f"head {told['head']}")


@audit.command("verify")
@json_option
@pass_app
def verify(app: App, as_json: bool) -> int:
    """Walk the hash chains of the audit log and the decision log; exit 1 and name the first broken row if there is one."""
    told = app.client().forecasts.records()
    broken = [chain for chain in told["chains"] if chain["first_broken"] is not None]
    if as_json:
        show_json(told)
        return ExitCode.JOB_FAILED if broken or told["contradiction"] else ExitCode.OK
    for chain in told["chains"]:
        state = (
            f"whole, head {chain['head'][:16]}"
            if chain["first_broken"] is None
            else f"BROKEN at {chain['first_broken']}: {chain['why']}"
        )
        show(f"{chain['name']:<13} {chain['rows']} rows, {state}")
    lost = told["contradiction"]
    if lost:
        how = "cut off" if lost["missing"] else "rewritten"
        show(f"exported head of {lost['chain']} {lost['number']} is not in the chain any more: the log was {how}")
    else:
        show(
            f"exported      {told['exported']} head{'' if told['exported'] == 1 else 's'}, all of them in their chains"
            if told["exported"]
            else "exported      no head yet (the first a minute after the start)"
        )
    return ExitCode.JOB_FAILED if broken or lost else ExitCode.OK
