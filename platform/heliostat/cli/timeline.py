"""`helio timeline`: who held which GPU when, and why it changed hands."""

from __future__ import annotations

from pathlib import Path

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.client.files import check_place, writing
from heliostat.render.timeline import timeline_text

NARROW = 100
PAGE = ("The page", "Choose another file with --html.")


@click.command()
@click.option("--since", default="1h", show_default=True, metavar="TIME", help="How far back to begin.")
@click.option("--job", metavar="JOB", help="Only the changes of this job below the picture.")
@click.option(
    "--html",
    "html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page that needs no other file.",
)
@json_option
@pass_app
def timeline(app: App, since: str, job: str | None, html: Path | None, as_json: bool) -> None:
    """One line per GPU over time, and under it each change with the scheduler's decision and reason."""
    if html is not None:
        check_place(html, *PAGE)
    client = app.client()
    if job is not None:
        client.job(job)  # refuses a job that there is not
    told = client.timeline(since)
    if html is not None:
        from heliostat.render.timeline_html import timeline_html

        with writing(*PAGE):
            html.write_text(timeline_html(told), encoding="utf-8")
        hint(f"wrote {html}")
        return
    show_json(told) if as_json else show(timeline_text(told, width() or NARROW, job))
