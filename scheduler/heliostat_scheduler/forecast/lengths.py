"""How long jobs run, as far as it can be known: what finished jobs like it ran, else what it declared, else a wide guess.

`Lengths.rest_ms(spec, ran, u)` is the u-quantile of the remaining run time of a job that has run for `ran`: of the samples longer than
`ran`, those of the same template if there are a few, else of the same queue and GPU count, else of the queue, else of all. After `beside`
it is also known who has begun: a burst that ends slower or faster than its kind stretches its draws (`cohort`). A declared
limit bounds the answer from above and stands in where nothing was learned. A *draw* takes u from a seed and the job's id, so that
the same job runs equally long in two futures that are compared.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import NormalDist

from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast.cohort import NEWEST, Cohort, Ended, Pace, cohort, hazard_at

FEW = 5
"""Samples of a kind below which a wider kind is asked."""
KEPT = 2_000
"""Newest samples kept of a kind."""
SHORTEST_MS, LONGEST_MS = 60_000, 24 * 3_600_000
"""Bounds of the guess where nothing is known: log-uniform between them."""
TOGETHER = 0.25
"""Correlation of the draws of two jobs of a queue in one future (of normal scores; a Gaussian copula)."""
NORMAL = NormalDist()
TINY = 1 / (1 << 49)
BEYOND = 1000
"""Rest, in thousandths of what it has run, of a job that outran everything known."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished job."""

    queue: str
    template: str
    gpu_milli: int
    ran_ms: int
    ended_ms: int = 0
    submitted_ms: int = 0
    """When; ended_ms 0: not known, then it belongs to no cohort."""


@dataclass(slots=True)
class _Samples:
    by_length: list[int] = field(default_factory=list)
    by_age: list[int] = field(default_factory=list)
    lately: deque[Ended] = field(default_factory=lambda: deque(maxlen=NEWEST))

    def add(self, ran: Ran) -> None:
        ran_ms = max(1, ran.ran_ms)
        if ran.ended_ms:
            self.lately.append(Ended(ran.submitted_ms, ran.ended_ms, ran_ms))
        insort(self.by_length, ran_ms)
        self.by_age.append(ran_ms)
        if len(self.by_age) > KEPT:
            oldest = self.by_age.pop(0)
            del self.by_length[bisect_right(self.by_length, oldest) - 1]


class Lengths:
    """Feed it finished jobs, oldest first."""

    def __init__(self, finished: Iterable[Ran] = ()) -> None:
        self._kinds: dict[tuple[str, ...], _Samples] = {}
        self._begun: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        self._cohorts: dict[tuple[str, ...], Cohort] = {}
        self._paces: dict[tuple[int | None, tuple[str, ...]], Pace] = {}
        self._now = False
        for ran in finished:
            self.add(ran)

    def add(self, ran: Ran) -> None:
        for kind in _kinds(ran.queue, ran.template, ran.gpu_milli):
            self._kinds.setdefault(kind, _Samples()).add(ran)

    def beside(self, begun: Iterable[tuple[JobSpec, int]]) -> Lengths:
        """The same knowledge at this moment, when these have begun and not ended: (job, milliseconds it has run)."""
        twin = Lengths()
        twin._kinds, twin._now = self._kinds, True
        for spec, ran_ms in begun:
            for kind in _kinds(spec.queue, spec.template, spec.shape.gpu_milli * spec.min_tasks):
                twin._begun.setdefault(kind, []).append((spec.submitted_at_ms, ran_ms))
        return twin

    def knows(self, spec: JobSpec) -> bool:
        """Whether anything is known of how long it runs: it declares it, or a few have finished. Else `rest_ms` is a guess."""
        if spec.max_runtime_ms is not None or spec.expected_runtime_ms is not None:
            return True
        kinds = (
            self._kinds.get(kind) for kind in _kinds(spec.queue, spec.template, spec.shape.gpu_milli * spec.min_tasks)
        )
        return any(samples is not None and len(samples.by_length) >= FEW for samples in kinds)

    def rest_ms(self, spec: JobSpec, ran_ms: int, u: float, seed: int | None = None) -> int:
        """Remaining milliseconds; at least 1. seed: of a future that draws how its cohorts differ from history; None: as expected."""
        rest = self._learned(spec, ran_ms, u, seed)
        limit = spec.max_runtime_ms
        if limit is not None:
            left = max(1, limit - ran_ms)
            return left if rest is None else min(rest, left)
        if rest is None and spec.expected_runtime_ms is not None:
            rest = spec.expected_runtime_ms - ran_ms
        if rest is None:
            rest = _guess(ran_ms, u)
        return max(1, rest)

    def _pace(self, kind: tuple[str, ...], seed: int | None) -> Pace | None:
        """Of those of the kind that came last; None where nobody said who has begun."""
        if not self._now:
            return None
        known = self._paces.get((seed, kind))
        if known is None:
            found = self._cohorts.get(kind)
            if found is None:
                samples = self._kinds[kind]
                found = cohort(samples.by_length, samples.lately, self._begun.get(kind, ()))
                self._cohorts[kind] = found
            known = found.pace() if seed is None else found.draw(f"{seed} {' '.join(kind)}")
            self._paces[seed, kind] = known
        return known

    def _learned(self, spec: JobSpec, ran_ms: int, u: float, seed: int | None) -> int | None:
        found: list[int] | None = None
        for kind in _kinds(spec.queue, spec.template, spec.shape.gpu_milli * spec.min_tasks):
            samples = self._kinds.get(kind)
            if samples is None:
                continue
            lengths = samples.by_length
            first = bisect_right(lengths, ran_ms)
            count = len(lengths) - first
            if count >= FEW:
                pace = self._pace(kind, seed)
                share = u if pace is None else pace.share(hazard_at(lengths, ran_ms), u)
                return lengths[first + min(count - 1, int(share * count))] - ran_ms
            found = found if found is not None else lengths
        if found is None:
            return None
        return (
            max(1, ran_ms * BEYOND // 1000)
            if ran_ms >= found[-1]
            else found[min(len(found) - 1, bisect_right(found, ran_ms))] - ran_ms
        )

    def draw(self, seed: int) -> Callable[[JobSpec, int], int]:
        """The lengths of one possible future, in which the jobs of a queue tend to be long or short together."""
        moods: dict[str, float] = {}

        def length(spec: JobSpec, ran_ms: int) -> int:
            if spec.queue not in moods:
                moods[spec.queue] = math.sqrt(TOGETHER) * _normal(seed, f"queue/{spec.queue}")
            own = math.sqrt(1 - TOGETHER) * _normal(seed, spec.id)
            return self.rest_ms(spec, ran_ms, min(NORMAL.cdf(moods[spec.queue] + own), 1 - TINY), seed)

        return length


def uniform(seed: int, name: str) -> float:
    """A number in [0, 1) for a name: the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big") / (1 << 48)


def _normal(seed: int, name: str) -> float:
    return NORMAL.inv_cdf(uniform(seed, name) or TINY)


def _kinds(queue: str, template: str, gpu_milli: int) -> list[tuple[str, ...]]:
    """From the narrowest to the widest."""
    named = [("template", queue, template)] if template and not template.endswith("/") else []
    return [*named, ("size", queue, str(gpu_milli)), ("queue", queue), ("all",)]


def _guess(ran_ms: int, u: float) -> int:
    """Log-uniform, given that it has run for `ran_ms`: the longer it has run, the longer it goes on."""
    low = max(SHORTEST_MS, ran_ms)
    high = max(LONGEST_MS, 2 * low)
    return int(low * (high / low) ** u) - ran_ms
