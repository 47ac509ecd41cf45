"""Who waits for a GPU without a lease while GPUs are lent: Ray would give them the lent one the moment its replica starts anew.

Waiting is no offence while every GPU is in a slot: then Ray lets nobody in. A lent GPU is in none. So as long as there is a loan,
an actor that waits for a plain GPU and is no replica of a loan is refused, instead of being killed after it has taken the GPU from a
replica. A program that asks again and again would hold up a loan or its return for ever: its driver is ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import grpc

from heliostat_scheduler.live.ledger import Ledger
from heliostat_scheduler.live.loans import application_of, is_loan
from heliostat_scheduler.live.occupants import Occupants, Snapshot
from heliostat_scheduler.live.protocol import Fact, Intruder, Lease, Note
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import ActorRow

STRIKES = 10
WITHIN_S = 60.0
SETTLE_S = 1.0
LOOK_S = 0.05


def waiting(actors: Iterable[ActorRow], leases: Iterable[Lease]) -> list[ActorRow]:
    """Actors that wait for a GPU outside of every group and are no replica of an application with a loan."""
    apps = {lease.app for lease in leases if is_loan(lease)}
    return [
        actor
        for actor in actors
        if actor.state in ("PENDING_CREATION", "RESTARTING")
        and not actor.groups()
        and actor.asks_for_gpu()
        and application_of(actor) not in apps
    ]


class Strikes:
    """How often each driver's actors were killed lately. clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: dict[str, deque[float]] = {}

    def out(self, jobs: Iterable[str]) -> list[str]:
        """Count one for each of these Ray jobs; those that have used up their patience."""
        now = self._clock()
        gone = []
        for job in jobs:
            times = self._at.setdefault(job, deque(maxlen=STRIKES))
            times.append(now)
            if len(times) == STRIKES and now - times[0] <= WITHIN_S:
                gone.append(job)
                del self._at[job]
        self._at = {job: times for job, times in self._at.items() if now - times[-1] <= WITHIN_S}
        return gone


class Strays:
    def __init__(self, tables: RayTables, occupants: Occupants, ledger: Ledger, out: Callable[[Fact], None]) -> None:
        self._tables = tables
        self._occupants = occupants
        self._ledger = ledger
        self._out = out
        self._strikes = Strikes()
        self._refused: set[str] = set()

    async def refuse(self, seen: Snapshot) -> bool:
        """Refuse whoever waits for a lent GPU. True when there was somebody."""
        leases = list(self._ledger.leases.values())
        if not any(is_loan(lease) for lease in leases):
            return False
        found = waiting(seen.actors, leases)
        fresh = [actor for actor in found if actor.id not in self._refused]
        self._refused = {actor.id for actor in found}
        for actor in found:
            await self._tables.kill_actor(actor.id)
        for actor in fresh:
            text = f"actor {actor.class_name or actor.id} waited for a GPU outside of every slot while GPUs were lent"
            self._out(Intruder("request", actor.id, actor.node, "", True, "", text))
        await self.strike([actor.job_id for actor in fresh], seen)
        return bool(found)

    async def refuse_all(self) -> None:
        """Until nobody waits any more, or for a second: before a GPU leaves its slot."""
        for _ in range(round(SETTLE_S / LOOK_S)):
            if not await self.refuse(await self._occupants.snapshot()):
                return
            await asyncio.sleep(LOOK_S)

    async def strike(self, jobs: Sequence[str], seen: Snapshot) -> None:
        """Actors of these Ray jobs were killed for a GPU that is lent. A program that does not stop asking is ended."""
        for job in self._strikes.out(jobs):
            await self._end_driver(job, seen)

    async def _end_driver(self, job: str, seen: Snapshot) -> None:
        for node in seen.nodes.values():
            try:
                workers = await self._tables.workers(node.raylet)
            except grpc.RpcError as error:
                self._out(Note("warning", "driver_not_found", {"ray_job": job, "error": str(error)[:200]}))
                continue
            for worker in workers:
                if worker.driver and worker.job_id == job and worker.pid:
                    ended = await self._occupants.end_driver(node.id, worker.pid)
                    text = f"the program of Ray job {job} asked for a GPU {STRIKES} times within {WITHIN_S:.0f} s without a lease"
                    self._out(Intruder("driver", str(worker.pid), node.id, "", ended, "", text))
