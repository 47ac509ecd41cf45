"""How runners reach the lease board: `LeaseClient` (blocking) and `AsyncLeaseClient` (asyncio), with the same four verbs.

    lease = LeaseClient(job, secret)
    now = lease.get()                      # raises LeaseGone: let go of the slots
    now = lease.wait(now.epoch, 30)        # long poll: returns when the epoch changed, or after 30 s
    lease.ack(now.epoch, "released", {})
    lease.report({"step": 100})

The board may die and come back empty at any moment. Clients then try again for `patience_s`, and say their acks once more when
they see that they talk to a new instance. The board lives in a namespace of its own, so look-ups name it: a user's driver may be
in any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from heliostat_scheduler.live.board_actor import EMPTY, GONE, OK, Answer
from heliostat_scheduler.live.board_state import PROGRESS
from heliostat_scheduler.live.protocol import BOARD_NAME, NAMESPACE, Lease, LeaseGone

__all__ = ["AsyncLeaseClient", "BoardUnavailable", "LeaseClient", "LeaseGone"]

PATIENCE_S = 60.0
CALL_S = 10.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

Facts = dict[str, Any]  # Any: JSON


class BoardUnavailable(Exception):
    """The lease board did not answer for as long as the client was patient."""


class _Talk:
    """What both clients share: the handle, the acks to repeat, the reading of an answer."""

    def __init__(self, job: str, secret: str, patience_s: float = PATIENCE_S) -> None:
        self.job = job
        self._secret = secret
        self._patience_s = patience_s
        self._handle: Any = None  # Any: an actor handle
        self._instance = ""
        self._acks: dict[tuple[int, str], Facts] = {}

    def _call(self, method: str, *args: Any) -> Any:  # Any: arguments of the board's methods; an ObjectRef
        if self._handle is None:
            self._handle = ray.get_actor(BOARD_NAME, namespace=NAMESPACE)
        return getattr(self._handle, method).remote(self.job, self._secret, *args)

    def _pauses(self, method: str) -> Iterator[float]:
        """The pause before each further try, until the patience is over."""
        deadline = time.monotonic() + self._patience_s
        pause = FIRST_PAUSE_S
        while time.monotonic() < deadline:
            yield pause
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise BoardUnavailable(f"{self.job}: the lease board did not answer `{method}` for {self._patience_s:.0f} s")

    def _new_instance(self, answer: Answer) -> list[tuple[int, str, Facts]]:
        """Acks to say again because the board is another one than before."""
        if answer.status != OK or answer.instance == self._instance:
            return []
        first, self._instance = not self._instance, answer.instance
        return [] if first else [(epoch, what, facts) for (epoch, what), facts in self._acks.items()]

    def _read(self, answer: Answer) -> Any:  # Any: see Answer.value
        if answer.status == GONE:
            raise LeaseGone(answer.value)
        return answer.value


class LeaseClient(_Talk):
    """Blocking. Safe to use from one thread at a time."""

    def get(self) -> Lease:
        """The lease now."""
        lease: Lease = self._ask("get", CALL_S)
        return lease

    def wait(self, known_epoch: int, timeout_s: float) -> Lease:
        """The lease as soon as its epoch is not `known_epoch`, or as it is after `timeout_s`."""
        lease: Lease = self._ask("wait", timeout_s + CALL_S, known_epoch, timeout_s)
        return lease

    def ack(self, epoch: int, what: str, facts: Facts | None = None) -> None:
        """Say that this was done under this epoch; repeated when the board was rebuilt."""
        self._acks[epoch, what] = facts or {}
        self._ask("ack", CALL_S, epoch, what, facts or {})

    def report(self, facts: Facts) -> None:
        """Progress: only the last one counts."""
        self._ask("ack", CALL_S, 0, PROGRESS, facts)

    def said(self, what: str) -> Facts | None:
        """What some runner of this job acked last under this name."""
        facts: Facts | None = self._ask("said", CALL_S, what)
        return facts

    def _ask(self, method: str, limit_s: float, *args: Any) -> Any:  # Any: see Answer.value
        for pause in self._pauses(method):
            answer = self._try(method, limit_s, *args)
            if answer is not None and answer.status != EMPTY:
                for ack in self._new_instance(answer):
                    self._try("ack", CALL_S, *ack)
                return self._read(answer)
            time.sleep(pause)
        raise AssertionError("unreachable: _pauses raises")

    def _try(self, method: str, limit_s: float, *args: Any) -> Answer | None:  # Any: see _call
        try:
            answer: Answer = ray.get(self._call(method, *args), timeout=limit_s)
        except (RayActorError, GetTimeoutError, ValueError):  # ValueError: no such actor now
            self._handle = None
            return None
        return answer


class AsyncLeaseClient(_Talk):
    """For an event loop: only awaits, never ray.get."""

    async def get(self) -> Lease:
        lease: Lease = await self._ask("get", CALL_S)
        return lease

    async def wait(self, known_epoch: int, timeout_s: float) -> Lease:
        lease: Lease = await self._ask("wait", timeout_s + CALL_S, known_epoch, timeout_s)
        return lease

    async def ack(self, epoch: int, what: str, facts: Facts | None = None) -> None:
        self._acks[epoch, what] = facts or {}
        await self._ask("ack", CALL_S, epoch, what, facts or {})

    async def report(self, facts: Facts) -> None:
        await self._ask("ack", CALL_S, 0, PROGRESS, facts)

    async def said(self, what: str) -> Facts | None:
        facts: Facts | None = await self._ask("said", CALL_S, what)
        return facts

    async def _ask(self, method: str, limit_s: float, *args: Any) -> Any:  # Any: see Answer.value
        for pause in self._pauses(method):
            answer = await self._try(method, limit_s, *args)
            if answer is not None and answer.status != EMPTY:
                for ack in self._new_instance(answer):
                    await self._try("ack", CALL_S, *ack)
                return self._read(answer)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: _pauses raises")

    async def _try(self, method: str, limit_s: float, *args: Any) -> Answer | None:  # Any: see _call
        try:
            answer: Answer = await asyncio.wait_for(self._call(method, *args), limit_s)
        except (RayActorError, TimeoutError, ValueError):  # ValueError: no such actor now
            self._handle = None
            return None
        return answer
