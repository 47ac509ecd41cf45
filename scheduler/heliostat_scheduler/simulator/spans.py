"""What ran when and where: the raw material of a report's plots.

A span is one stay of a job on its GPUs, from a start to the preemption or completion that ended it. Curves are means over equal
bins of time, so that a month and a minute make plots of the same size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heliostat_scheduler.simulator.results import Finished

BINS = 240
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """`held`: (node index, GPUs there) pairs."""

    job: str
    queue: str
    from_s: float
    to_s: float
    held: tuple[tuple[int, int], ...]

    @property
    def gpus(self) -> int:
        return sum(count for _, count in self.held)


@dataclass(frozen=True, slots=True)
class Curves:
    """Means per bin. edges_s: (bins + 1,); used, wanted: queue -> (bins,) GPUs held, and GPUs of all jobs in the system."""

    edges_s: Floats
    used: dict[str, Floats]
    wanted: dict[str, Floats]

    @property
    def middles_h(self) -> Floats:
        middles: Floats = (self.edges_s[1:] + self.edges_s[:-1]) / 7200
        return middles

    def utilization(self, gpus: int) -> Floats:
        """(bins,) share of the GPUs that are held."""
        return sum(self.used.values(), np.zeros(len(self.edges_s) - 1)) / gpus

    def fairness(self, quotas: dict[str, int]) -> Floats:
        """(bins,) the worst-off queue's share of what it is guaranteed: used / min(wanted, quota); 1 when nobody is short.

        Every queue counts only while it wants something; above its guarantee it is at 1.
        """
        worst = np.ones(len(self.edges_s) - 1)
        for queue, quota in quotas.items():
            due = np.minimum(self.wanted.get(queue, np.zeros_like(worst)), quota)
            held = self.used.get(queue, np.zeros_like(worst))
            share = np.divide(held, due, out=np.ones_like(worst), where=due > 0)
            worst = np.minimum(worst, share)
        return worst


def curves(spans: Sequence[Span], done: Sequence[Finished], gpus_of: dict[str, int]) -> Curves:
    """`gpus_of`: GPUs that each job wants."""
    end = max((job.finish_s for job in done), default=1.0)
    begin = min((job.submit_s for job in done), default=0.0)
    edges = np.linspace(begin, max(end, begin + 1), BINS + 1)
    used = _by_queue(edges, ((span.queue, span.from_s, span.to_s, span.gpus) for span in spans))
    wanted = _by_queue(edges, ((job.queue, job.submit_s, job.finish_s, gpus_of[job.id]) for job in done))
    return Curves(edges, used, wanted)


def _by_queue(edges: Floats, stays: Iterable[tuple[str, float, float, int]]) -> dict[str, Floats]:
    """Mean level per bin and queue, from the integral of the level at the edges."""
    rows: dict[str, list[tuple[float, float, int]]] = {}
    for queue, begin, end, gpus in stays:
        rows.setdefault(queue, []).append((begin, end, gpus))
    return {queue: _mean_level(edges, np.array(found, dtype=float)) for queue, found in sorted(rows.items())}


def _mean_level(edges: Floats, stays: Floats) -> Floats:
    """stays: (n, 3) of begin, end, GPUs -> (bins,)."""
    times = np.concatenate([stays[:, 0], stays[:, 1]])
    steps = np.concatenate([stays[:, 2], -stays[:, 2]])
    order = np.argsort(times, kind="stable")
    times, levels = times[order], np.cumsum(steps[order])
    area = np.concatenate([[0.0], np.cumsum(np.diff(times) * levels[:-1])])
    at_edges = np.interp(edges, times, area, left=0.0, right=float(area[-1]))
    return np.asarray(np.diff(at_edges) / np.diff(edges))
