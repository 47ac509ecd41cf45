"""`helio whatif` and `helio eta`: what would happen if, and how well estimated starts held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.client.asking import span_s
from heliostat.client.files import text_of
from heliostat.render.forecast import whatif_text
from heliostat.wire.errors import BadRequest

FIRST_S = 24 * 3600.0
REST_S = 7 * FIRST_S


@click.command()
@click.option("--quota", multiple=True, metavar="QUEUE=GPUS", help="A queue's guaranteed GPUs; may be repeated.")
@click.option(
    "--nodes", multiple=True, metavar="+NxFLAVOR:G", help="More nodes with G GPUs each, for example +2xh200:8."
)
@click.option("--cancel", multiple=True, metavar="JOB", help="A job that ends now; may be repeated.")
@click.option("--job", "job_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A job that is submitted now: the fields of POST /api/v1/jobs as YAML or JSON.")  # fmt: skip
@click.option("--policy", "policy_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Fields of the policy that change, as YAML or JSON.")  # fmt: skip
@click.option("--queues", "queue_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Another queues.yaml.")  # fmt: skip
@click.option("--horizon", metavar="TIME", help="How far to look (default: a day, then the rest of a week).")
@click.option("--arrivals", is_flag=True, help="Count on submissions like those of the last day.")
@json_option
@pass_app
def whatif(
    app: App,
    quota: tuple[str, ...],
    nodes: tuple[str, ...],
    cancel: tuple[str, ...],
    job_file: Path | None,
    policy_file: Path | None,
    queue_file: Path | None,
    horizon: str | None,
    arrivals: bool,
    as_json: bool,
) -> None:
    """Who would start earlier or later, who would be evicted and what it would cost. Nothing is changed.

    Example: helio whatif --quota research=6 --nodes +2xh200:8
    """
    asked: dict[str, Any] = {"quota": quota, "nodes": nodes, "cancel": cancel, "arrivals": arrivals}
    asked["job"] = None if job_file is None else _document(job_file)
    asked["policy"] = None if policy_file is None else _document(policy_file)
    asked["queues"] = "" if queue_file is None else text_of(queue_file)
    if not any(asked.values()):
        raise BadRequest("Nothing to change was named.", remedy="See: helio whatif --help")
    client = app.client()
    first_s = FIRST_S if horizon is None else span_s(horizon, "--horizon")
    told = client.whatif(**asked, horizon=first_s)
    if as_json:
        show_json(told.raw)
        return
    show(whatif_text(told.raw, app.now(), width()))
    unresolved = any(
        row["before"] is None or row["after"] is None for row in told if row["change"] in ("earlier", "later")
    )
    if horizon is None and unresolved:
        hint("the rest of the week is being computed ...")
        rest = client.whatif(**asked, horizon=REST_S)
        show("\n" + whatif_text(rest.raw, app.now(), width()))


def _document(path: Path) -> dict[str, Any]:  # Any: YAML
    """A mapping from a YAML or JSON file (JSON needs nothing installed)."""
    text = text_of(path)
    found: object
    if path.suffix == ".json":
        import json

        try:
            found = json.loads(text)
        except ValueError as error:
            raise BadRequest(f"{path} is not valid JSON: {error}", remedy="Correct the file.") from error
    else:
        import yaml

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadRequest(f"{path} is not valid YAML: {error}", remedy="Correct the file.") from error
    if not isinstance(found, dict):
        raise BadRequest(
            f"{path} holds no mapping.", remedy="Write `name: value` lines; docs/whatif.md shows examples."
        )
    return found


@click.group()
def eta() -> None:
    """How well estimated starts held."""


@eta.command("report")
@click.option("--queue", metavar="NAME", help="Only this queue.")
@json_option
@pass_app
def report(app: App, queue: str | None, as_json: bool) -> None:
    """Of each job the first estimate, against when it started: coverage of p50 and p90, pinball loss, and a plot."""
    told = app.client().eta_report(queue)
    show_json(told.raw) if as_json else show(told.text())
