"""`helio nodes` and `helio events`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.render.cluster import event_line, node_table, pool_lines


@click.command()
@json_option
@pass_app
def nodes(app: App, as_json: bool) -> None:
    """Nodes, their GPUs (held/all) and which job holds which device."""
    show_nodes(app, as_json)


def show_nodes(app: App, as_json: bool) -> None:
    """As `helio nodes` and `helio node ls` print it."""
    cluster = app.client().cluster()
    if as_json:
        show_json(cluster)
        return
    if cluster.get("nodes") or any(pool.get("missing") for pool in cluster.get("pools") or []):
        show(node_table(cluster, datetime.now(UTC), width()))
    else:
        show("No node has joined. See what is wrong with: helio doctor")
    for line in pool_lines(cluster):
        hint(line)


@click.command()
@click.argument("job", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--after", type=int, metavar="SEQ", help="Only those behind this number.")
@json_option
@pass_app
def events(app: App, job: str | None, follow: bool, after: int | None, as_json: bool) -> None:
    """What happened, oldest first: to JOB, or to everything."""
    any_shown = False
    for event in app.client().events(job, follow=follow, after=after):
        any_shown = True
        show_json(event) if as_json else show(event_line(event))
    if not any_shown and not as_json:
        show("Nothing happened yet. Queue a job with: helio submit -- echo hello")
