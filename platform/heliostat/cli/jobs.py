"""What can be asked of, and done with, jobs that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.cli.submit import PREEMPTIBILITY, priority_value
from heliostat.render.explain import endpoint_text, explanation_text, queue_text, remedies_text
from heliostat.render.jobs import job_line

if TYPE_CHECKING:
    from heliostat.client.job import Job


@click.command()
@click.argument("job", required=False)
@click.option("--queue", metavar="NAME", help="Explain a queue instead of a job.")
@click.option("--endpoint", metavar="NAME", help="Explain an endpoint: why it has fewer replicas than it wants.")
@json_option
@pass_app
def explain(app: App, job: str | None, queue: str | None, endpoint: str | None, as_json: bool) -> None:
    """Why JOB waits (or has what it has): the reason, its numbers, when it starts, and what would help, with the command to copy."""
    if sum(name is not None for name in (job, queue, endpoint)) != 1:
        raise click.UsageError("Name a JOB, or a queue with --queue NAME, or an endpoint with --endpoint NAME.")
    if endpoint is not None:
        of_endpoint = app.client().endpoint_calls.explain(endpoint)
        show_json(of_endpoint) if as_json else show(endpoint_text(of_endpoint, app.now()))
        return
    if queue is not None:
        of_queue = app.client().explain_queue(queue)
        show_json(of_queue) if as_json else show(queue_text(of_queue))
        return
    handle = app.client().job(str(job))
    if as_json:
        show_json(handle.explain().raw)
        return
    told = handle.explain(wait=0)
    show(explanation_text(told.raw, app.now()))
    if not told.raw.get("remedies_complete", True):
        hint("  what would help is being tried ...")
        show(remedies_text(handle.explain(wait=25).raw, app.now()))


def _each(app: App, jobs: tuple[str, ...], act: Callable[[Job], Job], as_json: bool) -> None:
    """Do it to every job; stops at the first that refuses."""
    client = app.client()
    for id in jobs:
        data = act(client.job(id)).data
        show_json(data) if as_json else show(job_line(data, app.now()))


@click.command()
@click.argument("jobs", nargs=-1, required=True)
@json_option
@pass_app
def cancel(app: App, jobs: tuple[str, ...], as_json: bool) -> None:
    """End JOBS, waiting or running."""
    _each(app, jobs, lambda job: job.cancel(), as_json)


@click.command()
@click.argument("jobs", nargs=-1, required=True)
@json_option
@pass_app
def hold(app: App, jobs: tuple[str, ...], as_json: bool) -> None:
    """Keep waiting JOBS from starting until they are released."""
    _each(app, jobs, lambda job: job.hold(), as_json)


@click.command()
@click.argument("jobs", nargs=-1, required=True)
@json_option
@pass_app
def release(app: App, jobs: tuple[str, ...], as_json: bool) -> None:
    """Let held JOBS start again, at their old place."""
    _each(app, jobs, lambda job: job.release(), as_json)


@click.command()
@click.argument("job")
@click.argument("priority", metavar="CLASS|N")
@json_option
@pass_app
def priority(app: App, job: str, priority: str, as_json: bool) -> None:
    """Give JOB another priority: low, normal, high, critical, or a number. Possible at any time."""
    _each(app, (job,), lambda handle: handle.edit(priority=priority_value(priority)), as_json)


@click.command()
@click.argument("job")
@click.option("--gpus", metavar="N|A..B", help="GPUs; a range lets the job grow and shrink.")
@click.option("--cpus", type=float, metavar="N", help="CPUs of one worker.")
@click.option("--memory", metavar="SIZE", help="Memory of one worker, for example 16GiB.")
@click.option("--flavor", metavar="NAME", help="Kind of hardware.")
@click.option("--queue", metavar="NAME", help="Queue to wait in.")
@click.option("--priority", metavar="CLASS|N", help="low, normal, high, critical, or a number.")
@click.option("--preemptibility", type=click.Choice(PREEMPTIBILITY), help="Whether the job may be stopped for others.")
@click.option("--no-after", is_flag=True, help="Wait for no other job any more.")
@json_option
@pass_app
def edit(app: App, /, job: str, as_json: bool, no_after: bool, **given: Any) -> None:
    """Change what a waiting JOB asks for, without losing its place."""
    if not no_after and all(value is None for value in given.values()):
        raise click.UsageError("Say what to change, for example --gpus 1.")
    changes = {**given, "priority": priority_value(given["priority"]), "after": [] if no_after else None}
    _each(app, (job,), lambda handle: handle.edit(**changes), as_json)
