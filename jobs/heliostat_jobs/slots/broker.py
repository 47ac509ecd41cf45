"""The job's own actor that hands out its slots: `SlotLedger` behind Ray, one per attempt, made by the first process that needs it.

It decides nothing between jobs: it reads the job's lease from the board and follows it. It asks for no CPU and no GPU, is detached
(whoever needed it first may be a task that is over soon), and ends itself once the attempt has no lease. What is over is seen in
Ray's own tables: dead actors, and slots that nobody uses.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import grpc
import ray
from heliostat_scheduler.live.board import AsyncLeaseClient, BoardUnavailable
from heliostat_scheduler.live.protocol import DEMAND, RELEASED, Lease, LeaseGone, SlotRef
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import group_is_free

from heliostat_jobs.slots.ledger import Claim, SlotLedger, Wish
from heliostat_jobs.train.demand import demand_facts
from heliostat_jobs.train.facts import Facts

logger = logging.getLogger(__name__)

LONG_POLL_S = 20.0
LOOK_EVERY_S = 0.5
LAST_WORDS_S = 1.0
ONE_GPU = {"GPU": 1.0}
SETTLED_S = 3.0
"""What was placed or claimed longer ago than this shows up in Ray's tables, if it is still there."""


class SlotBroker:
    """The actor class. See `ledger.py` for what the methods mean."""

    def __init__(self, job: str, secret: str) -> None:
        self._board = AsyncLeaseClient(job, secret)
        self._ledger: SlotLedger | None = None
        self._starting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._runs: dict[str, list[str]] = {}
        self._rigid = False
        self._tasks: list[asyncio.Task[None]] = []

    # ---- plain tasks and actors --------------------------------------------------------------------------------------

    async def lease(self) -> Lease:
        return (await self._book()).lease

    async def pick(self, amount: int, node: str, stays: bool, over: Sequence[int]) -> tuple[int, SlotRef] | None:
        """(token, slot) for one task or actor; None when the lease has no slot (there). over: tasks of the asker that ended.

        The scheduler is told once that such a program cannot shrink or grow.
        """
        book = await self._book()
        book.done(over)
        found = book.pick(amount, node, stays, time.monotonic())
        if found is None:
            return None
        if not self._rigid:
            self._rigid = True
            facts = demand_facts(len(book.lease.slots), len(book.lease.slots), "plain GPU tasks")
            await self._board.ack(book.lease.epoch, DEMAND, facts)
        token, slot = found
        return token, next(ref for ref in book.lease.slots if ref.slot == slot)

    async def bind(self, token: int, actor: str) -> None:
        (await self._book()).bind(token, actor)

    async def finished(self, tokens: Sequence[int]) -> None:
        """These tasks are over."""
        (await self._book()).done(tokens)

    async def run_number(self, name: str, task: str) -> int:
        """Which of the job's runs with this name a task's is: 1, 2, ...; the same for each try of the task."""
        tasks = self._runs.setdefault(name, [])
        if task not in tasks:
            tasks.append(task)
        return tasks.index(task) + 1

    # ---- claims ------------------------------------------------------------------------------------------------------

    async def try_claim(self, claim_id: str, holder: str, share: int) -> tuple[SlotRef, ...] | None:
        """A share of one slot (or a whole one) now, or nothing. holder: the process that asks; the claim ends with it."""
        book = await self._book()
        claim = book.claim(claim_id, "", holder, Wish(1, 1, share), time.monotonic())
        if claim.wanted:
            self._tell()
            return _refs(book, claim)
        book.release(claim_id)
        return None

    async def claim(
        self, claim_id: str, owner: str, holder: str, fewest: int, most: int, patience_s: float
    ) -> Lease | None:
        """The claim's lease, once it has slots; None when it has none after the patience. Asked again, it is the same claim."""
        book = await self._book()
        claim = book.claim(claim_id, owner, holder, Wish(fewest, most), time.monotonic())
        self._tell()
        deadline = time.monotonic() + patience_s
        while not claim.wanted:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            await self._next_change(min(left_s, LONG_POLL_S))
            if claim_id not in book.claims:
                raise LeaseGone(f"the claim {claim_id} was ended while it waited")
        return book.lease_of(claim_id)

    async def waits_for(self, claim_id: str) -> tuple[dict[str, list[str]], bool]:
        """Who holds which slots while it waits, and whether that can never change."""
        book = await self._book()
        return book.holders(), book.is_stuck(claim_id)

    async def release(self, claim_id: str) -> None:
        (await self._book()).release(claim_id)
        self._tell()

    async def move(self, claim_id: str) -> tuple[SlotRef, ...]:
        """A trial's process has ended. The slots that its claim should be in, when those are others; else the claim is over."""
        book = await self._book()
        moved = book.move(claim_id)
        self._tell()
        return _refs(book, book.claims[claim_id]) if moved else ()

    async def claim_lease(self, claim_id: str, known_epoch: int, timeout_s: float) -> Lease | None:
        """The claim's lease when its epoch is another one than this, or after the time; None when the claim is over."""
        book = await self._book()
        deadline = time.monotonic() + timeout_s
        while True:
            lease = book.lease_of(claim_id)
            left_s = deadline - time.monotonic()
            if lease is None or lease.epoch != known_epoch or left_s <= 0:
                return lease
            await self._next_change(left_s)

    async def claim_ack(self, claim_id: str, epoch: int, what: str) -> None:
        if what == RELEASED:
            (await self._book()).released(claim_id, epoch)

    # ---- Tune's driver -----------------------------------------------------------------------------------------------

    async def rename(self, claim_id: str, owner: str) -> None:
        """Whose claim it is, once that is known."""
        book = await self._book()
        if claim_id in book.claims:
            book.claims[claim_id].owner = owner

    async def rank(self, owners: Sequence[str]) -> None:
        (await self._book()).rank(owners)

    async def resize(self, lease: Lease) -> None:
        """The driver has seen a newer lease than we may have."""
        (await self._book()).resize(lease)
        self._tell()

    async def wanted(self) -> dict[str, tuple[str, ...]]:
        """Slots that each claim should be in now."""
        return {claim.id: claim.wanted for claim in (await self._book()).claims.values()}

    async def outside(self) -> dict[str, list[str]]:
        """Who is still in slots that the lease has lost."""
        return (await self._book()).outside()

    # ---- inside ------------------------------------------------------------------------------------------------------

    async def _book(self) -> SlotLedger:
        """The ledger; the first call reads the lease and starts the watchers."""
        async with self._starting:
            if self._ledger is None:
                self._ledger = SlotLedger(await self._first_lease())
                self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._look())]
        return self._ledger

    async def _first_lease(self) -> Lease:
        try:
            return await self._board.get()
        except LeaseGone:
            asyncio.get_running_loop().call_later(LAST_WORDS_S, _end)
            raise

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return  # the caller looks again either way

    async def _follow(self) -> None:
        """Adopt every newer lease; end when there is none any more."""
        assert self._ledger is not None, "started by _book"
        while True:
            try:
                lease = await self._board.wait(self._ledger.lease.epoch, LONG_POLL_S)
            except LeaseGone:
                return _end()
            except BoardUnavailable as error:
                logger.warning("lease board not reachable (%s); the last known lease stands", error)
                continue
            if lease.attempt != self._ledger.lease.attempt:
                return _end()
            if lease.epoch > self._ledger.lease.epoch:
                self._ledger.resize(lease)
                self._tell()

    async def _report(self, facts: dict[str, int]) -> None:
        try:
            await self._board.report(facts)
        except LeaseGone:
            return  # _follow ends this actor
        except BoardUnavailable as error:
            logger.warning("lease board not reachable (%s); progress is not told", error)

    async def _look(self) -> None:
        """Drop what is over."""
        assert self._ledger is not None, "started by _book"
        tables = RayTables(ray.get_runtime_context().gcs_address)
        told: dict[str, int] = {}
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            book = self._ledger
            if self._rigid and book.told() != told:
                told = book.told()
                await self._report(told)
            holders = {claim.holder for claim in book.claims.values() if claim.holder}
            if not book.loads and not holders:
                continue
            settled_s = time.monotonic() - SETTLED_S
            try:
                alive = await tables.living_workers(holders) if holders else set()
                alive |= {row.id for row in await tables.actors()} if book.loads else set()
                unused = await tables.available() if book.loads else {}
            except grpc.RpcError as error:
                logger.warning("Ray's tables did not come (%s); looking again", error)
                continue
            before = len(book.claims)
            book.bury(alive, settled_s)
            free = [ref.slot for ref in book.lease.slots if group_is_free(ref.group, ONE_GPU, unused.get(ref.node, {}))]
            book.are_free(free, settled_s)
            if len(book.claims) != before:
                self._tell()


def _end() -> None:
    """End this actor: an intended death, which Ray does not report as a crash."""
    ray.kill(ray.get_runtime_context().current_actor)


def _refs(book: SlotLedger, claim: Claim) -> tuple[SlotRef, ...]:
    return tuple(ref for ref in book.lease.slots if ref.slot in claim.wanted)


class ClaimClient:
    """The lease client of a trainer inside a claim: what `AsyncLeaseClient` is for a whole job."""

    def __init__(self, broker: Any, claim_id: str) -> None:  # Any: an actor handle
        self._broker = broker
        self._claim = claim_id

    async def get(self) -> Lease:
        return await self.wait(-1, 0.0)

    async def wait(self, known_epoch: int, timeout_s: float) -> Lease:
        lease = await self._broker.claim_lease.remote(self._claim, known_epoch, timeout_s)
        if lease is None:
            raise LeaseGone(f"the claim {self._claim} is over")
        return lease  # type: ignore[no-any-return]

    async def ack(self, epoch: int, what: str, facts: Facts) -> None:
        await self._broker.claim_ack.remote(self._claim, epoch, what)

    async def report(self, facts: Facts) -> None:
        """Nothing: Tune reports the whole search."""
