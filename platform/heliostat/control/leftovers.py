"""Drivers that outlive their attempt.

A job is queued again as soon as its slots are verified free: its place in the queue must not depend on how long its old driver
takes to end (Ray asks it with SIGTERM and waits up to 3 s) or on how long its log takes to be copied. What is left is looked
after here: stopped until it is gone, its log saved, its record at Ray deleted. The next attempt's driver is submitted only
when the old one is gone, so there are never two. A row keeps what is left (`attempt.gone_ms` is empty), so a new control
plane goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from heliostat.control import rows
from heliostat.control.attempts import Attempt
from heliostat.control.hands import Drivers
from heliostat.control.messages import DriverAccepted, DriverRefused, DriverSeen, DriverSilent, LogSaved
from heliostat.control.outbox import Outbox
from heliostat.control.patience import LOOK_PATIENCE_MS, POLL_MS, SILENT_MS, STOP_AGAIN_MS

DriverMessage = DriverAccepted | DriverRefused | DriverSeen | DriverSilent | LogSaved


@dataclass(slots=True)
class Leftover:
    """ended: its process is gone; only its log is awaited. poll_ms: when to ask Ray about it."""

    job: str
    n: int
    poll_ms: int
    stop_asked_ms: int = 0
    ended: bool = False

    @property
    def submission_id(self) -> str:
        return f"{self.job}-a{self.n}"


@dataclass(slots=True)
class Leftovers:
    """left: by submission id."""

    drivers: Drivers
    log_path: Callable[[str, int], Path]
    left: dict[str, Leftover] = field(default_factory=dict)

    def add(self, attempt: Attempt, now_ms: int) -> None:
        """The attempt is over for the queue; whatever has been asked of its driver stays asked."""
        asked = attempt.stop_asked_ms or 0
        rest = Leftover(attempt.job, attempt.n, now_ms + POLL_MS, asked, attempt.process_done)
        self.left[rest.submission_id] = rest

    def load(self, found: list[tuple[str, int]], now_ms: int) -> None:
        """Those that the last control plane left: (job, attempt)."""
        for job, n in found:
            rest = Leftover(job, n, now_ms)
            self.left[rest.submission_id] = rest

    def alive(self, job: str) -> bool:
        """Whether a driver of an earlier attempt of this job may still run."""
        return any(rest.job == job and not rest.ended for rest in self.left.values())

    def tick(self, out: Outbox, now_ms: int) -> None:
        """Ask Ray about those that are due."""
        for rest in self.left.values():
            if rest.poll_ms <= now_ms:
                rest.poll_ms = now_ms + LOOK_PATIENCE_MS
                out.step(rest.job, None, partial(self.drivers.look, rest.submission_id))

    def next_ms(self) -> int | None:
        return min((rest.poll_ms for rest in self.left.values()), default=None)

    def read(self, message: DriverMessage, out: Outbox, now_ms: int) -> str:
        """What Ray says about one of them. Returns the job whose old driver is gone now, else an empty string."""
        rest = self.left.get(message.submission_id)
        if rest is None:
            return ""
        match message:
            case LogSaved():
                self._gone(rest, out, now_ms)
            case DriverSilent():
                rest.poll_ms = now_ms + SILENT_MS
            case DriverRefused():
                return self._ended(rest, out, now_ms)
            case DriverSeen(info=info):
                if info is None or info.ended:
                    return self._ended(rest, out, now_ms)
                self._still_there(rest, out, now_ms)
            case DriverAccepted():
                pass
        return ""

    def lost(self, out: Outbox, now_ms: int) -> None:
        """Ray is gone with everything on it."""
        for rest in list(self.left.values()):
            self._gone(rest, out, now_ms)

    def _still_there(self, rest: Leftover, out: Outbox, now_ms: int) -> None:
        rest.poll_ms = now_ms + POLL_MS
        if now_ms - rest.stop_asked_ms >= STOP_AGAIN_MS:
            rest.stop_asked_ms = now_ms
            out.step(rest.job, None, partial(self.drivers.stop, rest.submission_id))

    def _ended(self, rest: Leftover, out: Outbox, now_ms: int) -> str:
        rest.poll_ms = now_ms + LOOK_PATIENCE_MS
        log = self.log_path(rest.job, rest.n)
        out.step(rest.job, None, partial(self.drivers.save_log, rest.submission_id, log))
        if rest.ended:
            return ""
        rest.ended = True
        return rest.job

    def _gone(self, rest: Leftover, out: Outbox, now_ms: int) -> None:
        del self.left[rest.submission_id]
        job, n = rest.job, rest.n
        out.step(job, lambda s: rows.driver_gone(s, job, n, now_ms), partial(self.drivers.forget, rest.submission_id))
