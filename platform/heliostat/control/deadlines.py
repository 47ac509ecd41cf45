"""No state lasts for ever: what is done when one does, and when somebody has to look again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from heliostat_scheduler.core.events import JobTimedOut
from heliostat_scheduler.core.lifecycle import JobState

from heliostat.control import endings
from heliostat.control.attempts import Attempt, Phase
from heliostat.control.executor import Executor
from heliostat.control.outbox import Outbox
from heliostat.control.patience import CLOSE_PATIENCE_MS, LOOK_PATIENCE_MS

RUNS = (JobState.RUNNING, JobState.RESIZING)


@dataclass(slots=True)
class Deadlines:
    executor: Executor

    def tick(self, out: Outbox, now_ms: int, *, connected: bool) -> None:
        """Everything that is due. Without a bridge only drivers are looked after: nobody could have answered."""
        for attempt in list(self.executor.attempts.values()):
            self._look(attempt, out, now_ms)
            if connected and attempt.due_ms is not None and attempt.due_ms <= now_ms:
                self._overdue(attempt, out, now_ms)
            limit = _run_limit(attempt)
            if limit is not None and limit <= now_ms and attempt.in_engine:
                attempt.run_limit_ms = None
                attempt.over_limit = out.event(JobTimedOut(attempt.job))
        for attempt in self.executor.parked.values():
            self._look(attempt, out, now_ms)
        self.executor.leftovers.tick(out, now_ms)

    def _look(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        if attempt.poll_ms is not None and attempt.poll_ms <= now_ms and not attempt.process_done:
            attempt.poll_ms = now_ms + LOOK_PATIENCE_MS
            out.step(attempt.job, None, partial(self.executor.drivers.look, attempt.submission_id))

    def next_ms(self, *, connected: bool) -> int | None:
        """The earliest moment at which `tick` has something to do."""
        left = self.executor.leftovers.next_ms()
        moments = [] if left is None else [left]
        moments += [attempt.poll_ms for attempt in self.executor.parked.values() if attempt.poll_ms is not None]
        for attempt in self.executor.attempts.values():
            if attempt.poll_ms is not None and not attempt.process_done:
                moments.append(attempt.poll_ms)
            if connected and attempt.due_ms is not None:
                moments.append(attempt.due_ms)
            limit = _run_limit(attempt)
            if limit is not None and attempt.in_engine:
                moments.append(limit)
        return min(moments, default=None)

    def _overdue(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        executor = self.executor
        match attempt.phase:
            case Phase.GRANTING:
                text = "The lease was not granted in time."
                ending = executor.not_started(attempt, "grant_timeout", text, now_ms)
                executor.close(attempt, ending, out, now_ms, process_done=not attempt.accepted)
            case Phase.LAUNCHING:
                text = "The job did not start in time."
                ending = executor.not_started(attempt, "start_timeout", text, now_ms)
                executor.kill(attempt, ending, out, now_ms)
            case Phase.RESIZING:
                executor.resize_overdue(attempt, out, now_ms)
            case Phase.ORDERED:
                executor.kill(attempt, endings.of_order(attempt), out, now_ms)
            case Phase.KILLING | Phase.CLOSING:
                self._ask_again(attempt, out, now_ms)
            case Phase.RUNNING | Phase.PARKED:
                attempt.due_ms = None

    def _ask_again(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Its slots, its process or its log are still awaited: slots are taken the hard way from now on."""
        executor = self.executor
        attempt.due_ms = now_ms + CLOSE_PATIENCE_MS
        if not attempt.freed:
            attempt.phase = Phase.KILLING
            executor.take_back(attempt, out)
        if attempt.process_done and not attempt.log_saved:
            attempt.log_saved = True  # its copy so far is what there is
            executor.conclude(attempt, out, now_ms)
        elif not attempt.process_done and attempt.has_driver:
            executor.end_driver(attempt, out, now_ms)


def _run_limit(attempt: Attempt) -> int | None:
    if attempt.state not in RUNS or attempt.run_limit_ms is None or attempt.running_since_ms is None:
        return None
    return attempt.running_since_ms + attempt.run_limit_ms
