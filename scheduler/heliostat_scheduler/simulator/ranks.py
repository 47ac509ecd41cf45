"""Between `estimate` and the engine: learned rest times become Estimated events, sent only when they have moved.

A job is estimated again when it arrives, when it has run half as long again as at its last estimate, and when a neighbour
finishes. The event carries whole milliseconds; the engine never sees a float or a true duration.
"""

from __future__ import annotations

import heapq

from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.simulator.drive import Drive

GROWTH = 1.25
FIRST_LOOK_S = 60.0
MOVED = 0.1
"""Relative change of an estimate below which the engine is not told."""


class Ranks:
    """Feeds one engine. Times in seconds."""

    def __init__(self, drive: Drive, history: RunHistory) -> None:
        self._drive = drive
        self.history = history
        self._sent: dict[str, float] = {}
        self._looks: list[tuple[float, str]] = []
        self._running: set[str] = set()
        self._due: dict[str, None] = {}

    def arrived(self, job: str, queue: str, gpus: int) -> None:
        self.history.arrived(job, queue, gpus)
        self._due[job] = None

    def started(self, job: str, now_s: float) -> None:
        self.history.started(job, now_s)
        self._running.add(job)
        self._look(job, now_s)

    def stopped(self, job: str, now_s: float) -> None:
        self.history.stopped(job, now_s)
        self._running.discard(job)
        self._due[job] = None

    def finished(self, job: str, now_s: float) -> None:
        self.history.finished(job, now_s)
        self._running.discard(job)
        self._sent.pop(job, None)
        self._due.pop(job, None)

    def everybody(self) -> None:
        """Estimate all known jobs at the next `send`."""
        self._due.update(dict.fromkeys(self._sent))

    def send(self, now_s: float) -> None:
        """Tell the engine every estimate that has moved."""
        while self._looks and self._looks[0][0] <= now_s:
            job = heapq.heappop(self._looks)[1]
            if job in self._running:
                self._due[job] = None
                self._look(job, now_s)
        if not self._due:
            return
        jobs = list(self._due)
        self._due = {}
        for job, rest in zip(jobs, self.history.rest_s(jobs, now_s), strict=True):
            before = self._sent.get(job)
            if before is None or abs(rest - before) > MOVED * before:
                self._sent[job] = rest
                ms = max(1, round(1000 * rest))
                self._drive.apply(Estimated(job, remaining_ms=ms, rank_ms=ms), round(1000 * now_s))

    def next_look(self) -> float | None:
        return self._looks[0][0] if self._looks else None

    def _look(self, job: str, now_s: float) -> None:
        ran = self.history.attained_s(job, now_s)
        heapq.heappush(self._looks, (now_s + max(FIRST_LOOK_S, (GROWTH - 1) * ran), job))
