"""The lease board's process: `BoardState` behind a detached asyncio actor with long polls.

It has no CPU of its own, is restarted for ever by Ray, and comes back empty: every answer names the `instance`, so that clients
and the bridge see that they talk to a new one. Answers are values, not exceptions, so that a runner's log stays readable.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.live.board_state import BoardEmpty, BoardState, Said, StaleTerm
from heliostat_scheduler.live.protocol import Lease, LeaseGone

OK, GONE, EMPTY, STALE = "ok", "gone", "empty", "stale"


@dataclass(frozen=True, slots=True)
class Answer:
    """status: ok, gone (LeaseGone), empty (not filled yet), stale (older term)."""

    instance: str
    status: str
    value: Any = None  # Any: a Lease, facts, or the text of the refusal


@dataclass(frozen=True, slots=True)
class Heard:
    """What the bridge hears: everything said after its last number."""

    instance: str
    installed: bool
    term: int
    said: tuple[Said, ...] = ()


class LeaseBoard:
    """The actor class. Methods of the bridge take its term; methods of runners take the lease's secret."""

    def __init__(self) -> None:
        self._state = BoardState()
        self._instance = secrets.token_hex(4)
        self._spoken = asyncio.Event()
        self._changed: dict[str, asyncio.Event] = {}

    async def install(self, term: int, leases: tuple[Lease, ...]) -> Answer:
        return self._do(lambda: self._state.install(term, leases), *{*self._state.leases, *(le.job for le in leases)})

    async def put(self, term: int, lease: Lease) -> Answer:
        return self._do(lambda: self._state.put(term, lease), lease.job)

    async def drop(self, term: int, job: str) -> Answer:
        return self._do(lambda: self._state.drop(term, job), job)

    async def listen(self, instance: str, seq: int, timeout_s: float) -> Heard:
        """Long poll of the bridge: what was said after `seq` (of everything, if the instance is another one)."""
        since = seq if instance == self._instance else 0
        if instance == self._instance and self._state.installed and not self._state.after(since):
            self._spoken.clear()
            await _wait(self._spoken, timeout_s)
        return Heard(self._instance, self._state.installed, self._state.term, self._state.after(since))

    async def get(self, job: str, secret: str) -> Answer:
        return self._do(lambda: self._state.get(job, secret))

    async def wait(self, job: str, secret: str, known_epoch: int, timeout_s: float) -> Answer:
        """As get, but only when the epoch is another one, the lease is gone, or the time is over."""
        answer = self._do(lambda: self._state.get(job, secret))
        if answer.status == OK and answer.value.epoch == known_epoch:
            await _wait(self._changed.setdefault(job, asyncio.Event()), timeout_s)
            answer = self._do(lambda: self._state.get(job, secret))
        return answer

    async def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> Answer:  # Any: JSON
        before = self._state.seq
        answer = self._do(lambda: self._state.ack(job, secret, epoch, what, facts))
        if self._state.seq != before:
            self._spoken.set()
        return answer

    async def said(self, job: str, secret: str, what: str) -> Answer:
        """The facts of the job's latest ack of this kind, or None."""
        return self._do(lambda: self._state.said(job, secret, what))

    def _do(self, call: Callable[[], Any], *changed: str) -> Answer:  # Any: see Answer.value
        try:
            value = call()
        except LeaseGone as gone:
            return Answer(self._instance, GONE, str(gone))
        except BoardEmpty as empty:
            return Answer(self._instance, EMPTY, str(empty))
        except StaleTerm as stale:
            return Answer(self._instance, STALE, str(stale))
        for job in changed:
            if event := self._changed.pop(job, None):
                event.set()
        return Answer(self._instance, OK, value)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return  # the caller looks again either way
