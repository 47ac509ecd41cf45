"""Ending a lease: wait until its slots are free, help when the time is over, and say `Freed` only when Ray's tables agree.

One `Freeing` per job, in a task of its own. A later HardStop only brings its moment of killing forward. Order: (revoked lease on
the board, for a hard stop) -> SIGKILL to the command's child, if any -> kill every occupant by id, again and again -> free ->
remove a CPU group -> forget the lease -> Freed. Whoever survives ten seconds of killing makes the slot *trouble*; the lease stays
until the slot is free after all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from ray.exceptions import RayError

from heliostat_scheduler.live.board_link import BoardLink
from heliostat_scheduler.live.cpu_groups import CpuGroups, holds
from heliostat_scheduler.live.holders import Holders
from heliostat_scheduler.live.ledger import Ledger
from heliostat_scheduler.live.lending import Lending
from heliostat_scheduler.live.loans import is_loan
from heliostat_scheduler.live.occupants import Occupant, Occupants, Place
from heliostat_scheduler.live.protocol import Fact, Freed, Lease, Note, SlotTrouble

TROUBLE_AFTER_S = 10.0
CHILD_S = 1.0
POLL_S = 0.05
SLOW_POLL_S = 0.5


def places_of(lease: Lease) -> list[Place]:
    """The groups that must be free before the lease is."""
    if lease.cpu_group:
        return [Place(lease.cpu_group, lease.node, holds(lease))]
    return [Place.of_slot(ref) for ref in lease.held]


@dataclass(slots=True)
class Freeing:
    """kill_at: monotonic seconds."""

    job: str
    epoch: int
    kill_at: float
    task: asyncio.Task[None] | None = None
    troubled: set[str] = field(default_factory=set)


class FreeingDesk:
    """All lease ends that are under way."""

    def __init__(
        self,
        ledger: Ledger,
        board: BoardLink,
        occupants: Occupants,
        holders: Holders,
        cpu_groups: CpuGroups,
        lending: Lending,
        out: Callable[[Fact], None],
    ) -> None:
        self._ledger = ledger
        self._board = board
        self._occupants = occupants
        self._holders = holders
        self._cpu_groups = cpu_groups
        self._lending = lending
        self._out = out
        self.jobs: dict[str, Freeing] = {}

    def begin(self, job: str, epoch: int, grace_s: float) -> None:
        """Free the lease; kill after the grace. Called again: the earlier moment and the higher epoch count."""
        kill_at = time.monotonic() + grace_s
        freeing = self.jobs.get(job)
        if freeing is not None:
            freeing.epoch = max(freeing.epoch, epoch)
            freeing.kill_at = min(freeing.kill_at, kill_at)
            return
        freeing = self.jobs[job] = Freeing(job, epoch, kill_at)
        freeing.task = asyncio.create_task(self._run(freeing), name=f"freeing {job}")

    def cancel_all(self) -> None:
        """A new Hello: what is to be freed will be said again."""
        for freeing in self.jobs.values():
            if freeing.task is not None:
                freeing.task.cancel()
        self.jobs.clear()

    async def _run(self, freeing: Freeing) -> None:
        while not await self._step(freeing):
            waits = freeing.kill_at - time.monotonic()
            await asyncio.sleep(SLOW_POLL_S if freeing.troubled else min(max(waits, POLL_S), 4 * POLL_S))

    async def _step(self, freeing: Freeing) -> bool:
        """Look, kill if it is time. True: the lease is free and forgotten."""
        lease = self._ledger.leases.get(freeing.job)
        try:
            left = await self._left_in(lease) if lease is not None else []
            if lease is not None and left:
                ended = lease.kind == "command" and self._holders.has_exited(lease)
                if ended or time.monotonic() >= freeing.kill_at:
                    await self._kill(lease, left, freeing)
                self._report(lease, left, freeing)
                return False
            if lease is not None and is_loan(lease) and not await self._lending.take_back(lease.held):
                return False  # somebody else may have been faster; the watchdog sees to that
            if lease is not None:
                if lease.cpu_group:
                    await self._cpu_groups.remove(lease.cpu_group)
                self._holders.forget(lease)
        except (grpc.RpcError, TimeoutError, RayError, RuntimeError, ValueError) as error:
            # whatever it was, it is tried again: a freeing that died would keep its slots for ever
            told = f"{type(error).__name__}: {error}"[:300]
            self._out(Note("warning", "freeing_retried", {"job": freeing.job, "error": told}))
            return False
        self._ledger.forget(freeing.job, freeing.epoch)
        await self._board.sync(freeing.job)
        if lease is not None:
            for slot in sorted(freeing.troubled):
                self._out(SlotTrouble(slot, True))
        self.jobs.pop(freeing.job, None)
        self._out(Freed(freeing.job, freeing.epoch))
        return True

    async def _left_in(self, lease: Lease) -> list[Occupant]:
        return await (self._lending.occupants(lease) if is_loan(lease) else self._occupants.of(places_of(lease)))

    async def _kill(self, lease: Lease, left: list[Occupant], freeing: Freeing) -> None:
        if (
            lease.kind == "command"
            and not self._holders.has_exited(lease)
            and time.monotonic() < freeing.kill_at + CHILD_S
        ):
            await self._holders.signal(lease, 0)
            if time.monotonic() < freeing.kill_at + CHILD_S / 2:
                return
        await self._occupants.kill(left)

    def _report(self, lease: Lease, left: list[Occupant], freeing: Freeing) -> None:
        if time.monotonic() < freeing.kill_at + TROUBLE_AFTER_S or freeing.troubled:
            return
        slots = {ref.group: ref.slot for ref in lease.held}
        for occupant in left:
            slot = slots.get(occupant.group, lease.job)
            freeing.troubled.add(slot)
            why = f"{occupant.what} cannot be killed"
            self._out(SlotTrouble(slot, False, why))
