"""`helio submit`: everything after `--` is the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.cli.waiting import follow_log, wait_with_lines
from heliostat.render.amounts import duration, parse_time
from heliostat.render.forecast import plan_lines
from heliostat.render.jobs import job_line
from heliostat.wire.errors import ExitCode

if TYPE_CHECKING:
    from heliostat.client.job import Job

PREEMPTIBILITY = ["preemptible", "semi-preemptible", "non-preemptible"]
EXAMPLE = "helio submit --gpus 2 --queue research -- python train.py"


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--gpus", metavar="N|A..B", help="GPUs; a range lets the job grow and shrink.")
@click.option("--gpus-per-task", type=float, metavar="N", help="GPUs of one worker (default 1).")
@click.option("--cpus", type=float, metavar="N", help="CPUs of one worker.")
@click.option("--memory", metavar="SIZE", help="Memory of one worker, for example 16GiB.")
@click.option("--flavor", metavar="NAME", help="Kind of hardware.")
@click.option("--nodes", type=int, metavar="N", help="One process on each of N nodes.")
@click.option("--queue", metavar="NAME", help="Queue to wait in.")
@click.option("--priority", metavar="CLASS|N", help="low, normal, high, critical, or a number.")
@click.option("--preemptibility", type=click.Choice(PREEMPTIBILITY))
@click.option("--project", metavar="NAME", help="Project that owns the job.")
@click.option("--name", metavar="TEXT", help="A name for people.")
@click.option("--kind", type=click.Choice(["command", "ray"]), default="command", show_default=True,
              help="ray: a driver on the head node; command: a process on the job's own GPUs.")  # fmt: skip
@click.option("--env", "env", multiple=True, metavar="KEY=VALUE", help="Environment variable; may be repeated.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Label; may be repeated.")
@click.option("--working-dir", type=click.Path(exists=True, file_okay=False), help="Folder that travels along.")
@click.option("--max-runtime", metavar="TIME", help="End the job after this time of running, for example 2h.")
@click.option("--after", multiple=True, metavar="JOB", help="Wait for that job to succeed; may be repeated.")
@click.option("--hold", is_flag=True, help="Do not start before helio release.")
@click.option("--plan", is_flag=True, help="Only say what would happen.")
@click.option("--wait", is_flag=True, help="Wait until it is over; exit 1 unless it succeeded.")
@click.option("-f", "--follow", is_flag=True, help="Wait, and print its log meanwhile.")
@click.option("--timeout", metavar="TIME", help="With --wait: give up waiting (exit 6); the job goes on.")
@click.argument("command", nargs=-1, required=True)
@json_option
@pass_app
def submit(
    app: App, /, command: tuple[str, ...], as_json: bool, plan: bool, wait: bool, follow: bool, **given: Any
) -> int:
    """Queue a job. Everything after -- is its command.

    Prints the job's id. Example: helio submit --gpus 2 --queue research -- python train.py
    """
    timeout = given.pop("timeout")
    asked = {**given, "env": pairs_of(given["env"], "--env"), "metadata": pairs_of(given["metadata"], "--metadata")}
    asked["priority"] = priority_value(given["priority"])
    client = app.client()
    if plan:
        return _show_plan(app, client.plan(command, **asked), as_json)
    job = client.submit(command, **asked)
    if not (wait or follow):
        show_json(job.data) if as_json else announce(app, job)
        return ExitCode.OK
    if not as_json:
        show(job.id)
    if follow:
        follow_log(app, job, as_json=as_json)
    wait_with_lines(app, job, timeout, quiet=as_json)
    if as_json:
        show_json(job.data)
    return ExitCode.OK if job.data.get("state") == "succeeded" else ExitCode.JOB_FAILED


def priority_value(text: str | None) -> str | int | None:
    """A class by name, or a number."""
    if text is None:
        return None
    return int(text) if text.lstrip("-").isdigit() else text


def announce(app: App, job: Job) -> None:
    show(job.id)
    hint(job_line(job.data, app.now()).removeprefix(f"{job.id} "))
    hint(f"next: helio logs -f {job.id}   or: helio explain {job.id}")


def _show_plan(app: App, plan: dict[str, Any], as_json: bool) -> int:
    """What would happen, in two or three lines."""
    if as_json:
        show_json(plan)
        return ExitCode.OK
    reason = plan.get("reason") or {}
    at = parse_time(plan.get("estimated_start"))
    if plan.get("starts_now"):
        show("It would start now.")
    else:
        when = f"; starts in about {duration((at - app.now()).total_seconds())}" if at else ""
        place = f"; position {plan['position']}" if plan.get("position") else ""
        show(f"It would wait: {reason.get('sentence') or 'no reason given'}{place}{when}")
    for line in plan_lines(plan, app.now()):
        show(line)
    for remedy in plan.get("remedies") or []:
        again = f"helio submit {remedy['options']} ..." if remedy.get("options") else ""
        typed = " && ".join(part for part in (remedy.get("command"), again) if part)
        show(f"  {remedy.get('text', '')}" + (f"\n      {typed}" if typed else ""))
    return ExitCode.OK


def pairs_of(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"'{text}' is not KEY=VALUE.", param_hint=option)
        pairs[key] = value
    return pairs
