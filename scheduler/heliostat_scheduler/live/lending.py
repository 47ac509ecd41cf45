"""Lending slots to Ray Serve, and taking them back.

Lend: nobody is in the slot -> its loan is written down in the cluster's key-value store -> its group is removed -> the GPU is
free for a replica. Take back: nobody holds the device any more -> the slot's group is made again -> it is up, on that device ->
the loan is forgotten, and the slot has a new group. A stray that waits for a GPU would win each of these: it is refused
while there are loans (`strays`); one that asked in the very moment is killed by the watchdog, and the group comes up after that.
A new bridge finds the loans in the store: a lent slot is a slot all the same, only without a group.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict

from heliostat_scheduler.live import loans
from heliostat_scheduler.live.ledger import Ledger
from heliostat_scheduler.live.occupants import Occupant, Occupants, Place
from heliostat_scheduler.live.protocol import Fact, Lease, NodeJoined, Note, SlotRef
from heliostat_scheduler.live.slots import Slots
from heliostat_scheduler.live.strays import Strays

MAKE_S = 2.0
SETTLE_ROUNDS = 240


class Lending:
    def __init__(
        self, slots: Slots, ledger: Ledger, occupants: Occupants, strays: Strays, out: Callable[[Fact], None]
    ) -> None:
        self._slots = slots
        self._ledger = ledger
        self._occupants = occupants
        self._strays = strays
        self._out = out
        self._lock = asyncio.Lock()

    async def lend(self, lease: Lease) -> None:
        """Every slot of the loan is lent when this returns. Raises RuntimeError when somebody sits in one."""
        async with self._lock:
            missing = [ref for ref in lease.slots if not self._slots.is_lent(ref.slot)]
            if missing:
                await self._strays.refuse_all()
            for ref in missing:
                await self._lend(ref, lease)

    async def occupants(self, lease: Lease, refs: Iterable[SlotRef] | None = None) -> list[Occupant]:
        """The loan's own replicas that still hold its devices (or those of `refs`). A stranger there is the watchdog's affair."""
        wanted = [ref for ref in (lease.held if refs is None else refs) if self._slots.is_lent(ref.slot)]
        seen = await self._occupants.snapshot()
        found = [
            Occupant("", actor.node, actor.id, actor.pid, f"actor {actor.class_name} {actor.name}".strip())
            for actor in loans.sitting_on(loans.borrowers(seen.actors, lease), wanted)
        ]
        whole = [ref for ref in (lease.held if refs is None else refs) if not self._slots.is_lent(ref.slot)]
        return found + await self._occupants.of([Place.of_slot(ref) for ref in whole])

    async def take_back(self, refs: Iterable[SlotRef]) -> bool:
        """Make the groups again. False when one is not up yet: call again."""
        async with self._lock:
            back = [await self._take_back(ref) for ref in refs if self._slots.is_lent(ref.slot)]
        nodes = sorted({joined.node: joined for joined in back if joined is not None}.items())
        for _, joined in nodes:
            self._out(joined)
        return all(joined is not None for joined in back)

    async def left(self, lease: Lease) -> bool:
        """Whether the slots that a smaller loan leaves are slots again. A replica too many there is asked to go.

        Serve ends replicas of its own choice, so the one that stayed may sit on a device that is given back: it is killed, and
        Serve starts it on the device that the other one left.
        """
        still = await self.occupants(lease, lease.leaving)
        if not still:
            return await self.take_back(lease.leaving)
        seen = await self._occupants.snapshot()
        if len(loans.borrowers(seen.actors, lease)) <= len(lease.slots):
            await self._occupants.kill(still)
        return False

    async def settle(self) -> None:
        """After Hello: loans that stand are lent, slots whose loan is gone come back."""
        standing = [lease for lease in self._ledger.leases.values() if loans.is_loan(lease)]
        for lease in standing:
            try:
                await self.lend(lease)
            except RuntimeError as error:
                self._out(Note("warning", "slot_not_lent", {"job": lease.job, "error": str(error)}))
        wanted = {ref.slot for lease in standing for ref in lease.held}
        orphans = [ref for ref in self._slots.refs.values() if self._slots.is_lent(ref.slot) and ref.slot not in wanted]
        for _ in range(SETTLE_ROUNDS):
            if not orphans or await self._free(orphans):
                return
            await asyncio.sleep(0.5)
        self._out(Note("error", "loans_not_settled", {"slots": sorted(ref.slot for ref in orphans)}))

    async def _free(self, refs: list[SlotRef]) -> bool:
        seen = await self._occupants.snapshot()
        left = loans.sitting_on(seen.actors, refs)
        if left:
            await self._occupants.kill([Occupant("", actor.node, actor.id, actor.pid) for actor in left])
            return False
        return await self.take_back(refs)

    async def _lend(self, ref: SlotRef, lease: Lease) -> None:
        if left := await self._occupants.of([Place.of_slot(ref)]):
            raise RuntimeError(f"{ref.slot} cannot be lent: {left[0].what} is in it")
        await self._slots.lend(ref.slot, json.dumps(asdict(ref)))
        self._out(Note("info", "slot_lent", {"slot": ref.slot, "job": lease.job, "application": lease.app}))

    async def _take_back(self, ref: SlotRef) -> NodeJoined | None:
        joined = await self._slots.take_back(ref.slot, MAKE_S)
        if joined is not None:
            self._out(Note("info", "slot_returned", {"slot": ref.slot}))
        return joined
