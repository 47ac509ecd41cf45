"""One trace under several policies, side by side: what `helio simulate` shows.

A policy is `default` (the shipped one), a profile of the conformance suite (`reclaim-quota`, `fair-sharing`, ...), or a yardstick that
ignores queues: fifo, sjf, srtf (these two know every duration) or tiresias. The same cluster, restart cost and placement rules hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.simulator import own_traces
from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.philly.replay import replay
from heliostat_scheduler.simulator.philly.tenants import delays
from heliostat_scheduler.simulator.report import render
from heliostat_scheduler.simulator.results import Finished, summary
from heliostat_scheduler.simulator.scenarios import PROFILES
from heliostat_scheduler.simulator.tables import BadInput

YARDSTICKS = ("fifo", "sjf", "srtf", "tiresias")
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Comparison:
    """rows: one summary per policy, with `delay_s` per queue. done: the finished jobs per policy."""

    trace: str
    gpus: int
    quotas: dict[str, int]
    rows: list[dict[str, object]]
    done: dict[str, list[Finished]]

    def html(self) -> str:
        """A self-contained report with plots."""
        return render(self.trace, self.gpus, self.quotas, self.rows, self.done)


def policies() -> tuple[str, ...]:
    """All names that `compare` knows."""
    return (DEFAULT, *PROFILES, *YARDSTICKS)


def compare(trace: Path, names: list[str], nodes: int, queue_quotas: dict[str, int] | None = None) -> Comparison:
    """Replay a trace on `nodes` nodes of eight GPUs under each named policy."""
    unknown = [name for name in names if name not in policies()]
    if unknown or not names:
        raise BadInput(f"unknown policy {', '.join(unknown) or '(none given)'}; known: {', '.join(policies())}")
    capacity = nodes * GPUS_PER_NODE
    jobs = own_traces.load(trace, capacity)
    quotas = own_traces.quotas(jobs, capacity, queue_quotas)
    rows, done = [], {}
    for name in names:
        began = time.monotonic()
        done[name], digest = _run(name, jobs, nodes, quotas)
        row = summary("compare", name, trace.name, done[name], time.monotonic() - began, digest)
        rows.append(row | {"delay_s": {queue: round(value, 1) for queue, value in sorted(delays(done[name]).items())}})
    return Comparison(trace.name, capacity, quotas, rows, done)


def _run(name: str, jobs: list[PhillyJob], nodes: int, quotas: dict[str, int]) -> tuple[list[Finished], str]:
    if name in YARDSTICKS:
        return replay(jobs, nodes, name), "baseline"
    policy = Policy() if name == DEFAULT else replace(PROFILES[name], backfill=True)
    world = PhillyWorld(jobs, {}, policy, quotas, nodes)
    return world.run(), world.drive.policy_digest
