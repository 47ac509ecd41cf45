"""Telemetry of one window: how busy each leased GPU was, for the receipts, the engine and the job's history.

The engine hears of every attempt on GPUs, also of those without a reading: no reading means unknown, never idle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from heliostat_scheduler.core.events import Utilized

from heliostat.control import receipts, rows
from heliostat.control.executor import Executor
from heliostat.control.messages import SlotsRead
from heliostat.control.outbox import Outbox


@dataclass(slots=True)
class UtilizationReader:
    """activity: the last window's, in permille by slot."""

    executor: Executor
    activity: dict[str, int] = field(default_factory=dict)

    def read(self, read: SlotsRead, said: dict[str, Any], out: Outbox, now_ms: int) -> None:  # Any: JSON
        """said: jobs whose runners said anything since the last window."""
        self.activity = read.activity
        used = {slot: activity * read.window_ms // 1000 for slot, activity in read.activity.items()}
        out.step("telemetry", lambda s: receipts.add_used(s, used))
        for attempt in list(self.executor.attempts.values()):
            if not attempt.in_engine or not attempt.slots:
                continue
            known = {ref.slot: read.activity[ref.slot] for ref in attempt.slots if ref.slot in read.activity}
            mean = sum(known.values()) // len(known) if known else None
            out.event(Utilized(attempt.job, read.window_ms, mean, attempt.job in said))
            if mean is not None:
                facts = {"gpu_utilization": mean / 1000}
                if len(known) > 1:
                    facts |= {f"gpu_utilization/{slot}": permille / 1000 for slot, permille in known.items()}
                out.step(attempt.job, lambda s, a=attempt, f=facts: rows.metrics(s, a, f, now_ms))  # type: ignore[misc]  # bound now
        said.clear()
