"""How much longer a job will run, learned from the jobs around it; the number by which equals are ranked.

Nobody declares run times, but they are far from unknown: jobs of one queue that arrive near each other resemble each other (they are
one search, one debugging session, one evening's sweep), and more so with the same GPU count or the same template. The estimate for
a job that has run for `a` seconds is the weighted geometric mean of `d - a` over samples `d > a`:
neighbours in order of arrival, weight exp(-distance / TAU), finished ones with their run time, running ones at twice what they have
run so far; then all finished jobs, as a histogram by GPU count; then a log-uniform prior, so that without history the
estimate grows with `a` and the ranking becomes least attained service. The geometric mean, because run times span six decades.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SHORTEST_S = 30.0
LONGEST_S = 3e7
REST_BEYOND = 1.0
"""Estimated rest, as a share of what it has run, of a job that outran every sample."""


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The numbers of the estimate; one set for every cluster."""

    tau: float = 30.0
    """Distance in arrivals at which a neighbour's weight falls to 1/e."""
    reach: int = 150
    """Neighbours looked at on each side."""
    same_gpus: float = 3.0
    """Weight of a neighbour with the same GPU count, relative to another one."""
    same_template: float = 10.0
    """Weight of a neighbour of the same template, relative to another one."""
    running: float = 1.0
    """Weight of a neighbour that still runs, relative to a finished one."""
    overall_gpus: float = 2.0
    """Total weight of all finished jobs with the same GPU count."""
    overall: float = 0.3
    """Total weight of all finished jobs."""
    prior: float = 0.1
    """Total weight of the log-uniform prior."""
    bins: int = 60
    """Bins of the histograms, log-spaced."""


@dataclass(slots=True)
class Line:
    """One queue's arrivals, in order, as growing arrays. done: run time or NaN; base + (now - since) is what it has run."""

    size: int = 0
    gpus: Ints = field(default_factory=lambda: np.zeros(64, dtype=np.int64))
    template: Ints = field(default_factory=lambda: np.zeros(64, dtype=np.int64))
    done: Floats = field(default_factory=lambda: np.full(64, np.nan))
    base: Floats = field(default_factory=lambda: np.zeros(64))
    since: Floats = field(default_factory=lambda: np.full(64, np.nan))

    def append(self, gpus: int, template: int) -> int:
        if self.size == len(self.gpus):
            for name, fill in (("gpus", 0), ("template", 0), ("done", np.nan), ("base", 0.0), ("since", np.nan)):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.full(len(old), fill, dtype=old.dtype)]))
        self.gpus[self.size], self.template[self.size] = gpus, template
        self.size += 1
        return self.size - 1

    def copy(self) -> Line:
        return Line(
            self.size, self.gpus.copy(), self.template.copy(), self.done.copy(), self.base.copy(), self.since.copy()
        )

    def ran(self, rows: Ints, now_s: float) -> Floats:
        since = self.since[rows]
        return self.base[rows] + np.where(np.isnan(since), 0.0, now_s - since)

    def ran_one(self, row: int, now_s: float) -> float:
        since = float(self.since[row])
        return float(self.base[row]) + (0.0 if math.isnan(since) else now_s - since)


class RunHistory:
    """Feed it arrivals, starts, stops and completions; ask for the expected rest. Times in seconds."""

    def __init__(self, settings: HistorySettings | None = None) -> None:
        self.settings = settings or HistorySettings()
        self._lines: dict[str, Line] = {}
        self._at: dict[str, tuple[Line, int]] = {}
        self._templates: dict[str, int] = {}
        bins = self.settings.bins
        edges = np.geomspace(SHORTEST_S, LONGEST_S, bins + 1)
        self._first_edge, self._step = math.log(SHORTEST_S), math.log(LONGEST_S / SHORTEST_S) / bins
        self._centres: Floats = np.sqrt(edges[:-1] * edges[1:])
        self._counts: dict[int, Floats] = {}
        self._all: Floats = np.zeros(bins)
        self._far: dict[int, Floats] = {}
        reach = self.settings.reach
        self._offsets: Ints = np.arange(-reach, reach + 1)
        self._kernel: Floats = np.exp(-np.abs(self._offsets) / self.settings.tau)
        self._kernel[reach] = 0.0

    def twin(self) -> RunHistory:
        """An independent copy."""
        twin = RunHistory(self.settings)
        twin._lines = {queue: line.copy() for queue, line in self._lines.items()}
        lines = {id(line): twin._lines[queue] for queue, line in self._lines.items()}
        twin._at = {job: (lines[id(line)], row) for job, (line, row) in self._at.items()}
        twin._templates = self._templates.copy()
        twin._counts = {gpus: counts.copy() for gpus, counts in self._counts.items()}
        twin._all = self._all.copy()
        return twin

    # -- facts

    def arrived(self, job: str, queue: str, gpus: int, template: str = "") -> None:
        line = self._lines.setdefault(queue, Line())
        # Without a template it resembles no neighbour of its line more than the others.
        number = self._templates.setdefault(template, len(self._templates)) if template else -2 - line.size
        self._at[job] = (line, line.append(gpus, number))

    def started(self, job: str, now_s: float) -> None:
        line, row = self._at[job]
        line.since[row] = now_s

    def has_run(self, job: str, ran_s: float, now_s: float) -> None:
        """Somebody has kept books: up to now it has run so long in all."""
        line, row = self._at[job]
        since = float(line.since[row])
        line.base[row] = ran_s if math.isnan(since) else ran_s - (now_s - since)

    def stopped(self, job: str, now_s: float) -> None:
        """Preempted: what it has run stays on its account."""
        line, row = self._at[job]
        line.base[row] += now_s - line.since[row]
        line.since[row] = np.nan

    def finished(self, job: str, now_s: float) -> None:
        line, row = self._at.pop(job)
        total = line.ran_one(row, now_s)
        line.done[row], line.since[row] = max(1.0, total), np.nan
        place = int((math.log(max(total, SHORTEST_S)) - self._first_edge) / self._step)
        place = min(place, self.settings.bins - 1)
        self._far = {}
        self._all[place] += 1
        self._counts.setdefault(int(line.gpus[row]), np.zeros(self.settings.bins))[place] += 1

    def dropped(self, job: str) -> None:
        """Left without finishing: says nothing about run times."""
        line, row = self._at.pop(job)
        line.base[row], line.since[row] = 0.0, np.nan

    def attained_s(self, job: str, now_s: float) -> float:
        line, row = self._at[job]
        return line.ran_one(row, now_s)

    # -- estimates

    def rest_s(self, jobs: list[str], now_s: float) -> list[float]:
        """Expected remaining run time of each job, given what it has run."""
        groups: dict[int, tuple[Line, list[int], list[int]]] = {}
        for position, job in enumerate(jobs):
            line, row = self._at[job]
            _, rows, places = groups.setdefault(id(line), (line, [], []))
            rows.append(row)
            places.append(position)
        answer = [0.0] * len(jobs)
        for line, rows, places in groups.values():
            for place, rest in zip(places, self._rest(line, np.array(rows), now_s), strict=True):
                answer[place] = float(rest)
        return answer

    def fresh_s(self, queue: str, now_s: float) -> float:
        """Expected run time of a job that would arrive in the queue now, as large as the one before it."""
        line = self._lines[queue]
        row = line.append(int(line.gpus[line.size - 1]), -1)
        rest = float(self._rest(line, np.array([row]), now_s)[0])
        line.size -= 1
        return rest

    def draw_s(self, jobs: list[str], now_s: float, shares: list[float]) -> list[float]:
        """Of each job a quantile of its remaining run time, given what it has run: drawn shares give possible futures."""
        answer = []
        for job, share in zip(jobs, shares, strict=True):
            line, row = self._at[job]
            rows = np.array([row])
            ran = float(line.ran(rows, now_s)[0])
            near_d, near_w = self._neighbours(line, rows, now_s)
            samples = np.concatenate([near_d[0], self._centres]) - ran
            weight = np.where(samples > 0, np.concatenate([near_w[0], self._overall(int(line.gpus[row]))]), 0.0)
            order = np.argsort(samples)
            summed = np.cumsum(weight[order])
            if summed[-1] <= 0:
                answer.append(REST_BEYOND * ran + 1.0)
                continue
            place = min(int(np.searchsorted(summed, share * summed[-1], side="right")), len(order) - 1)
            answer.append(max(1.0, float(samples[order[place]])))
        return answer

    def _rest(self, line: Line, rows: Ints, now_s: float) -> Floats:
        ran = line.ran(rows, now_s)
        near_d, near_w = self._neighbours(line, rows, now_s)
        far_w = np.stack([self._overall(int(gpus)) for gpus in line.gpus[rows]])
        rest = np.concatenate([near_d, np.broadcast_to(self._centres, far_w.shape)], axis=1) - ran[:, None]
        weight = np.where(rest > 0, np.concatenate([near_w, far_w], axis=1), 0.0)
        total = weight.sum(axis=1)
        logs = (weight * np.log(np.maximum(rest, 1.0))).sum(axis=1)
        return np.where(total > 0, np.exp(logs / np.maximum(total, 1e-300)), REST_BEYOND * ran + 1.0)

    def _neighbours(self, line: Line, rows: Ints, now_s: float) -> tuple[Floats, Floats]:
        """Samples and weights of the neighbours in order of arrival, (jobs, 2 reach + 1) each."""
        if len(rows) == 1:
            return self._around(line, int(rows[0]), now_s)
        settings = self.settings
        index = rows[:, None] + self._offsets
        inside = (index >= 0) & (index < line.size)
        index = np.clip(index, 0, line.size - 1)
        done = line.done[index]
        finished = ~np.isnan(done)
        ran = line.ran(index, now_s)
        alive = ~finished & (ran > 0)
        sample = np.where(finished, done, 2.0 * ran)
        weight = self._kernel * inside * (finished + settings.running * alive)
        weight *= np.where(line.gpus[index] == line.gpus[rows][:, None], settings.same_gpus, 1.0)
        weight *= np.where(line.template[index] == line.template[rows][:, None], settings.same_template, 1.0)
        return sample, weight

    def _around(self, line: Line, row: int, now_s: float) -> tuple[Floats, Floats]:
        """As `_neighbours`, of a single job: the same numbers, without gathering them row by row."""
        settings, reach = self.settings, self.settings.reach
        low, high = max(0, row - reach), min(line.size, row + reach + 1)
        first, last = low - row + reach, high - row + reach
        done, since = line.done[low:high], line.since[low:high]
        finished = ~np.isnan(done)
        ran = line.base[low:high] + np.where(np.isnan(since), 0.0, now_s - since)
        part = self._kernel[first:last] * (finished + settings.running * (~finished & (ran > 0)))
        part *= np.where(line.gpus[low:high] == line.gpus[row], settings.same_gpus, 1.0)
        part *= np.where(line.template[low:high] == line.template[row], settings.same_template, 1.0)
        sample, weight = np.empty((1, 2 * reach + 1)), np.zeros((1, 2 * reach + 1))
        sample[0, first:last], weight[0, first:last] = np.where(finished, done, 2.0 * ran), part
        sample[0, :first], sample[0, last:] = sample[0, first], sample[0, last - 1]
        return sample, weight

    def _overall(self, gpus: int) -> Floats:
        """Weights of the histogram bins: all jobs, those of the same GPU count, the prior. Kept until a job finishes."""
        known = self._far.get(gpus)
        if known is None:
            known = self._far[gpus] = self._mix(gpus)
        return known

    def _mix(self, gpus: int) -> Floats:
        settings = self.settings
        weight = np.full(settings.bins, settings.prior / settings.bins)
        same = self._counts.get(gpus)
        for counts, share in ((same, settings.overall_gpus), (self._all, settings.overall)):
            if counts is not None and (total := counts.sum()) > 0:
                weight = weight + counts * (share * min(1.0, total / 20) / total)
        return weight
