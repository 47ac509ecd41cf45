"""A Ray cluster in memory, with a virtual clock: the world in which `FakeBridge` works. Ray-free, for unit tests.

It outlives bridges, as a real cluster does: slots, occupants, running commands and the board stay when a bridge is replaced.
Tests drive it: `advance` time, let runners `ack`, `occupy` and `vacate` slots, kill the board or a node. Nothing happens by
itself between two calls. What a command job does is a `Program`, set per job before it starts.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.board_state import BoardEmpty, BoardState
from heliostat_scheduler.live.protocol import CommandSpec, Lease, LeaseGone, NodeJoined, SlotRef

if TYPE_CHECKING:
    from heliostat_scheduler.live.fake_bridge import FakeBridge

SIGKILL_RC = 137
SIGTERM_RC = 143


@dataclass(frozen=True, slots=True)
class FakeNode:
    """cpu_milli, memory_bytes: the floating part."""

    id: str
    gpus: int = 2
    ip: str = "127.0.0.1"
    flavor: str = "gpu"
    cpu_milli: int = 4000
    memory_bytes: int = 8 << 30
    slot_cpu_milli: int = 1000
    slot_memory_bytes: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """What the child of a command job does. runs_ms None: until a signal. After SIGTERM it needs term_ms, or ignores it (None)."""

    runs_ms: int | None = None
    rc: int = 0
    start_ms: int = 50
    term_ms: int | None = 0
    term_rc: int = SIGTERM_RC


@dataclass(slots=True)
class Child:
    job: str
    attempt: int
    epoch: int
    secret: str
    spec: CommandSpec
    program: Program
    started: bool = False
    rc: int | None = None


@dataclass(frozen=True, slots=True)
class Occupant:
    """An actor in a slot. job "" belongs to nobody. stubborn: cannot be killed."""

    actor: str
    slot: str
    job: str = ""
    attempt: int = 0
    stubborn: bool = False


class FakeCluster:
    """Nodes, slots, occupants, commands, board and clock."""

    def __init__(self, *nodes: FakeNode, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self.nodes: dict[str, FakeNode] = {}
        self.slots: dict[str, SlotRef] = {}
        self.board = BoardState()
        self.occupants: dict[str, Occupant] = {}
        self.children: dict[tuple[str, int], Child] = {}
        self.programs: dict[str, Program] = {}
        self.cpu_groups: dict[str, tuple[str, str, int]] = {}
        self.cpu_busy: set[str] = set()
        self.wanted: dict[str, int] = {}
        self.bridge: FakeBridge | None = None
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count(1)
        self._words: list[tuple[str, str, int, str, dict[str, Any]]] = []  # Any: JSON
        for node in nodes or (FakeNode("node0", is_head=True),):
            self.add_node(node)

    # ---- time --------------------------------------------------------------------------------------------------------

    def at(self, at_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (at_ms, next(self._count), call))

    def advance(self, ms: int = 100) -> None:
        """Let the time pass; everything that is due happens in order."""
        end = self.now_ms + ms
        self.settle()
        while self._timers and self._timers[0][0] <= end:
            at_ms, _, call = heapq.heappop(self._timers)
            self.now_ms = max(self.now_ms, at_ms)
            call()
            self.settle()
        self.now_ms = end
        self.settle()

    def settle(self) -> None:
        if self.bridge is not None:
            self.bridge.tick()

    # ---- nodes and slots ---------------------------------------------------------------------------------------------

    def add_node(self, node: FakeNode) -> None:
        self.nodes[node.id] = node
        self.make_slots(node.id)
        if self.bridge is not None:
            self.bridge.node_joined(node.id)

    def make_slots(self, node_id: str) -> None:
        node = self.nodes[node_id]
        for device in range(node.gpus):
            slot = f"{node.id[:12]}/{device}"
            group = f"{next(self._count):032x}"
            self.slots[slot] = SlotRef(slot, group, node.id, device, node.slot_cpu_milli, node.slot_memory_bytes)

    def remove_slots(self, node_id: str) -> None:
        self.slots = {slot: ref for slot, ref in self.slots.items() if ref.node != node_id}

    def lose_node(self, node_id: str) -> None:
        """The machine dies with everything on it."""
        gone = {slot for slot, ref in self.slots.items() if ref.node == node_id}
        for child in self.children.values():
            lease = self.board.leases.get(child.job)
            if lease and child.rc is None and (lease.node == node_id or any(ref.slot in gone for ref in lease.slots)):
                self._exit(child, SIGKILL_RC, lost=True)
        self.occupants = {key: occ for key, occ in self.occupants.items() if occ.slot not in gone}
        self.remove_slots(node_id)
        del self.nodes[node_id]
        if self.bridge is not None:
            self.bridge.node_lost(node_id)
        self.settle()

    def joined(self, node_id: str) -> NodeJoined:
        node = self.nodes[node_id]
        slots = tuple(sorted((r for r in self.slots.values() if r.node == node_id), key=lambda ref: ref.device))
        return NodeJoined(
            node.id, node.ip, node.flavor, slots, node.cpu_milli, node.memory_bytes, dict(node.labels), node.is_head
        )

    # ---- runners and intruders ---------------------------------------------------------------------------------------

    def lease(self, job: str, secret: str) -> Lease:
        """What a runner reads. Raises LeaseGone."""
        return self.board.get(job, secret)

    def ack(
        self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any] | None = None
    ) -> None:  # Any: JSON
        """A runner's ack; repeated for it when the board was rebuilt, as the real client does."""
        word = (job, secret, epoch, what, facts or {})
        self._words.append(word)
        self._say(word)
        self.settle()

    def report(self, job: str, secret: str, facts: dict[str, Any]) -> None:  # Any: JSON
        self.board.ack(job, secret, 0, "progress", facts)
        self.settle()

    def occupy(self, slot: str, actor: str, *, job: str = "", attempt: int = 0, stubborn: bool = False) -> None:
        self.occupants[actor] = Occupant(actor, slot, job, attempt, stubborn)
        self.settle()

    def vacate(self, actor: str) -> None:
        self.occupants.pop(actor, None)
        self.settle()

    def kill_board(self) -> None:
        self.board = BoardState()
        self.settle()

    def board_filled(self) -> None:
        """Runners notice that the board is a new one and say again what it has forgotten."""
        for word in self._words:
            if word[0] in self.board.leases:
                self._say(word)

    def _say(self, word: tuple[str, str, int, str, dict[str, Any]]) -> None:  # Any: JSON
        try:
            self.board.ack(*word)
        except (BoardEmpty, LeaseGone):
            return  # said again by board_filled, or nobody listens any more

    # ---- commands ----------------------------------------------------------------------------------------------------

    def start_child(self, lease: Lease, spec: CommandSpec) -> None:
        key = (lease.job, lease.attempt)
        if key in self.children:
            return
        program = self.programs.get(lease.job, Program())
        child = Child(lease.job, lease.attempt, lease.epoch, lease.secret, spec, program)
        self.children[key] = child
        for ref in lease.slots:
            self.occupy(
                ref.slot, f"holder:{lease.job}:{lease.attempt}:{ref.slot}", job=lease.job, attempt=lease.attempt
            )
        self.at(self.now_ms + program.start_ms, lambda: self._child_up(child))

    def signal_child(self, job: str, attempt: int, grace_ms: int) -> None:
        child = self.children.get((job, attempt))
        if child is None or child.rc is not None:
            return
        slow = child.program.term_ms is None or child.program.term_ms > grace_ms
        wait_ms = grace_ms if slow else child.program.term_ms or 0
        rc = SIGKILL_RC if slow else child.program.term_rc
        self.at(self.now_ms + wait_ms, lambda: self._exit(child, rc))

    def crash_child(self, job: str, attempt: int) -> None:
        """kill -9 of the holder: its child dies with it, the exit code is not known."""
        self._exit(self.children[job, attempt], SIGKILL_RC, lost=True)
        self.settle()

    def end_child(self, job: str, attempt: int) -> None:
        """The lease ends: child and holders are gone."""
        child = self.children.get((job, attempt))
        if child is not None and child.rc is None:
            self._exit(child, SIGKILL_RC)

    def _child_up(self, child: Child) -> None:
        if child.rc is not None:
            return
        child.started = True
        self.ack(child.job, child.secret, child.epoch, protocol.STARTED, {"pid": 1000 + len(self.children)})
        if child.program.runs_ms is not None:
            self.at(self.now_ms + child.program.runs_ms, lambda: self._exit(child, child.program.rc))

    def _exit(self, child: Child, rc: int, *, lost: bool = False) -> None:
        if child.rc is not None:
            return
        child.rc = rc
        facts = {
            "rc": rc,
            "signal": rc - 128 if rc > 128 else 0,
            "lost": lost,
            "text": "its holder died" if lost else "",
        }
        self.ack(child.job, child.secret, child.epoch, protocol.EXITED, facts)
