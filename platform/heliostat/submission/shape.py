"""From GPUs to tasks: how many tasks a request means and what each of them needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from heliostat.submission.request import Asked, Refused

MAX_TASKS = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """min_tasks..max_tasks tasks, each with these amounts. GPU tasks without a CPU request take their slot's share (0 here)."""

    min_tasks: int = 1
    max_tasks: int = 1
    gpu_milli: int = 0
    cpu_milli: int = 1000
    memory_bytes: int = 0

    @property
    def min_gpu_milli(self) -> int:
        return self.min_tasks * self.gpu_milli


def shape_of(asked: Asked) -> Shape:
    """The tasks that a request means: GPUs divided by GPUs per task. Refuses numbers that are no request."""
    least, most = _range(asked)
    per_task = _per_task(asked, least, most)
    cpu = _milli(asked.cpus, "cpus")
    memory = asked.memory_bytes or 0
    if memory < 0:
        raise _bad("memory_bytes", "memory_bytes is negative")
    if most == 0:
        return Shape(cpu_milli=cpu or 1000, memory_bytes=memory)
    tasks = [_tasks(total, per_task, name) for total, name in ((least, "min_gpus"), (most, "max_gpus"))]
    return Shape(max(1, tasks[0]), tasks[1], per_task, cpu, memory)


def _range(asked: Asked) -> tuple[int, int]:
    """(min, max) in milli-GPU."""
    least, most = _milli(asked.min_gpus, "min_gpus"), _milli(asked.max_gpus, "max_gpus")
    if asked.max_gpus is None:
        most = least
    if asked.min_gpus is None:
        least = most
    if least > most:
        raise _bad("min_gpus", f"min_gpus ({_shown(least)}) is above max_gpus ({_shown(most)})")
    if least == 0 < most:
        raise _bad("min_gpus", "min_gpus is 0 while max_gpus is not; a job that can start without GPUs asks for none")
    return least, most


def _per_task(asked: Asked, least: int, most: int) -> int:
    if asked.gpus_per_task is None:
        return most if 0 < most < 1000 and least == most else 1000
    per_task = _milli(asked.gpus_per_task, "gpus_per_task")
    if per_task == 0 < most:
        raise _bad("gpus_per_task", "gpus_per_task is 0 while GPUs are asked for")
    if per_task > 1000:
        workers = math.ceil(most / 1000) or 1
        raise Refused(
            "never_fits",
            f"NeverFits: one task asks for {_shown(per_task)} GPUs; a task gets one GPU at most.",
            f"Use one worker per GPU: gpus_per_task 1, {workers} GPUs in {workers} tasks.",
            status=422,
            field="gpus_per_task",
            facts={"largest": {"gpus_per_task": 1}},
        )
    return per_task


def _tasks(total: int, per_task: int, name: str) -> int:
    if total % per_task:
        raise _bad(name, f"{name} ({_shown(total)}) is no multiple of gpus_per_task ({_shown(per_task)})")
    if total // per_task > MAX_TASKS:
        raise _bad(name, f"{name} means {total // per_task} tasks; the limit is {MAX_TASKS}")
    return total // per_task


def _milli(value: float | None, name: str) -> int:
    if value is None:
        return 0
    if not math.isfinite(value) or value < 0 or value > 10**9 or abs(value * 1000 - round(value * 1000)) > 1e-6:
        raise _bad(name, f"{name} ({value}) must be a number of 0 or more with at most three decimals")
    return round(value * 1000)


def _shown(milli: int) -> str:
    return f"{milli / 1000:g}"


def _bad(name: str, text: str) -> Refused:
    return Refused("bad_request", text[0].upper() + text[1:] + ".", f"Change {name}.", field=name)
