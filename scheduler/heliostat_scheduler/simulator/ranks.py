"""Between `estimate` and the engine of a simulation: estimates that have moved become Estimated events.

The event carries whole milliseconds; the engine never sees a float or a true duration.
"""

from __future__ import annotations

from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.estimate.expectation import Expectations
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.simulator.drive import Drive


class Ranks(Expectations):
    """Feeds one engine. Times in seconds."""

    def __init__(self, drive: Drive, history: RunHistory) -> None:
        super().__init__(history)
        self._drive = drive

    def send(self, now_s: float) -> None:
        """Tell the engine every estimate that has moved."""
        for job, rest in self.moved(now_s):
            ms = max(1, round(1000 * rest))
            self._drive.apply(Estimated(job, remaining_ms=ms, rank_ms=ms), round(1000 * now_s))
