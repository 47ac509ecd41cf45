"""The bridge without Ray: the same protocol, rules and order of facts, over a `FakeCluster` with a virtual clock.

    cluster = FakeCluster(FakeNode("n1", gpus=2))
    bridge = FakeBridge(cluster)          # Ready and NodeJoined wait in bridge.take()
    bridge.send(Hello(id=1, term=1))
    cluster.advance(1000)
    facts = bridge.take()

A bridge that dies is `close()`d and a new FakeBridge takes the same cluster. It passes the conformance suite that the real
bridge passes (tests/contracts/bridge_conformance.py), so what unit tests of the control plane rely on is true.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, assert_never

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.board_state import PROGRESS, Said, StaleTerm
from heliostat_scheduler.live.fake_cluster import FakeCluster, Occupant
from heliostat_scheduler.live.ledger import Ledger, Refused
from heliostat_scheduler.live.protocol import (
    Acked,
    BoardRebuilt,
    Bye,
    Command,
    DropLease,
    DropNode,
    Fact,
    Freed,
    HardStop,
    Hello,
    Intruder,
    Lease,
    NodeLost,
    NodeWant,
    Progress,
    PutLease,
    Ready,
    Reply,
    RestoreNode,
    SignalCommand,
    SlotTrouble,
    StartCommand,
    WantNodes,
)
from heliostat_scheduler.live.wishes import open_wishes

WATCHDOG_MS = 1_000
CPU_GROUP_MS = 10_000
TROUBLE_MS = 10_000


@dataclass(slots=True)
class _Freeing:
    epoch: int
    kill_at_ms: int
    trouble_at_ms: int
    in_trouble: bool = False


class FakeBridge:
    """send() commands, take() facts; time passes in the cluster."""

    def __init__(self, cluster: FakeCluster, *, pid: int = 4711) -> None:
        self.cluster = cluster
        self.ledger = Ledger()
        self.closed = False
        self._out: list[Fact] = []
        self._seq = 0
        self._released: list[Acked] = []
        self._freeing: dict[str, _Freeing] = {}
        self._suspects: dict[str, int] = {}
        self._cordoned: set[str] = set()
        self._wants: tuple[NodeWant, ...] = ()
        self._known: tuple[str, ...] = ()
        cluster.bridge = self
        head = next((node.id for node in cluster.nodes.values() if node.is_head), "")
        self._out.append(Ready("2.60.0", "127.0.0.1:6379", pid, head))
        for node in sorted(cluster.nodes):
            self._out.append(cluster.joined(node))

    def close(self) -> None:
        """The process is gone (kill -9, or its pipe closed): nothing it has not said is ever said."""
        self.closed = True
        self.cluster.wanted = {}
        if self.cluster.bridge is self:
            self.cluster.bridge = None

    def take(self) -> list[Fact]:
        """The facts since the last call, in order."""
        out, self._out = self._out, []
        return out

    def send(self, command: Command) -> None:
        """Carry out one command. Its Reply may come later, when the time has passed."""
        if self.closed:
            raise BrokenPipeError("the bridge is gone")
        try:
            reply = self._obey(command)
        except Refused as refused:
            reply = Reply(command.id, refused.code, refused.text)
        if reply is not None:
            self._out.append(reply)
        self.cluster.settle()

    def _obey(self, command: Command) -> Reply | None:
        if isinstance(command, Hello):
            return self._hello(command)
        self.ledger.check_term(command.term)
        match command:
            case PutLease():
                return self._put(command)
            case StartCommand():
                lease = self.ledger.to_start(command.job, command.attempt, command.epoch)
                self.cluster.start_child(lease, command.spec)
            case SignalCommand():
                self.cluster.signal_child(command.job, command.attempt, command.grace_ms)
            case HardStop():
                self._end(command.job, command.epoch, 0, hard=True)
            case DropLease():
                self._end(command.job, command.epoch, command.grace_ms, hard=False)
            case DropNode():
                self._drop_node(command.node)
            case RestoreNode():
                self._restore_node(command.node)
            case WantNodes():
                self._wants, self._known = command.wants, command.known
            case Bye():
                self.close()
            case _:
                assert_never(command)
        return Reply(command.id)

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _hello(self, hello: Hello) -> Reply:
        try:
            self.cluster.board.check_term(hello.term)
        except StaleTerm as stale:
            raise Refused(protocol.STALE_TERM, str(stale)) from stale
        self.ledger.greet(hello.term, hello.leases)
        self.cluster.board.install(hello.term, hello.leases)
        self.cluster.board_filled()
        self._seq, self._released, self._freeing = 0, [], {}
        self.cluster.cpu_groups = {j: g for j, g in self.cluster.cpu_groups.items() if j in self.ledger.leases}
        occupied: dict[str, list[str]] = {}
        for occupant in self.cluster.occupants.values():
            occupied.setdefault(occupant.slot, []).append(occupant.actor)
        nodes = [asdict(self.cluster.joined(node)) for node in sorted(self.cluster.nodes)]
        return Reply(hello.id, data={"nodes": nodes, "occupied": occupied})

    def _put(self, put: PutLease) -> Reply | None:
        lease = put.lease
        self.ledger.put(lease, self._usable())
        lease = self.ledger.leases[lease.job]
        if not lease.cpu_group and (lease.slots or not lease.node):
            self.cluster.cpu_groups.pop(lease.job, None)
        if lease.slots or not lease.node or lease.cpu_group:
            self.cluster.board.put(put.term, lease)
            data: dict[str, Any] = {"cpu_group": lease.cpu_group} if lease.cpu_group else {}  # Any: JSON
            if put.lease.leaving:
                data["left"] = not lease.leaving or self._left(lease)
            return Reply(put.id, data=data)
        if lease.node not in self.cluster.nodes:
            del self.ledger.leases[lease.job]
            raise Refused(protocol.UNKNOWN_NODE, f"{lease.job}: node {lease.node} is not there")
        if not self._make_cpu_group(put):
            self.cluster.at(self.cluster.now_ms + CPU_GROUP_MS, lambda: self._cpu_deadline(put))
            return None
        return Reply(put.id, data={"cpu_group": self.ledger.leases[lease.job].cpu_group})

    def _left(self, lease: Lease) -> bool:
        leaving = {ref.slot for ref in lease.leaving}
        if any(occupant.slot in leaving for occupant in self.cluster.occupants.values()):
            return False
        left = self.ledger.left(lease.job, lease.epoch)
        if left is not None:
            self.cluster.board.put(self.ledger.term, left)
        return left is not None

    def _make_cpu_group(self, put: PutLease) -> bool:
        lease, cluster = put.lease, self.cluster
        used = sum(cpu for _, node, cpu in cluster.cpu_groups.values() if node == lease.node)
        if lease.node in cluster.cpu_busy or used + lease.cpu_milli > cluster.nodes[lease.node].cpu_milli:
            return False
        group = f"c{len(cluster.cpu_groups) + 1:031x}"
        cluster.cpu_groups[lease.job] = (group, lease.node, lease.cpu_milli)
        cluster.board.put(put.term, self.ledger.set_cpu_group(lease.job, group))
        return True

    def _cpu_deadline(self, put: PutLease) -> None:
        current = self.ledger.leases.get(put.lease.job)
        if self.closed or current is None or current.epoch != put.lease.epoch:
            return
        if self._make_cpu_group(put):
            self._out.append(Reply(put.id, data={"cpu_group": self.ledger.leases[put.lease.job].cpu_group}))
            return
        self.ledger.forget(put.lease.job, put.lease.epoch)
        text = f"{put.lease.job}: no CPU was free on {put.lease.node} within 10 s"
        self._out.append(Reply(put.id, protocol.CPU_BUSY, text))

    def _end(self, job: str, epoch: int, grace_ms: int, *, hard: bool) -> None:
        lease = self.ledger.revoke(job, epoch) if hard else self.ledger.to_end(job, epoch)
        if lease is None:
            self.ledger.forget(job, epoch)
            self._out.append(Freed(job, epoch))
            return
        if hard:
            self.cluster.board.put(self.ledger.term, lease)
        now = self.cluster.now_ms
        old = self._freeing.get(job)
        kill_at = min(now + grace_ms, old.kill_at_ms if old else now + grace_ms)
        self._freeing[job] = _Freeing(epoch, kill_at, kill_at + TROUBLE_MS)
        for moment in (kill_at, kill_at + TROUBLE_MS):
            self.cluster.at(moment, self._nothing)

    def _drop_node(self, node: str) -> None:
        if leases := self.ledger.leases_on(node):
            raise Refused(protocol.NODE_LEASED, f"{node} is leased to {', '.join(lease.job for lease in leases)}")
        self._cordoned.add(node)
        slots = {slot for slot, ref in self.cluster.slots.items() if ref.node == node}
        for occupant in [occ for occ in self.cluster.occupants.values() if occ.slot in slots]:
            self._kill_intruder(occupant)
        self.cluster.remove_slots(node)
        if node in self.cluster.nodes:
            self.node_joined(node)

    def _restore_node(self, node: str) -> None:
        if node not in self.cluster.nodes:
            raise Refused(protocol.UNKNOWN_NODE, f"node {node} is not there")
        self._cordoned.discard(node)
        if not any(ref.node == node for ref in self.cluster.slots.values()):
            self.cluster.make_slots(node)
        self.node_joined(node)

    # ---- what happens by itself --------------------------------------------------------------------------------------

    def node_joined(self, node: str) -> None:
        self._out.append(self.cluster.joined(node))

    def node_lost(self, node: str) -> None:
        self._cordoned.discard(node)
        self._out.append(NodeLost(node))

    def tick(self) -> None:
        """Everything that is due now. The cluster calls it whenever something happened."""
        alive = {node.id: node.flavor for node in self.cluster.nodes.values()}
        wished = open_wishes(self._wants, self._known, alive)
        self.cluster.wanted = {want.flavor: count for want, count in wished.items() if count}
        if self.ledger.term == 0:
            return
        if not self.cluster.board.installed:
            self.cluster.board.install(self.ledger.term, tuple(self.ledger.leases.values()))
            self.cluster.board_filled()
            self._seq = 0
            self._out.append(BoardRebuilt(len(self.ledger.leases)))
        self._listen()
        self._free()
        self._watch()

    def _listen(self) -> None:
        for said in self.cluster.board.after(self._seq):
            self._seq = said.seq
            self._forward(said)
        waiting, self._released = self._released, []
        for ack in waiting:
            lease = self.ledger.leases.get(ack.job)
            if lease is not None and lease.attempt == ack.attempt:
                (self._out if self._is_released(lease) else self._released).append(ack)

    def _is_released(self, lease: Lease) -> bool:
        if lease.order == protocol.RUN and lease.slots:
            return not lease.leaving or self._left(lease)
        return not self._occupants(lease)

    def _forward(self, said: Said) -> None:
        if said.what == PROGRESS:
            self._out.append(Progress(said.job, said.attempt, said.facts))
            return
        ack = Acked(said.job, said.attempt, said.epoch, said.what, said.facts)
        (self._released if said.what == protocol.RELEASED else self._out).append(ack)

    def _free(self) -> None:
        now = self.cluster.now_ms
        for job, freeing in sorted(self._freeing.items()):
            lease = self.ledger.leases.get(job)
            if lease is not None and now >= freeing.kill_at_ms:
                self.cluster.end_child(job, lease.attempt)
                self._kill(lease)
            if lease is not None and self._ended(lease):
                self._kill(lease)
            if lease is None or not self._occupants(lease):
                self._freed(job, freeing, lease)
            elif now >= freeing.trouble_at_ms and not freeing.in_trouble:
                freeing.in_trouble = True
                self._out += [SlotTrouble(o.slot, False, f"{o.actor} cannot be killed") for o in self._occupants(lease)]

    def _freed(self, job: str, freeing: _Freeing, lease: Lease | None) -> None:
        self._listen_last(job)
        del self._freeing[job]
        self.ledger.forget(job, freeing.epoch)
        self.cluster.board.drop(self.ledger.term, job)
        self.cluster.cpu_groups.pop(job, None)
        if freeing.in_trouble and lease is not None:
            self._out += [SlotTrouble(ref.slot, True) for ref in lease.held]
        self._out.append(Freed(job, freeing.epoch))

    def _listen_last(self, job: str) -> None:
        """What the runner said before it ended comes before Freed."""
        for said in self.cluster.board.after(self._seq):
            if said.job == job:
                self._forward(said)
        self._released = [ack for ack in self._released if ack.job != job]

    def _ended(self, lease: Lease) -> bool:
        child = self.cluster.children.get((lease.job, lease.attempt))
        return child is not None and child.rc is not None

    def _kill(self, lease: Lease) -> None:
        for occupant in self._occupants(lease):
            if not occupant.stubborn:
                del self.cluster.occupants[occupant.actor]

    def _watch(self) -> None:
        """Whoever sits in a slot without its lease is killed one round of the watchdog later."""
        now = self.cluster.now_ms
        owners = {ref.slot: (lease.job, lease.attempt) for lease in self.ledger.leases.values() for ref in lease.held}
        strangers = {
            occ.actor: occ
            for occ in self.cluster.occupants.values()
            if owners.get(occ.slot) != (occ.job, occ.attempt) or not occ.job
        }
        self._suspects = {actor: since for actor, since in self._suspects.items() if actor in strangers}
        for actor, occupant in sorted(strangers.items()):
            if actor not in self._suspects:
                self._suspects[actor] = now
                self.cluster.at(now + WATCHDOG_MS, self._nothing)
            elif now - self._suspects[actor] >= WATCHDOG_MS:
                self._kill_intruder(occupant)

    def _kill_intruder(self, occupant: Occupant) -> None:
        self._suspects[occupant.actor] = self.cluster.now_ms
        if not occupant.stubborn:
            del self.cluster.occupants[occupant.actor]
        ref = self.cluster.slots[occupant.slot]
        text = f"actor {occupant.actor} held {occupant.slot} without a lease"
        killed = not occupant.stubborn
        self._out.append(Intruder("actor", occupant.actor, ref.node, occupant.slot, killed, occupant.job, text))

    def _occupants(self, lease: Lease) -> list[Occupant]:
        slots = {ref.slot for ref in lease.held}
        return [occ for occ in self.cluster.occupants.values() if occ.slot in slots]

    def _usable(self) -> dict[str, protocol.SlotRef]:
        return {slot: ref for slot, ref in self.cluster.slots.items() if ref.node not in self._cordoned}

    def _nothing(self) -> None:
        """A timer whose only effect is the tick after it."""
