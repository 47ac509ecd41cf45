"""`helio ps`: which jobs there are and why they wait."""

from __future__ import annotations

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.render.explain import pressures
from heliostat.render.jobs import details, job_table
from heliostat.wire.shapes import STATES, TERMINAL_STATES


@click.command()
@click.argument("job", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Finished jobs too.")
@click.option("--state", multiple=True, type=click.Choice(STATES), help="Only this state; may be repeated.")
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--user", metavar="NAME", help="Only this user's.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@json_option
@pass_app
def ps(
    app: App,
    job: str | None,
    everything: bool,
    state: tuple[str, ...],
    queue: str | None,
    user: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs with what they wait for, or show one JOB in full.

    GPUS: 8/- wants 8 and holds none, 5/2+ holds 5, needs 2 and takes more.
    """
    client = app.client()
    if job:
        data = client.read_job(job)
        show_json(data) if as_json else show(details(data, app.now()))
        return
    states = state or (() if everything else tuple(name for name in STATES if name not in TERMINAL_STATES))
    jobs = list(client.list_jobs(state=states, queue=queue, user=user, limit=limit))
    if as_json:
        show_json({"items": jobs})
    elif jobs:
        show(job_table(jobs, app.now(), width()))
        for line in pressures(client.queues()):
            hint(line)
        if len(jobs) == limit:
            hint(f"The newest {limit}; more with --limit.")
    elif everything or state or queue or user:
        show("No such jobs. Queue one with: helio submit -- echo hello")
    else:
        show("No job is waiting or running. Queue one with: helio submit -- echo hello   (finished ones: helio ps -a)")
