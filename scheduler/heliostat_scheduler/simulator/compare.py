"""One trace under several policies, side by side: what `helio simulate` shows.

A policy is `default` (the shipped one), a profile of the conformance suite (`reclaim-quota`, `fair-sharing`, ...), or a yardstick that
ignores queues: fifo, sjf, srtf (these two know every duration) or tiresias. The same cluster, restart cost and placement rules hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.simulator import own_traces
from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.philly.replay import replay_group
from heliostat_scheduler.simulator.philly.tenants import delays
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.report import Replay, render
from heliostat_scheduler.simulator.results import BASELINE_DIGEST, Stopwatch, summary
from heliostat_scheduler.simulator.scenarios import PROFILES
from heliostat_scheduler.simulator.tables import BadInput

YARDSTICKS = ("fifo", "sjf", "srtf", "tiresias")
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Comparison:
    """replays: per policy its summary (with `utilization`, and `delay_s` per queue), finished jobs and spans."""

    trace: str
    gpus: int
    quotas: dict[str, int]
    gpus_of: dict[str, int]
    replays: dict[str, Replay]

    @property
    def rows(self) -> list[dict[str, object]]:
        return [replay.row for replay in self.replays.values()]

    def html(self) -> str:
        """A self-contained report with plots."""
        return render(self.trace, self.gpus, GPUS_PER_NODE, self.quotas, self.replays, self.gpus_of)


def policies() -> tuple[str, ...]:
    """All names that `compare` knows."""
    return (DEFAULT, *PROFILES, *YARDSTICKS)


def compare(
    trace: Path, names: list[str], nodes: int | None = None, queue_quotas: dict[str, int] | None = None
) -> Comparison:
    """Replay a trace on `nodes` nodes of eight GPUs (None: as many as the trace keeps 80 % busy) under each named policy."""
    unknown = [name for name in names if name not in policies()]
    if unknown or not names:
        raise BadInput(f"unknown policy {', '.join(unknown) or '(none given)'}; known: {', '.join(policies())}")
    jobs = own_traces.load(trace)
    nodes = own_traces.nodes_for(jobs) if nodes is None else nodes
    capacity = nodes * GPUS_PER_NODE
    own_traces.check_fit(jobs, capacity)
    quotas = own_traces.quotas(jobs, capacity, queue_quotas)
    replays = {name: _replay(name, trace.name, jobs, nodes, quotas) for name in dict.fromkeys(names)}
    return Comparison(trace.name, capacity, quotas, {job.id: job.gpus for job in jobs}, replays)


def _replay(name: str, trace: str, jobs: list[PhillyJob], nodes: int, quotas: dict[str, int]) -> Replay:
    watch = Stopwatch()
    if name in YARDSTICKS:
        with Progress(name, len(jobs)) as bar:
            group = replay_group(jobs, nodes, name, bar.at, lambda _, __: None)
        done, spans, digest = group.done, group.spans, BASELINE_DIGEST
    else:
        policy = Policy() if name == DEFAULT else replace(PROFILES[name], backfill=True)
        world = PhillyWorld(jobs, {}, policy, quotas, nodes, name=name)
        done, spans, digest = world.run(), world.spans, world.drive.policy_digest
    row = summary("compare", name, trace, done, watch, digest)
    begin, end = min(job.submit_s for job in jobs), max(job.finish_s for job in done)
    held = sum(span.gpus * (span.to_s - span.from_s) for span in spans)
    row["utilization"] = round(held / (nodes * GPUS_PER_NODE * max(1, end - begin)), 4)
    row["delay_s"] = {queue: round(value, 1) for queue, value in sorted(delays(done).items())}
    return Replay(row, done, spans)
