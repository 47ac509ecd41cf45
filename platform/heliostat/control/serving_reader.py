"""What is said about the replicas of serving jobs, and what follows from it. Words about attempts that are over are dropped."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core.lifecycle import JobState

from heliostat.control import endings
from heliostat.control.attempts import Finish, Phase
from heliostat.control.executor import Executor
from heliostat.control.messages import ServingSaid
from heliostat.control.outbox import Outbox

STARTED, RESIZED, RELEASED, BROKEN = "started", "resized", "released", "broken"


@dataclass(slots=True)
class ServingReader:
    executor: Executor

    def read(self, said: ServingSaid, out: Outbox, now_ms: int) -> None:
        attempt = self.executor.attempts.get(said.job_id)
        if attempt is None or attempt.n != said.attempt or not attempt.is_serving:
            return
        if said.what == STARTED:
            self.executor.started(attempt, out, now_ms)
        elif said.what == RELEASED and attempt.phase is Phase.ORDERED:
            self.executor.close(attempt, endings.of_order(attempt), out, now_ms, process_done=True)
        elif said.what == RESIZED:
            self.executor.replicas_left(attempt, out)
        elif said.what == BROKEN and attempt.phase in (Phase.LAUNCHING, Phase.RUNNING):
            self.executor.ended(attempt, Finish(JobState.FAILED, error=said.text), out, now_ms)
