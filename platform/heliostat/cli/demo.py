"""`helio demo`."""

from __future__ import annotations

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.cli.local import local_errors
from heliostat.wire.errors import ExitCode, ServiceError


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, metavar="N", help="Port to use (default: a free one)."
)
@click.option("--keep", is_flag=True, help="Keep the demo's folder with all logs and checkpoints.")
@json_option
@pass_app
def demo(app: App, port: int | None, keep: bool, as_json: bool) -> int:
    """Four logical GPUs, two teams: a preemption with resume, then a training that shrinks and grows while it runs.

    About four minutes, in a folder of its own.

    Ends with 0 only if every check at its end holds. With --json the last line of standard output is the result.
    """
    with local_errors():
        from heliostat.demo.scene import scene
        from heliostat.demo.screen import audience
        from heliostat.demo.stage import DemoFailed
        from heliostat.demo.story import play
        from heliostat.demo.verdict import as_json as verdict_json
        from heliostat.demo.verdict import as_text, judge

        home = ""
        try:
            with audience() as watcher, scene(watcher.step, port or 0, keep) as stage:
                home = str(stage.settings.home)
                hint(f"everything of this demo is in {home} and at {stage.settings.url}")
                told = play(stage, watcher)
                verdict = judge(stage, told)
        except DemoFailed as error:
            raise ServiceError(str(error), code="demo_failed", remedy=f"All logs are kept in {home}") from error
    show_json(verdict_json(verdict)) if as_json else show(as_text(verdict))
    return ExitCode.OK if verdict.good else ExitCode.JOB_FAILED
