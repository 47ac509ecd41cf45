"""What Ray's Jobs API answers about drivers, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat.control import endings
from heliostat.control.attempts import Attempt, Phase
from heliostat.control.executor import Executor
from heliostat.control.leftovers import DriverMessage
from heliostat.control.messages import DriverAccepted, DriverRefused, DriverSeen, DriverSilent, LogSaved
from heliostat.control.outbox import Outbox
from heliostat.control.patience import POLL_MS, RUNNING_POLL_MS, SILENT_MS, STOP_AGAIN_MS


@dataclass(slots=True)
class DriverReader:
    executor: Executor

    def read(
        self,
        message: DriverMessage,
        out: Outbox,
        now_ms: int,
    ) -> None:
        attempt = self._attempt(message.submission_id)
        if attempt is None:
            self._of_a_leftover(message, out, now_ms)
            return
        match message:
            case DriverAccepted():
                attempt.accepted = True
            case DriverRefused():
                self._refused(attempt, message, out, now_ms)
            case DriverSeen():
                self._seen(attempt, message, out, now_ms)
            case DriverSilent():
                attempt.poll_ms = now_ms + SILENT_MS
            case LogSaved():
                attempt.log_saved = True
                self.executor.conclude(attempt, out, now_ms)

    def _of_a_leftover(self, message: DriverMessage, out: Outbox, now_ms: int) -> None:
        """An older driver: when it is gone, the one that waits for its end may start. Or one that waits for its lease."""
        parked = self.executor.parked.get(message.submission_id.rpartition("-a")[0])
        if parked is not None and parked.submission_id == message.submission_id:
            self._of_a_parked(parked, message, out, now_ms)
            return
        job = self.executor.leftovers.read(message, out, now_ms)
        attempt = self.executor.attempts.get(job)
        if attempt is not None and attempt.phase is Phase.LAUNCHING:
            self.executor.launch(attempt, out, now_ms)

    def _of_a_parked(self, attempt: Attempt, message: DriverMessage, out: Outbox, now_ms: int) -> None:
        attempt.poll_ms = now_ms + RUNNING_POLL_MS
        if isinstance(message, DriverSeen) and (message.info is None or message.info.ended):
            self.executor.parked_driver_ended(attempt, message.info, out, now_ms)

    def _refused(self, attempt: Attempt, refused: DriverRefused, out: Outbox, now_ms: int) -> None:
        if attempt.phase in (Phase.KILLING, Phase.CLOSING):
            self.executor.process_done(attempt, out, now_ms)
            return
        code = "driver_refused" if refused.permanent else "ray_busy"
        ending = self.executor.not_started(attempt, code, refused.text, now_ms)
        self.executor.close(attempt, ending, out, now_ms, process_done=True)

    def _seen(self, attempt: Attempt, seen: DriverSeen, out: Outbox, now_ms: int) -> None:
        executor, info = self.executor, seen.info
        if info is None and not attempt.accepted and attempt.phase is Phase.LAUNCHING:
            executor.launch(attempt, out, now_ms)  # it never arrived
            return
        if info is not None:
            attempt.accepted = True
        if info is None or info.ended:
            tries = executor.tries(attempt.job)
            executor.ended(attempt, endings.of_driver(attempt, info, tries, now_ms), out, now_ms)
            return
        attempt.poll_ms = now_ms + (RUNNING_POLL_MS if attempt.phase in (Phase.RUNNING, Phase.RESIZING) else POLL_MS)
        if info.status == "RUNNING" and attempt.phase is Phase.LAUNCHING:
            executor.started(attempt, out, now_ms)
        closing = attempt.phase in (Phase.KILLING, Phase.CLOSING)
        if closing and now_ms - (attempt.stop_asked_ms or 0) >= STOP_AGAIN_MS:
            executor.end_driver(attempt, out, now_ms)

    def _attempt(self, submission_id: str) -> Attempt | None:
        job, _, n = submission_id.rpartition("-a")
        attempt = self.executor.attempts.get(job)
        return attempt if attempt is not None and str(attempt.n) == n else None
