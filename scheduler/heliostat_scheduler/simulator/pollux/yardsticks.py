"""Tiresias and Optimus+Oracle as the Pollux authors ran them on this benchmark, both with tuned batch sizes."""

from __future__ import annotations

import math
from collections import Counter

from heliostat_scheduler.simulator.pollux.cluster import GPUS, GPUS_PER_NODE, NODES, Job, Nodes

TIRESIAS_THRESHOLD = 16 * 3600
"""GPU-seconds of service after which a job moves to the second queue."""


def tune_fixed(job: Job) -> None:
    """Tuned jobs keep the batch size they were submitted with."""
    job.split(job.batch)


def _spread(kept: dict[str, Nodes], wanted: list[tuple[str, int]]) -> dict[str, Nodes]:
    """Place each wanted count on the emptiest nodes in turn, beside what is kept."""
    free = Counter(dict.fromkeys(range(NODES), GPUS_PER_NODE))
    free.subtract(node for nodes in kept.values() for node in nodes)
    allocations = dict(kept)
    for name, count in wanted:
        nodes: list[int] = []
        while len(nodes) < count:
            node = max(free, key=lambda n: (free[n], -n))
            take = min(free[node], count - len(nodes))
            nodes.extend([node] * take)
            free[node] -= take
        allocations[name] = tuple(nodes)
    return allocations


class Tiresias:
    """Two queues by attained service, first come first served inside, whole gangs, skip what does not fit."""

    def __init__(self) -> None:
        self._queues: tuple[list[str], list[str]] = ([], [])
        self._executed: Counter[str] = Counter()
        self._running: set[str] = set()
        self._before = 0

    def decide(self, now: int, active: list[Job]) -> dict[str, Nodes]:
        jobs = {job.name: job for job in active}
        first, second = ([name for name in queue if name in jobs] for queue in self._queues)
        known = {*first, *second}
        first.extend(name for name in jobs if name not in known)
        for name in self._running & jobs.keys():
            self._executed[name] += now - self._before
        self._before = now
        crossed = [
            name for name in jobs if name in first and self._executed[name] * jobs[name].replicas >= TIRESIAS_THRESHOLD
        ]
        crossed = [name for name in crossed if name in self._running]
        first = [name for name in first if name not in crossed]
        self._queues = (first, [*second, *crossed])
        free, order = GPUS, []
        for name in (*self._queues[0], *self._queues[1]):
            if jobs[name].replicas <= free:
                free -= jobs[name].replicas
                order.append(name)
        self._running = set(order)
        kept = {name: jobs[name].nodes for name in jobs if name in self._running and jobs[name].nodes}
        return _spread(kept, [(name, jobs[name].replicas) for name in order if name not in kept])


class Optimus:
    """One GPU each, then a GPU at a time to the largest (saved step time) x (remaining iterations); oracle throughput."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, int, int], float] = {}

    def decide(self, _: int, active: list[Job]) -> dict[str, Nodes]:
        free = GPUS
        counts: dict[str, int] = {}
        gains: dict[str, float] = {}
        jobs = {job.name: job for job in active}
        for name, job in jobs.items():
            counts[name] = min(1, free)
            free -= counts[name]
            gains[name] = self._gain(job, 1, free) if counts[name] else 0.0
        while free > 0 and max(gains.values()) > 0:
            name = max(gains, key=lambda key: gains[key])
            counts[name] += 1
            gains[name] = self._gain(jobs[name], counts[name], free)
            free -= 1
        kept = {name: job.nodes for name, job in jobs.items() if job.nodes and len(job.nodes) == counts[name]}
        order = sorted(jobs, key=lambda name: counts[name])
        return _spread(kept, [(name, counts[name]) for name in order if counts[name] and name not in kept])

    def _gain(self, job: Job, count: int, free: int) -> float:
        largest = 1 if job.fixed else job.batch // job.app.min_local
        if count + 1 > largest or free < 1:
            return 0.0
        return (self._step(job, count) - self._step(job, count + 1)) * self._remaining(job)

    def _remaining(self, job: Job) -> float:
        last = job.app.last_epoch
        if last <= job.epoch:
            return 1.0
        return job.app.iterations(job.batch, last) - job.app.iterations(job.batch, job.epoch)

    def _step(self, job: Job, count: int) -> float:
        key = (job.app.name, job.batch, count)
        if key not in self._steps:
            whole, rest = divmod(count, GPUS_PER_NODE)
            placement = (GPUS_PER_NODE,) * whole + ((rest,) if rest else ())
            local = math.ceil(job.batch / count - 1e-8)
            accumulation = math.ceil(local / job.app.max_local - 1e-8) - 1
            if count == 1:
                accumulation = max(1, accumulation)
            local = math.ceil(local / (accumulation + 1) - 1e-8)
            local = min(local, job.app.max_batch // (count * (accumulation + 1)))
            step, sync = job.app.step_time(placement, local)
            self._steps[key] = step + (step - sync) * accumulation
        return self._steps[key]
