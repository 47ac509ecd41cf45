"""`bench philly`: the trace on its tenants' own nodes (P2) or on one pool (P3), and what sharing costs whom."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from heliostat_scheduler.simulator.philly import data
from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, POOL, PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.philly.replay import Group, replay, waiting_in_order
from heliostat_scheduler.simulator.philly.shortfall import Shortfall
from heliostat_scheduler.simulator.philly.tenants import per_vc, static_delays
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import (
    BASELINE_DIGEST,
    Finished,
    Stopwatch,
    peak_memory_mb,
    summary,
    trace_name,
)
from heliostat_scheduler.simulator.tables import BadInput


def philly(arguments: argparse.Namespace) -> dict[str, object]:
    """The keys of `bench philly`. `wall_s`, `cpu_s` and `peak_memory_mb` are those of the replay, without the static references."""
    vcs = data.load_vcs(arguments.vcs)
    jobs = data.load_jobs(arguments.trace, vcs)
    name = f"{trace_name(arguments.trace)} on {arguments.cluster}"
    if arguments.policy == "heliostat":
        return _heliostat(arguments, vcs, jobs, name)
    watch = Stopwatch()
    pooled = arguments.cluster == "P3"
    done, shortfall = _pooled(jobs, vcs, arguments.policy) if pooled else (_apart(jobs, vcs, arguments.policy), 0.0)
    result = summary("philly", arguments.policy, name, done, watch, BASELINE_DIGEST)
    return result | {"shortfall_gpu_h": shortfall, "per_vc": per_vc(done, {}), "peak_memory_mb": peak_memory_mb()}


def _pooled(jobs: list[PhillyJob], vcs: dict[str, int], policy: str) -> tuple[list[Finished], float]:
    """A yardstick on all nodes at once, and what it withholds from the tenants' quotas."""
    shortfall = Shortfall({vc: GPUS_PER_NODE * nodes for vc, nodes in vcs.items()})

    def watch(now: int, group: Group) -> None:
        shortfall.used = group.used
        shortfall.until(now, lambda: _gpus_by_vc(group, policy))

    with Progress("philly", len(jobs)) as bar:
        done = replay(jobs, sum(vcs.values()), policy, bar.at, watch)
    return done, shortfall.gpu_h


def _gpus_by_vc(group: Group, policy: str) -> dict[str, list[int]]:
    waiting: dict[str, list[int]] = {}
    for live in waiting_in_order(group, policy):
        waiting.setdefault(live.job.vc, []).append(live.job.gpus)
    return waiting


def _apart(jobs: list[PhillyJob], vcs: dict[str, int], policy: str) -> list[Finished]:
    """A yardstick on every tenant's own nodes: nobody borrows, so nothing is withheld."""
    done: list[Finished] = []
    with Progress("philly", len(jobs)) as bar:
        for vc, nodes in vcs.items():
            mine = [job for job in jobs if job.vc == vc]
            for job in mine:
                if job.gpus > GPUS_PER_NODE * nodes:
                    raise BadInput(
                        f"job {job.id} needs {job.gpus} GPUs, {vc} has {GPUS_PER_NODE * nodes} on P2; use P3"
                    )
            done += replay(mine, nodes, policy, _after(bar.at, len(done)))
    return done


def _after(at: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: at(before + done)


def _heliostat(
    arguments: argparse.Namespace, vcs: dict[str, int], jobs: list[PhillyJob], name: str
) -> dict[str, object]:
    watch = Stopwatch()
    if arguments.cluster == "P3":
        tenant = {job.id: job.vc for job in jobs}
        world = PhillyWorld([replace(job, vc=POOL) for job in jobs], {POOL: sum(vcs.values())})
        done = [replace(job, queue=tenant[job.id]) for job in world.run()]
    else:
        world = PhillyWorld(jobs, vcs)
        done = world.run()
    result = summary("philly", "heliostat", name, done, watch, world.drive.policy_digest)
    result |= {"shortfall_gpu_h": world.shortfall.gpu_h, "peak_memory_mb": peak_memory_mb()}
    static = static_delays(jobs, vcs, arguments.trace) if arguments.cluster == "P2" else {}
    return result | {
        "per_vc": per_vc(done, static),
        "engine_s": round(world.drive.engine_s, 2),
        "cycles": world.drive.cycles,
    }
