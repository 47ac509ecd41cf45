"""`helio logs`: a job's log, all attempts in one."""

from __future__ import annotations

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show_json
from heliostat.cli.waiting import follow_log


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@json_option
@pass_app
def logs(app: App, job: str, follow: bool, tail: int | None, as_json: bool) -> None:
    """Print a job's log. A line beginning with [heliostat] says where an attempt starts."""
    handle = app.client().job(job)
    if follow and tail is None:
        follow_log(app, handle, as_json=as_json)
        return
    text = handle.logs().text()
    shown = (
        text
        if tail is None
        else "".join(text.splitlines(keepends=True)[len(text.splitlines()) - tail if tail else len(text) :])
    )
    if as_json:
        show_json({"job_id": job, "text": shown})
    else:
        click.echo(shown, nl=False)
    if follow:
        for piece in handle.logs(follow=True, offset=len(text.encode())).pieces():
            show_json({"text": piece}) if as_json else click.echo(piece, nl=False)
    elif not text:
        hint(f"No output yet ({handle.data.get('state')}). Follow it with: helio logs -f {job}")
