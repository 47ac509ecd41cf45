"""`helio replay`: recorded cycles once more, in another process with another hash seed."""

from __future__ import annotations

import click

from heliostat.cli.app import App, json_option, pass_app, show, show_json
from heliostat.wire.errors import BadRequest, ExitCode


@click.command()
@click.option(
    "--from", "first", type=click.IntRange(0), metavar="CYCLE", help="First cycle (default: the oldest that is kept)."
)
@click.option("--to", "last", type=click.IntRange(0), metavar="CYCLE", help="Last cycle (default: the newest).")
@json_option
@pass_app
def replay(app: App, first: int | None, last: int | None, as_json: bool) -> int:
    """Execute recorded decisions again and compare every byte. Exit 1 when a cycle comes out otherwise or none is recorded."""
    if first is not None and last is not None and first > last:
        raise BadRequest(f"There is no cycle from {first} to {last}.", remedy="Let --from be at most --to.")
    told = app.client().forecasts.replay(first, last)
    same = told["differs"] is None and not told.get("why")
    if as_json:
        show_json(told)
    elif not same:
        show(
            f"cycle {told['differs']} differs: {told['why']}"
            if told["differs"] is not None
            else f"nothing was replayed: {told['why']}"
        )
    else:
        show(
            f"{told['cycles']} cycles replayed ({told['from']} to {told['to']}), every decision and state the same bytes; "
            f"another process, hash seed {told['hash_seed']}, {told['took_s']:.1f} s"
        )
    return ExitCode.OK if same else ExitCode.JOB_FAILED
