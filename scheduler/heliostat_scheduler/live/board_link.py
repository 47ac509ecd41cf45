"""The bridge's side of the lease board: keep its content equal to the ledger, and hear what runners say.

The ledger is what counts; the board is a projection that may die. `sync(job)` copies one lease and says whether that worked
within its time; whatever did not is made good by the listening loop, which fills a new board with everything as soon as it
meets one. Listening is a long poll, so that a word of a runner costs one round trip and silence costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat_scheduler.live.board_actor import EMPTY, OK, STALE, Answer, Heard, LeaseBoard
from heliostat_scheduler.live.board_state import Said
from heliostat_scheduler.live.ledger import Ledger
from heliostat_scheduler.live.protocol import BOARD_NAME, NAMESPACE

CALL_S = 3.0
SYNC_S = 2.0
LISTEN_S = 20.0
MAX_RUNNERS = 10_000
RETRY_S = 0.1


class Superseded(Exception):
    """A bridge of a newer term owns the board: this one must end."""


class BoardLink:
    """on_said: each word of a runner. on_rebuilt: the board was found empty and filled with so many leases."""

    def __init__(
        self,
        ledger: Ledger,
        home_node: str,
        on_said: Callable[[Said], Awaitable[None]],
        on_rebuilt: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._home_node = home_node
        self._on_said = on_said
        self._on_rebuilt = on_rebuilt
        self._handle: Any = None  # Any: an actor handle
        self._dirty = False
        self._installed = ""

    async def install(self) -> None:
        """Fill the board with the ledger (after Hello)."""
        for _ in range(int(60 / RETRY_S)):
            answer = await self._call("install", self._ledger.term, tuple(self._ledger.leases.values()))
            if answer is not None:
                self._check(answer)
                self._installed, self._dirty = answer.instance, False
                return
            await asyncio.sleep(RETRY_S)
        raise TimeoutError("the lease board did not come up within 60 s")

    async def sync(self, job: str) -> bool:
        """Copy this job's lease, or its absence, to the board. False: the board is away; the lease is there when it is back."""
        deadline = asyncio.get_running_loop().time() + SYNC_S
        while asyncio.get_running_loop().time() < deadline:
            lease = self._ledger.leases.get(job)
            answer = await (
                self._call("drop", self._ledger.term, job)
                if lease is None
                else self._call("put", self._ledger.term, lease)
            )
            if answer is not None:  # a stale term is noticed, and ended, by `listen`
                return answer.status == OK and answer.instance == self._installed
            await asyncio.sleep(RETRY_S)
        self._dirty = True
        return False

    async def say(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> bool:  # Any: JSON
        """A word on behalf of a runner that cannot speak any more."""
        answer = await self._call("ack", job, secret, epoch, what, facts)
        return answer is not None and answer.status not in (EMPTY, STALE)

    async def listen(self) -> None:
        """Hear everything from the beginning, for ever."""
        instance, seq = "", 0
        while True:
            heard = await self._poll(instance, seq)
            if heard is None:
                await asyncio.sleep(RETRY_S)
                continue
            if heard.term > self._ledger.term:
                raise Superseded(f"the lease board serves term {heard.term}, this bridge is of {self._ledger.term}")
            if not heard.installed or self._dirty:
                anew = not heard.installed
                await self.install()
                if anew:
                    self._on_rebuilt(len(self._ledger.leases))
            if heard.instance != instance:
                instance, seq = heard.instance, 0
            for said in heard.said:
                seq = max(seq, said.seq)
                await self._on_said(said)

    async def remove(self) -> None:
        """End the board (detaching)."""
        await asyncio.to_thread(lambda: ray.kill(ray.get_actor(BOARD_NAME, namespace=NAMESPACE), no_restart=True))

    async def _poll(self, instance: str, seq: int) -> Heard | None:
        try:
            handle = await self._board()
            heard: Heard = await asyncio.wait_for(handle.listen.remote(instance, seq, LISTEN_S), LISTEN_S + CALL_S)
        except (RayActorError, TimeoutError, ValueError):
            self._handle = None
            return None
        return heard

    async def _call(self, method: str, *args: Any) -> Answer | None:  # Any: arguments of the board's methods
        try:
            handle = await self._board()
            answer: Answer = await asyncio.wait_for(getattr(handle, method).remote(*args), CALL_S)
        except (RayActorError, TimeoutError, ValueError):  # ValueError: no such actor now
            self._handle = None
            return None
        return answer

    def _check(self, answer: Answer) -> None:
        if answer.status == STALE:
            raise Superseded(str(answer.value))
        if answer.status != OK:
            raise RuntimeError(f"the lease board refused: {answer.status} {answer.value}")

    async def _board(self) -> Any:  # Any: an actor handle
        if self._handle is None:
            self._handle = await asyncio.to_thread(self._get_or_create)
        return self._handle

    def _get_or_create(self) -> Any:  # Any: an actor handle
        return (
            ray.remote(LeaseBoard)
            .options(
                name=BOARD_NAME,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=MAX_RUNNERS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._home_node, soft=True),
            )
            .remote()
        )
