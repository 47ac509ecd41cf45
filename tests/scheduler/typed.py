"""What a person types, carried out: read by the parser of the real `helio`, turned into what the control plane tells the engine."""

from __future__ import annotations

import shlex
from dataclasses import replace

import click
from heliostat.cli.main import cli
from heliostat.cli.submit import priority_value
from heliostat.client.asking import gpu_fields, memory_bytes
from heliostat_scheduler.core import PRIORITY_CLASSES, JobSpec, Preempt, Resize, Start, Stop
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.model import Preemptibility

from tests.scheduler.world import World


def parsed(part: str) -> tuple[str, dict[str, object]]:
    """The subcommand and its values, as the real command line understands them."""
    program, verb, *words = shlex.split(part)
    assert program == "helio"
    with click.Context(cli) as context:
        command = cli.get_command(context, verb)
        assert command is not None, f"there is no {verb!r}"
        return verb, dict(command.make_context(verb, words, parent=context).params)


def typed(made: World, command: str) -> None:
    """Do what the printed line does, through the client's own reading of amounts and classes."""
    for part in command.split(" && "):
        verb, given = parsed(part)
        match verb:
            case "release":
                for job_id in _ids(given):
                    made.apply(ev.JobReleased(job_id))
            case "cancel":
                for job_id in _ids(given):
                    made.cancel(job_id)
            case "priority" | "edit":
                _edit(made, given)
            case _:
                raise AssertionError(f"no remedy is a {verb}")


def _ids(given: dict[str, object]) -> tuple[str, ...]:
    ids = given["jobs"]
    assert isinstance(ids, tuple)
    return ids


def _edit(made: World, given: dict[str, object]) -> None:
    asked = {name: str(value) for name, value in given.items() if isinstance(value, str | int | float) and value}
    spec = made.specs[asked["job"]]
    if "priority" in asked:
        value = priority_value(asked["priority"])
        spec = replace(spec, priority=PRIORITY_CLASSES[value] if isinstance(value, str) else value or 0)
    if "queue" in asked:
        spec = replace(spec, queue=asked["queue"])
    if "flavor" in asked:
        spec = replace(spec, flavors=(asked["flavor"],))
    if "preemptibility" in asked:
        spec = replace(spec, preemptibility=Preemptibility(asked["preemptibility"]))
    if "no_after" in asked:
        spec = replace(spec, dependencies=())
    if "cpus" in asked:
        spec = replace(spec, shape=replace(spec.shape, cpu_milli=round(float(asked["cpus"]) * 1000)))
    if "memory" in asked:
        spec = replace(spec, shape=replace(spec.shape, memory_bytes=memory_bytes(asked["memory"]) or 0))
    if "gpus" in asked:
        fields = gpu_fields(asked["gpus"])
        low, high = (_tasks(spec, fields.get(name, fields.get("gpus"))) for name in ("min_gpus", "max_gpus"))
        spec = replace(spec, min_tasks=low, max_tasks=high)
    made.specs[spec.id] = spec
    made.apply(ev.JobChanged(spec))


def _tasks(spec: JobSpec, gpus: object) -> int:
    """As the door does: GPUs divided by GPUs per task, without a rest."""
    assert isinstance(gpus, int | float)
    tasks, rest = divmod(round(gpus * 1000), spec.shape.gpu_milli)
    assert not rest, f"{gpus} GPUs are no whole number of tasks"
    return tasks


def cycle(made: World, job_id: str) -> tuple[bool, set[str]]:
    """One plan. Whether the job starts in it, and who was told to give up GPUs."""
    held = {job_id: len(places) for job_id, places in made.held.items()}
    losers: set[str] = set()
    started = False
    for decision in made.decide().decisions:
        match decision:
            case Start():
                started = started or decision.job_id == job_id
            case Preempt() | Stop():
                losers.add(decision.job_id)
            case Resize():
                if len(decision.places) < held[decision.job_id]:
                    losers.add(decision.job_id)
            case _:
                pass
    return started, losers


def starts(made: World, job_id: str) -> set[str]:
    """The job starts in the next plan; or that plan tells others to leave, and it starts in the one right after they have."""
    started, losers = cycle(made, job_id)
    if not started:
        assert losers, f"nobody leaves and it does not start: {made.engine.reason(job_id)}"
        made.answer_all()
        started, more = cycle(made, job_id)
        losers |= more
    assert started, f"it does not start: {made.engine.reason(job_id)}"
    return losers
