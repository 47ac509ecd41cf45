"""A change of a waiting job as the command that makes it: `helio edit JOB ...` (or `helio priority JOB CLASS`), and the same in words."""

from __future__ import annotations

from heliostat_scheduler.core.model import PRIORITY_CLASSES, JobSpec
from heliostat_scheduler.core.reasons import decimal

UNITS = (("GiB", 1024**3), ("MiB", 1024**2))


def edit_command(old: JobSpec, new: JobSpec) -> tuple[str, str]:
    """What to type so that `old` becomes `new`, and what that means."""
    options: list[str] = []
    words: list[str] = []
    if (old.min_tasks, old.max_tasks) != (new.min_tasks, new.max_tasks):
        options.append(f"--gpus {_gpus(new)}")
        words.append(f"ask for {_gpus(new)} GPU")
    if old.shape.cpu_milli != new.shape.cpu_milli:
        options.append(f"--cpus {decimal(new.shape.cpu_milli)}")
        words.append(f"ask for {decimal(new.shape.cpu_milli)} CPU per task")
    if old.shape.memory_bytes != new.shape.memory_bytes:
        options.append(f"--memory {_size(new.shape.memory_bytes)}")
        words.append(f"ask for {_size(new.shape.memory_bytes)} of memory per task")
    if old.flavors != new.flavors:
        options.append(f"--flavor {new.flavors[0]}")
        words.append(f"accept {new.flavors[0]}")
    if old.queue != new.queue:
        options.append(f"--queue {new.queue}")
        words.append(f"move it to queue {new.queue}")
    if old.priority != new.priority:
        name = _class(new.priority)
        if not options and old.preemptibility == new.preemptibility:
            return f"helio priority {new.id} {name}", f"give it class {name}"
        options.append(f"--priority {name}")
        words.append(f"give it class {name}")
    if old.preemptibility != new.preemptibility:
        options.append(f"--preemptibility {new.preemptibility.value}")
        words.append(f"make it {new.preemptibility.value}")
    if old.dependencies != new.dependencies:
        options.append("--no-after")
        words.append("let it wait for no other job")
    return f"helio edit {new.id} {' '.join(options)}", ", ".join(words)


def sized(spec: JobSpec, low: int, high: int) -> tuple[int, int]:
    """The sizes that a command can ask for: a range has whole GPUs at both ends, anything else is one size."""
    whole = not low * spec.shape.gpu_milli % 1000 and not high * spec.shape.gpu_milli % 1000
    return (low, high) if whole else (low, low)


def _gpus(spec: JobSpec) -> str:
    low, high = decimal(spec.min_tasks * spec.shape.gpu_milli), decimal(spec.max_tasks * spec.shape.gpu_milli)
    return low if low == high else f"{low}..{high}"


def _size(memory_bytes: int) -> str:
    whole = (f"{memory_bytes // unit}{name}" for name, unit in UNITS if memory_bytes % unit == 0)
    return next(whole, str(memory_bytes))


def _class(priority: int) -> str:
    names = {value: name for name, value in PRIORITY_CLASSES.items()}
    return names.get(priority, str(priority))
