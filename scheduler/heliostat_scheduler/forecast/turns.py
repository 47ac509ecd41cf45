"""In a future, too, jobs are ranked by what is expected of them, and that changes while they run.

Live, whoever has run for long is expected to run on for long, and gives way to equals that are expected to be done soon; a job that comes is
ranked by what its neighbours ran. A future without that would let those who run now run to their end, and would put whoever comes
first. So it takes a copy of the live expectations, tells it what happens, and the engine what has moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, Phase
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.core.model import JobSpec

if TYPE_CHECKING:
    from heliostat_scheduler.estimate.expectation import Expectations

RUNS = frozenset({Phase.RUNNING, Phase.RESIZING})


class Turns:
    """Of one future. Times in milliseconds."""

    def __init__(self, expected: Expectations, engine: Engine, now_ms: int) -> None:
        """Who waits and who runs is the engine's word; `expected` may be a moment older, and stays as it is."""
        self._expected = expected.twin()
        self._engine = engine
        book = engine.state.book.jobs
        for job_id in self._expected.jobs():
            if job_id not in book:
                self._expected.dropped(job_id)
        for job_id in sorted(book):
            self._see(book[job_id], now_ms)

    def _see(self, rec: JobRec, now_ms: int) -> None:
        known = rec.id in self._expected
        if not known:
            self.arrived(rec.spec)
        runs = rec.phase in RUNS
        if runs and not (known and self._expected.runs(rec.id)):
            self.started(rec.id, min(now_ms, rec.running_at or now_ms))
        elif known and not runs and self._expected.runs(rec.id):
            self.stopped(rec.id, now_ms)
        if rec.remaining_ms is not None:
            self._expected.told[rec.id] = rec.remaining_ms / 1000

    def ran_ms(self, job_id: str, now_ms: int) -> int:
        """How long it has run in all, before it was stopped included."""
        return max(0, round(1000 * self._expected.history.attained_s(job_id, now_ms / 1000)))

    def arrived(self, spec: JobSpec) -> None:
        self._expected.arrived(spec.id, spec.queue, spec.min_tasks * spec.shape.gpu_milli, spec.template)

    def started(self, job_id: str, now_ms: int) -> None:
        self._expected.started(job_id, now_ms / 1000)

    def stopped(self, job_id: str, now_ms: int) -> None:
        self._expected.stopped(job_id, now_ms / 1000)

    def finished(self, job_id: str, now_ms: int) -> None:
        self._expected.finished(job_id, now_ms / 1000)

    def dropped(self, job_id: str) -> None:
        self._expected.dropped(job_id)

    def moved(self, now_ms: int) -> list[Estimated]:
        """What the engine has to be told now."""
        state = self._engine.state
        found = []
        for job_id, rest in self._expected.moved(now_ms / 1000):
            rest_ms = max(1, round(1000 * rest))
            ranks = state.policy.rotate and state.book.leaf_of(state.book.jobs[job_id]).spec.rotate
            found.append(Estimated(job_id, remaining_ms=rest_ms, rank_ms=rest_ms if ranks else 0))
        return found
