"""What the bridge does with each command, and what it notices by itself. No pipes here: facts go to `out`.

Order: commands of one job are carried out one after the other, different jobs side by side. Nothing long happens inside a
command: freeing a lease, making a CPU group and verifying a release run in tasks of their own and speak when they are done.
Hello is taken alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, assert_never

import grpc

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.asking import NodeDesk
from heliostat_scheduler.live.board_link import BoardLink
from heliostat_scheduler.live.board_state import PROGRESS, Said
from heliostat_scheduler.live.cpu_groups import CpuBusy, CpuGroups, holds, name_of
from heliostat_scheduler.live.freeing import FreeingDesk, places_of
from heliostat_scheduler.live.holders import Holders
from heliostat_scheduler.live.ledger import Ledger, Refused
from heliostat_scheduler.live.lending import Lending
from heliostat_scheduler.live.loans import is_loan
from heliostat_scheduler.live.occupants import Occupants, Place
from heliostat_scheduler.live.patrol import Patrol
from heliostat_scheduler.live.protocol import (
    Acked,
    BoardRebuilt,
    Bye,
    Command,
    DropLease,
    DropNode,
    Fact,
    HardStop,
    Hello,
    Lease,
    NodeLost,
    Note,
    Progress,
    PutLease,
    Reply,
    RestoreNode,
    SignalCommand,
    StartCommand,
    WantNodes,
)
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.slots import Changes, Slots
from heliostat_scheduler.live.strays import Strays

RELEASE_POLL_S = 0.05


EMPTY_NODE_S = 30.0


class Executor:
    """Carries out commands over Ray."""

    def __init__(self, tables: RayTables, slots: Slots, home_node: str, out: Callable[[Fact], None]) -> None:
        self._tables = tables
        self._slots = slots
        self._out = out
        self._ledger = Ledger()
        self._occupants = Occupants(tables)
        self._board = BoardLink(self._ledger, home_node, self._heard, lambda count: out(BoardRebuilt(count)))
        self._holders = Holders(tables, self._board)
        self._cpu_groups = CpuGroups(tables)
        self._nodes = NodeDesk(tables)
        strays = Strays(tables, self._occupants, self._ledger, out)
        self._lending = Lending(slots, self._ledger, self._occupants, strays, out)
        self._freeing = FreeingDesk(
            self._ledger, self._board, self._occupants, self._holders, self._cpu_groups, self._lending, out
        )
        self.patrol = Patrol(tables, self._occupants, self._slots, self._ledger, self._holders, strays, out)
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self.failure: BaseException | None = None

    # ---- commands ----------------------------------------------------------------------------------------------------

    async def take(self, command: Command) -> None:
        """Begin a command; returns at once except for Hello, which is taken alone."""
        if isinstance(command, Hello | Bye):
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=15)
            await self._answer(command)
            return
        if isinstance(command, WantNodes):
            key = protocol.WANTED_PREFIX
        else:
            key = command.node if isinstance(command, DropNode | RestoreNode) else _job(command)
        lock = self._locks.setdefault(key, asyncio.Lock())

        async def in_turn() -> None:
            async with lock:
                await self._answer(command)
            if not lock.locked() and key not in self._ledger.leases:
                self._locks.pop(key, None)

        self._spawn(in_turn())

    async def _answer(self, command: Command) -> None:
        try:
            reply = await self._obey(command)
        except Refused as refused:
            reply = Reply(command.id, refused.code, refused.text)
        except (grpc.RpcError, TimeoutError, RuntimeError, ValueError) as error:
            reply = Reply(command.id, protocol.FAILED, f"{type(error).__name__}: {error}"[:1000])
        if reply is not None:
            self._out(reply)

    async def _obey(self, command: Command) -> Reply | None:
        if isinstance(command, Hello):
            return await self._hello(command)
        self._ledger.check_term(command.term)
        match command:
            case PutLease():
                return await self._put(command)
            case StartCommand():
                await self._holders.start(
                    self._ledger.to_start(command.job, command.attempt, command.epoch), command.spec
                )
                self.patrol.warm_soon()
            case SignalCommand():
                lease = self._ledger.leases.get(command.job)
                if lease is not None and lease.attempt == command.attempt:
                    await self._holders.signal(lease, command.grace_ms)
            case HardStop():
                if self._ledger.revoke(command.job, command.epoch) is not None:
                    await self._board.sync(command.job)
                self._freeing.begin(command.job, command.epoch, 0)
            case DropLease():
                self._ledger.to_end(command.job, command.epoch)
                self._freeing.begin(command.job, command.epoch, command.grace_ms / 1000)
            case DropNode():
                await self._drop_node(command.node)
            case RestoreNode():
                if command.node not in self._slots.nodes:
                    raise Refused(protocol.UNKNOWN_NODE, f"node {command.node} is not there")
                self._announce(await self._slots.restore(command.node))
            case WantNodes():
                alive = (await self._occupants.snapshot(0)).nodes
                await self._nodes.want(command.wants, command.known, alive)
            case Bye():
                await self._bye(command)
            case _:
                assert_never(command)
        return Reply(command.id)

    async def _hello(self, hello: Hello) -> Reply:
        self._ledger.greet(hello.term, hello.leases)
        if self._listening is not None:
            self._listening.cancel()
        self._freeing.cancel_all()
        self._slots.slot_cpu_milli = hello.slot_cpu_milli
        self._slots.reserve_cpu_milli = hello.reserve_cpu_milli or self._slots.reserve_cpu_milli
        await self._adopt_cpu_groups()
        await self._holders.recall(list(self._ledger.leases.values()))
        await self._board.install()
        self._listening = asyncio.create_task(self._listen(), name="listen")
        self.patrol.on_duty = True
        self._spawn(self._lending.settle())
        seen = await self._occupants.snapshot(0)
        occupied = {ref.slot: [a.id for a in seen.in_group(ref.group)] for ref in self._slots.refs.values()}
        nodes = [asdict(self._slots.joined(node)) for node in sorted(self._slots.nodes)]
        return Reply(hello.id, data={"nodes": nodes, "occupied": {slot: ids for slot, ids in occupied.items() if ids}})

    async def _adopt_cpu_groups(self) -> None:
        """Groups of the leases that go on are theirs; the others are emptied and removed."""
        names = {name_of(lease): lease for lease in self._ledger.leases.values() if not lease.slots and lease.node}
        for name, row in (await self._cpu_groups.known()).items():
            lease = names.get(name)
            if lease is not None and row.state == "CREATED":
                self._ledger.set_cpu_group(lease.job, row.id)
            elif lease is None:
                node = row.nodes[0] if row.nodes else ""
                self._spawn(self._remove_orphan(Place(row.id, node, row.bundles[0])))

    async def _remove_orphan(self, place: Place) -> None:
        await self._empty([place])
        await self._cpu_groups.remove(place.group)

    async def _put(self, put: PutLease) -> Reply | None:
        lease = put.lease
        if not lease.slots and lease.node and lease.node not in self._slots.nodes:
            raise Refused(protocol.UNKNOWN_NODE, f"{lease.job}: node {lease.node} is not there")
        before = self._ledger.leases.get(lease.job)
        self._ledger.put(lease, self._slots.refs)
        lease = self._ledger.leases[lease.job]
        if before is not None and before.cpu_group and before.cpu_group != lease.cpu_group:
            self._spawn(self._remove_orphan(Place(before.cpu_group, before.node, holds(before))))
        if not lease.slots and lease.node and not lease.cpu_group:
            self._spawn(self._make_cpu_group(put))
            return None
        if is_loan(lease) and lease.order == protocol.RUN:
            await self._lending.lend(lease)
        await self._board.sync(lease.job)
        data: dict[str, Any] = {"cpu_group": lease.cpu_group} if lease.cpu_group else {}  # Any: JSON
        if put.lease.leaving:
            data["left"] = not lease.leaving or await self._left(lease)
        return Reply(put.id, data=data)

    async def _left(self, lease: Lease) -> bool:
        """Whether nobody is in the slots that the lease leaves; then they are anybody's."""
        if is_loan(lease):
            if not await self._lending.left(lease):
                return False
        elif await self._occupants.of([Place.of_slot(ref) for ref in lease.leaving]):
            return False
        if self._ledger.left(lease.job, lease.epoch) is None:
            return False
        await self._board.sync(lease.job)
        return True

    async def _make_cpu_group(self, put: PutLease) -> None:
        job = put.lease.job
        try:
            group = await self._cpu_groups.make(put.lease)
        except (CpuBusy, grpc.RpcError, TimeoutError, ValueError) as error:
            self._ledger.forget(job, put.lease.epoch)
            self._out(Reply(put.id, protocol.CPU_BUSY if isinstance(error, CpuBusy) else protocol.FAILED, str(error)))
            return
        current = self._ledger.leases.get(job)
        if current is None or current.attempt != put.lease.attempt:
            await self._cpu_groups.remove(group)
            self._out(Reply(put.id, protocol.STALE_EPOCH, f"{job}: the lease ended while its group was made"))
            return
        self._ledger.set_cpu_group(job, group)
        await self._board.sync(job)
        self._out(Reply(put.id, data={"cpu_group": group}))

    async def _drop_node(self, node: str) -> None:
        if leases := self._ledger.leases_on(node):
            raise Refused(protocol.NODE_LEASED, f"{node} is leased to {', '.join(lease.job for lease in leases)}")
        if node not in self._slots.nodes:
            return
        await self._empty([Place.of_slot(ref) for ref in self._slots.groups_of(node).values()])
        await self._slots.drop(node)
        self._out(self._slots.joined(node))

    async def _empty(self, places: list[Place]) -> None:
        """Kill whoever is there, and wait until the groups are free: an occupied group must never be removed."""
        deadline = asyncio.get_running_loop().time() + EMPTY_NODE_S
        while left := await self._occupants.of(places):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{', '.join(occupant.what for occupant in left)} cannot be killed")
            await self._occupants.kill(left)
            await asyncio.sleep(0.1)

    async def _bye(self, bye: Bye) -> None:
        self.patrol.on_duty = False
        if bye.remove_slots:
            await self._empty([Place.of_slot(ref) for ref in self._slots.grouped()])
            if self._listening is not None:
                self._listening.cancel()
            await self._slots.remove_all()
            await self._board.remove()
        self.ended.set()

    # ---- what runners say --------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            await self._board.listen()
        except Exception as error:  # noqa: BLE001 - whatever it is, a deaf bridge must end and be started again
            self.failure = error
            self.ended.set()

    async def _heard(self, said: Said) -> None:
        lease = self._ledger.leases.get(said.job)
        if lease is None or lease.attempt != said.attempt:
            return
        if said.what == PROGRESS:
            self._out(Progress(said.job, said.attempt, said.facts))
            return
        if await self._holders.heard(said, lease):
            return
        epoch = lease.epoch if said.what == protocol.EXITED else said.epoch
        ack = Acked(said.job, said.attempt, epoch, said.what, said.facts)
        if said.what == protocol.RELEASED:
            self._spawn(self._verify_release(ack, lease))
        else:
            self._out(ack)

    async def _verify_release(self, ack: Acked, lease: Lease) -> None:
        """Pass `released` on when Ray's tables agree. It may be that they never do: then the lease ends first."""
        while not await self._is_released(lease):
            await asyncio.sleep(RELEASE_POLL_S)
            current = self._ledger.leases.get(ack.job)
            if current is None or current.attempt != ack.attempt:
                return
            lease = current
        self._out(ack)

    async def _is_released(self, lease: Lease) -> bool:
        """After RUN with other slots only those that are left matter: in the others its workers start again at once."""
        if lease.order == protocol.RUN and lease.slots:
            return not lease.leaving or await self._left(lease)
        return not await self._occupants.of(places_of(lease))

    # ---- what happens by itself --------------------------------------------------------------------------------------

    async def look_at_nodes(self) -> None:
        """Nodes that came and went."""
        self._announce(await self._slots.refresh(dict((await self._occupants.snapshot()).nodes)))

    async def look_at_wishes(self) -> None:
        """Groups that ask for nodes, beside the look at nodes: that one may be waiting for the very GPUs that such a group has got."""
        if self._nodes.asked:
            await self._nodes.settle((await self._occupants.snapshot()).nodes)

    def _announce(self, changes: Changes) -> None:
        for node in changes.lost:
            self._out(NodeLost(node))
        for joined in changes.joined:
            self._out(joined)
        for trouble in changes.troubles:
            self._out(trouble)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:  # Any: asyncio's own
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._out(Note("error", "bridge_task_failed", {"error": f"{type(error).__name__}: {error}"[:1000]}))


def _job(command: PutLease | StartCommand | SignalCommand | HardStop | DropLease) -> str:
    return command.lease.job if isinstance(command, PutLease) else command.job
