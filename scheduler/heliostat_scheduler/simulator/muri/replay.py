"""The protocol of Muri's simulator with its three yardsticks: SRTF, SRSF and Tiresias.

At every event (arrival, completion, and for Tiresias a job that crosses a service threshold) the cluster is emptied and packed
again in priority order; a job that does not fit is skipped. Preemption itself is free, but every running job loses
`overhead` seconds of progress per interval between events. SRTF and SRSF place on nodes (first fit; more than eight GPUs take
whole nodes); Tiresias, as published, only counts free GPUs. The predicted completion ignores the overhead, as theirs does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from heliostat_scheduler.simulator.muri.data import GPUS_PER_NODE, NODES, MuriJob
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import Finished

TIRESIAS_LIMITS = (3250.0, 7200.0)
"""GPU-seconds at which a job moves to the next of three queues."""
ROUNDING = 1e-6
"""GPU-seconds by which float sums may miss a threshold; without it a jump to the threshold may repeat for ever."""


@dataclass(slots=True)
class Live:
    """A job inside the replay."""

    job: MuriJob
    remaining_s: float
    checked_s: float
    running: bool = False
    executed_s: float = 0.0
    level: int = 0
    preemptions: int = 0


Packer = Callable[[list[Live]], tuple[list[Live], list[Live]]]
"""Runnable jobs -> (those that run next, the runnable list in the order to keep)."""


class Replay:
    """One run over virtual time. `pack` decides who runs; `jump` names an extra instant to decide at, or infinity."""

    def __init__(self, jobs: list[MuriJob], pack: Packer, jump: Callable[[list[Live], float], float]) -> None:
        self._arrivals = jobs
        self._pack = pack
        self._jump = jump
        self._runnable: list[Live] = []
        self._done: list[Finished] = []

    def run(self) -> list[Finished]:
        next_arrival, now, ends = 0, 0.0, math.inf
        jump = math.inf
        with Progress("muri", len(self._arrivals)) as bar:
            while next_arrival < len(self._arrivals) or self._runnable:
                arrival = self._arrivals[next_arrival].submit_s if next_arrival < len(self._arrivals) else math.inf
                now = min(arrival, ends, jump)
                if now == math.inf:
                    raise RuntimeError("the replay stands still: jobs wait and nothing will happen")
                if ends == now:
                    self._finish(now)
                while next_arrival < len(self._arrivals) and self._arrivals[next_arrival].submit_s == now:
                    job = self._arrivals[next_arrival]
                    self._runnable.append(Live(job, job.duration_s, now))
                    next_arrival += 1
                self._advance(now)
                self._decide()
                ends = min((now + live.remaining_s for live in self._runnable if live.running), default=math.inf)
                jump = self._jump(self._runnable, now)
                bar.at(len(self._done))
        return self._done

    def _finish(self, now: float) -> None:
        for live in [x for x in self._runnable if x.running and x.checked_s + x.remaining_s == now]:
            self._runnable.remove(live)
            job = live.job
            self._done.append(Finished(job.id, "default", job.submit_s, job.duration_s, now, live.preemptions))

    def _advance(self, now: float) -> None:
        for live in self._runnable:
            if live.running:
                passed = now - live.checked_s
                live.remaining_s -= max(passed - live.job.overhead_s, 0.0)
                live.executed_s += passed
            live.checked_s = now

    def _decide(self) -> None:
        chosen, self._runnable = self._pack(self._runnable)
        keep = {id(live) for live in chosen}
        for live in self._runnable:
            runs = id(live) in keep
            live.preemptions += live.running and not runs
            live.running = runs


def place_first_fit(gpus: int, free: list[int]) -> bool:
    """Take `gpus` from the node list `free`, changing it: one node up to eight GPUs, whole nodes plus a rest above."""
    full, rest = divmod(gpus, GPUS_PER_NODE) if gpus > GPUS_PER_NODE else (0, gpus)
    whole = [node for node, idle in enumerate(free) if idle == GPUS_PER_NODE][:full]
    if len(whole) < full:
        return False
    last = next((n for n, idle in enumerate(free) if rest and idle >= rest and n not in whole), None)
    if rest and last is None:
        return False
    for node in whole:
        free[node] = 0
    if last is not None:
        free[last] -= rest
    return True


def _shortest(per_gpu: bool) -> Packer:
    def pack(runnable: list[Live]) -> tuple[list[Live], list[Live]]:
        runnable.sort(key=lambda x: x.remaining_s * x.job.gpus if per_gpu else x.remaining_s)
        free = [GPUS_PER_NODE] * NODES
        return [live for live in runnable if place_first_fit(live.job.gpus, free)], runnable

    return pack


def _tiresias(runnable: list[Live]) -> tuple[list[Live], list[Live]]:
    queues: list[list[Live]] = [[] for _ in range(len(TIRESIAS_LIMITS) + 1)]
    demoted: list[list[Live]] = [[] for _ in queues]
    for live in runnable:
        level = live.level
        if (
            live.running
            and level < len(TIRESIAS_LIMITS)
            and live.executed_s * live.job.gpus >= TIRESIAS_LIMITS[level] - ROUNDING
        ):
            live.level += 1
            demoted[live.level].append(live)
        else:
            queues[level].append(live)
    free, chosen, order = NODES * GPUS_PER_NODE, [], []
    for queue, new in zip(queues, demoted, strict=True):
        waiting = []
        for live in queue + new:
            if live.job.gpus <= free:
                free -= live.job.gpus
                chosen.append(live)
                order.append(live)
            else:
                waiting.append(live)
        order.extend(waiting)
    return chosen, order


def _tiresias_jump(runnable: list[Live], now: float) -> float:
    times = [
        math.ceil(TIRESIAS_LIMITS[live.level] / live.job.gpus) - live.executed_s + now
        for live in runnable
        if live.running and live.level < len(TIRESIAS_LIMITS)
    ]
    return min(times, default=math.inf)


def never(_: list[Live], __: float) -> float:
    return math.inf


def replay(jobs: list[MuriJob], policy: str) -> list[Finished]:
    """Run a yardstick policy: srtf, srsf or tiresias."""
    if policy == "tiresias":
        return Replay(jobs, _tiresias, _tiresias_jump).run()
    return Replay(jobs, _shortest(per_gpu=policy == "srsf"), never).run()
