"""`helio train`: a recipe, or a script, with a model that is registered when it is done."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.cli.submit import announce, priority_value
from heliostat.cli.waiting import follow_log, wait_with_lines
from heliostat.client.job import Job
from heliostat.wire.errors import ExitCode

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(context_settings=CONTEXT)
@click.option("--workers", metavar="N|A..B", help="Workers, one GPU each; a range lets it grow and shrink.")
@click.option("--register", metavar="MODEL", default="", help="Register what it trained under this name.")
@click.option("--alias", metavar="ALIAS", default="", help="Point this alias at the new version.")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", help="cpu: without GPUs.")
@click.option("--queue", metavar="NAME", help="Queue to wait in.")
@click.option("--priority", metavar="CLASS|N", help="low, normal, high, critical, or a number.")
@click.option("--project", metavar="NAME", help="Project that owns the job and the model.")
@click.option("--name", metavar="TEXT", help="A name for people.")
@click.option("--flavor", metavar="NAME", help="Kind of hardware.")
@click.option("--max-runtime", metavar="TIME", help="End it after this time of running, for example 2h.")
@click.option("--working-dir", type=click.Path(exists=True, file_okay=False), help="Folder of a script that travels.")
@click.option("--wait", is_flag=True, help="Wait until it is over and the model is registered.")
@click.option("-f", "--follow", is_flag=True, help="Wait, and print its log meanwhile.")
@click.option("--timeout", metavar="TIME", help="With --wait: give up waiting (exit 6); the job goes on.")
@click.argument("target", required=False, metavar="[RECIPE|SCRIPT.py]")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[RECIPE OPTIONS | -- ARGS]")
@json_option
@pass_app
def train(
    app: App, /, target: str | None, rest: tuple[str, ...], as_json: bool, wait: bool, follow: bool, **given: Any
) -> int:
    """Queue a training; without a name, list the recipes.

    Example: helio train digits-cnn --epochs 5 --workers 1..4 --register digits
    """
    from heliostat_jobs.spec import RECIPES

    from heliostat.client.training import recipes

    if target is None:
        show_json({"items": [asdict(recipe) for recipe in recipes()]}) if as_json else show(recipes().text())
        return ExitCode.OK
    timeout = given.pop("timeout")
    given["priority"] = priority_value(given["priority"])
    if target in RECIPES:
        job = app.client().train(target, **given, options=recipe_options(rest))
    else:
        job = app.client().train(Path(target), **given, args=rest[1:] if rest[:1] == ("--",) else rest)
    if not (wait or follow):
        show_json(job.data) if as_json else announce(app, job)
        return ExitCode.OK
    if not as_json:
        show(job.id)
    if follow:
        follow_log(app, job, as_json=as_json)
    wait_with_lines(app, job, timeout, quiet=as_json)
    return _ended(job, bool(given["register"]), as_json)


def _ended(job: Job, registers: bool, as_json: bool) -> int:
    good = job.data.get("state") == "succeeded"
    version = job.model() if good and registers else None
    if as_json:
        show_json({**job.data, "model": None if version is None else version.data})
    elif version is not None:
        show(f"{version.name}:{version.version}")
        hint(f"registered; next: helio model show {version.name}:{version.version}")
    return ExitCode.OK if good else ExitCode.JOB_FAILED


def recipe_options(words: tuple[str, ...]) -> dict[str, str]:
    """`--epochs 5 --seed=3` -> {"epochs": "5", "seed": "3"}."""
    found: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise click.UsageError(f"'{word}' is no option of a recipe; write --name value.")
        if not equals:
            if not left:
                raise click.UsageError(f"--{name} needs a value.")
            value = left.pop(0)
        found[name] = value
    return found
