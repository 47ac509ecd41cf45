"""When each job's expected rest is looked at again, and which of the answers have moved so far that the engine should know.

A job is looked at when it arrives, when it has been stopped, and when it has run a quarter longer than at its last look; where a queue has to
finish some jobs before anything is believed of it (`fewest`), all of the queue when it has, and again whenever that number has grown by a quarter.
The simulator and the live platform feed the same object. Times in seconds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

from heliostat_scheduler.estimate.history import RunHistory

GROWTH = 1.25
FIRST_LOOK_S = 60.0
MOVED = 0.1
"""Relative change of an estimate below which nobody is told."""


@dataclass(slots=True)
class QueueOf:
    """The live jobs of one queue, in order of arrival, and how many have finished; `next_at`: with how many all are looked at again."""

    name: str
    next_at: int
    finished: int = 0
    jobs: dict[str, None] = field(default_factory=dict)


class Expectations:
    """fewest: a queue's jobs are estimated from its so many finished ones on."""

    def __init__(self, history: RunHistory, fewest: int = 0) -> None:
        self.history = history
        self.fewest = fewest
        self.told: dict[str, float] = {}
        self._looks: list[tuple[float, str]] = []
        self._running: set[str] = set()
        self._due: dict[str, None] = {}
        self._queue_of: dict[str, QueueOf] = {}
        self._queues: dict[str, QueueOf] = {}

    def twin(self) -> Expectations:
        """An independent copy."""
        twin = Expectations(self.history.twin(), self.fewest)
        twin.told, twin._running, twin._due = self.told.copy(), self._running.copy(), self._due.copy()
        twin._looks = [look for look in self._looks if look[1] in self._running]
        heapq.heapify(twin._looks)
        twin._queues = {name: replace(queue, jobs=queue.jobs.copy()) for name, queue in self._queues.items()}
        twin._queue_of = {job: twin._queues[queue.name] for job, queue in self._queue_of.items()}
        return twin

    def __contains__(self, job: str) -> bool:
        return job in self._queue_of

    def jobs(self) -> list[str]:
        """All that are live."""
        return list(self._queue_of)

    def runs(self, job: str) -> bool:
        return job in self._running

    # -- facts

    def arrived(self, job: str, queue: str, gpus: int, template: str = "") -> None:
        self.history.arrived(job, queue, gpus, template)
        mine = self._queue_of[job] = self._queues.setdefault(queue, QueueOf(queue, self.fewest))
        mine.jobs[job] = None
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
        queue = self._forget(job)
        queue.finished += 1
        if self.fewest and queue.finished >= queue.next_at:
            queue.next_at = max(self.fewest, round(GROWTH * queue.finished))
            self.everybody_of(queue.name)

    def dropped(self, job: str) -> None:
        """Left without finishing: says nothing about run times."""
        self.history.dropped(job)
        self._forget(job)

    def everybody(self) -> None:
        """All jobs that have an estimate are looked at again."""
        self._due.update(dict.fromkeys(self.told))

    def everybody_of(self, queue: str) -> None:
        """All jobs of the queue are looked at again: the newest of those that wait first, what runs last.

        Where a job without a rank goes before those that have one, so that the order of a queue stays as it was until all of it is ranked.
        """
        mine = self._queues.get(queue, QueueOf(queue, 0))
        waiting = [job for job in reversed(mine.jobs) if job not in self._running]
        for job in (*waiting, *(job for job in mine.jobs if job in self._running)):
            self._due.pop(job, None)
            self._due[job] = None

    def anew(self, queue: str) -> None:
        """As `everybody_of`, and told whatever comes out."""
        for job in self._queues[queue].jobs if queue in self._queues else ():
            self.told.pop(job, None)
        self.everybody_of(queue)

    # -- answers

    def queues(self) -> list[str]:
        """Those of which enough is known."""
        return sorted(name for name, queue in self._queues.items() if queue.finished >= self.fewest)

    def learned(self, queue: str) -> int:
        """How many finished jobs of the queue speak for its estimates; 0 while they are too few."""
        known = self._queues.get(queue)
        return known.finished if known is not None and known.finished >= self.fewest else 0

    def moved(self, now_s: float, most: int | None = None) -> list[tuple[str, float]]:
        """(job, expected rest) of at most so many jobs that are due, where it has moved; from now on they count as told."""
        while self._looks and self._looks[0][0] <= now_s:
            job = heapq.heappop(self._looks)[1]
            if job in self._running:
                self._due[job] = None
                self._look(job, now_s)
        jobs = list(self._due) if most is None else self._next(most)
        if not jobs:
            return []
        self._due = {} if most is None else self._due
        found = []
        for job, rest in zip(jobs, self.history.rest_s(jobs, now_s), strict=True):
            before = self.told.get(job)
            if before is None or abs(rest - before) > MOVED * before:
                self.told[job] = rest
                found.append((job, rest))
        return found

    def next_look(self) -> float | None:
        """When `moved` should be asked again: at once (0) while somebody is due."""
        if self._due:
            return 0.0
        return self._looks[0][0] if self._looks else None

    # -- parts

    def _next(self, most: int) -> list[str]:
        """Take the first that are due and whose queues have learned enough; the others are due once these have."""
        found: list[str] = []
        while self._due and len(found) < most:
            job = next(iter(self._due))
            del self._due[job]
            if self._queue_of[job].finished >= self.fewest:
                found.append(job)
        return found

    def _forget(self, job: str) -> QueueOf:
        self._running.discard(job)
        self.told.pop(job, None)
        self._due.pop(job, None)
        queue = self._queue_of.pop(job)
        del queue.jobs[job]
        return queue

    def _look(self, job: str, now_s: float) -> None:
        ran = self.history.attained_s(job, now_s)
        heapq.heappush(self._looks, (now_s + max(FIRST_LOOK_S, (GROWTH - 1) * ran), job))
