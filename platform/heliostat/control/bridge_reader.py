"""What the bridge says, and what follows from it.

After Ready the control plane says Hello with every lease that it knows; from the reply on the bridge is *connected* and the
engine may decide. A Ready that names another head node than the last one means a new Ray cluster: whatever ran on the old one
is gone, and every lease is void.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, assert_never

from heliostat_scheduler.core.events import Checkpointed, NodeDown, NodeUp, SlotBlocked, SlotUnblocked
from heliostat_scheduler.core.model import NodeSpec, SlotSpec
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import (
    Acked,
    BoardRebuilt,
    Fact,
    Freed,
    Hello,
    Intruder,
    NodeJoined,
    NodeLost,
    Note,
    Progress,
    Ready,
    Reply,
    SlotTrouble,
)
from sqlalchemy.orm import Session

from heliostat.control import endings, rows, terms
from heliostat.control.attempts import Attempt, Phase
from heliostat.control.endings import Exit
from heliostat.control.executor import Executor
from heliostat.control.outbox import Outbox
from heliostat.store.tables import Node

Log = Callable[[str, str, dict[str, Any]], None]  # level, event name, fields; Any: JSON


@dataclass(slots=True)
class BridgeReader:
    """connected: Hello was answered. ready: the last Ready, None while there is no bridge. blocked: slot -> why."""

    executor: Executor
    log: Log
    reserve_cpu_milli: Callable[[], int]
    on_connected: Callable[[Outbox, int], None]
    on_new_head: Callable[[str, Outbox, int], None]
    on_outdated: Callable[[str], None]
    connected: bool = False
    ready: Ready | None = None
    hello_id: int = 0
    said: dict[str, dict[str, Any]] = field(default_factory=dict)  # Any: JSON; last words of live jobs' runners
    blocked: dict[str, str] = field(default_factory=dict)

    def lost(self) -> None:
        """The bridge is gone; nothing is known about what it was told last."""
        self.connected, self.ready = False, None
        self.executor.awaiting.clear()

    def read(self, fact: Fact, out: Outbox, now_ms: int) -> None:
        if self.ready is None and not isinstance(fact, Ready | Note):
            return  # last words of a bridge that was given up
        match fact:
            case Ready():
                self._ready(fact, out, now_ms)
            case Reply():
                self._reply(fact, out, now_ms)
            case NodeJoined():
                self._node_joined(fact, out, now_ms)
            case NodeLost():
                self.node_down(fact.node, "lost", out, now_ms)
            case Acked():
                self._acked(fact, out, now_ms)
            case Progress():
                self._progress(fact, out, now_ms)
            case Freed():
                attempt = self.executor.attempts.get(fact.job)
                if attempt is not None and fact.epoch >= attempt.epoch and not attempt.freed:
                    self.executor.freed(attempt, out, now_ms)
            case Intruder():
                self._noted("intruder_killed" if fact.killed else "intruder_found", asdict(fact), out, now_ms)
            case SlotTrouble():
                self._slot_trouble(fact, out, now_ms)
            case BoardRebuilt():
                self._noted("board_rebuilt", {"leases": fact.leases}, out, now_ms)
            case Note():
                self.log(fact.level, fact.event, fact.fields)
            case _:
                assert_never(fact)

    def hello(self) -> Hello:
        """Everything that the board has to know. Which nodes there are is not known yet: their facts come after Ready."""
        executor = self.executor
        leases = [attempt.lease() for attempt in executor.attempts.values() if not attempt.freed]
        leases += [attempt.lease() for attempt in executor.parked.values()]
        self.hello_id = next(executor.ids)
        return Hello(
            id=self.hello_id,
            term=executor.term,
            leases=tuple(sorted(leases, key=lambda lease: lease.job)),
            reserve_cpu_milli=self.reserve_cpu_milli(),
        )

    def node_down(self, node: str, state: str, out: Outbox, now_ms: int) -> None:
        """The node is gone, with its slots; the engine says what becomes of the leases there."""
        if self.executor.nodes.pop(node, None) is None:
            return
        out.event(NodeDown(node))
        out.step("node", lambda s: _node_state(s, node, state, now_ms))

    # ---- one fact each -------------------------------------------------------------------------------------------------

    def _ready(self, ready: Ready, out: Outbox, now_ms: int) -> None:
        if self.executor.head_node and ready.head_node != self.executor.head_node:
            self.on_new_head(f"a new Ray head {ready.head_node[:12]} answers", out, now_ms)
        self.ready, self.connected = ready, False
        self.executor.head_node = head = ready.head_node
        out.step("head", lambda s: terms.keep_head(s, head))
        self._noted("bridge_connected", {"ray_version": ready.ray_version, "head_node": ready.head_node}, out, now_ms)
        for stranger in ready.strangers:
            self._noted("stranger_found", {"text": stranger}, out, now_ms)
        out.step("bridge", None, lambda: self.executor.bridge.send(self.hello()))

    def _reply(self, reply: Reply, out: Outbox, now_ms: int) -> None:
        if reply.code == protocol.STALE_TERM:
            self.on_outdated(reply.text)
            return
        if reply.id == self.hello_id and self.ready is not None:
            here = {str(node["node"]) for node in reply.data.get("nodes", ())}
            for node in sorted(set(self.executor.nodes) - here):
                self.node_down(node, "lost", out, now_ms)
            self.connected = True
            self.on_connected(out, now_ms)
            return
        job, n = self.executor.awaiting.pop(reply.id, ("", 0))
        attempt = self._attempt(job, n)
        if attempt is not None:
            self.executor.granted(attempt, reply.code, reply.text, reply.data, out, now_ms)
        elif reply.code:
            self.log("warning", "command_refused", {"code": reply.code, "text": reply.text})

    def _node_joined(self, joined: NodeJoined, out: Outbox, now_ms: int) -> None:
        known = self.executor.nodes.get(joined.node)
        self.executor.nodes[joined.node] = joined
        if known == joined:
            return
        out.event(NodeUp(_node_spec(joined)))
        out.step("node", lambda s: _node_row(s, joined, now_ms))

    def _acked(self, acked: Acked, out: Outbox, now_ms: int) -> None:
        attempt = self._attempt(acked.job, acked.attempt)
        if attempt is None:
            return
        executor = self.executor
        match acked.what:
            case protocol.STARTED:
                attempt.runner_seen = True
                executor.started(attempt, out, now_ms)
                executor.resize_started(attempt, acked, out, now_ms)
            case protocol.CHECKPOINTED:
                if attempt.change is not None and acked.epoch == attempt.epoch:
                    attempt.change.checkpoint_ms = now_ms
                attempt.checkpoint_ms = int(acked.facts.get("at_ms", now_ms))
                out.event(Checkpointed(attempt.job, attempt.checkpoint_ms))
                data = dict(acked.facts)
                out.step(attempt.job, lambda s: rows.happened(s, "job_checkpointed", attempt, now_ms, data))
            case protocol.RELEASED:
                executor.resize_released(attempt, acked, out, now_ms)
                if attempt.phase is Phase.ORDERED and not attempt.is_command:
                    executor.close(attempt, endings.of_order(attempt), out, now_ms)
            case protocol.DEMAND:
                executor.demanded(attempt, acked, out, now_ms)
            case protocol.EXITED:
                if attempt.is_command:
                    self._exited(attempt, acked.facts, out, now_ms)
            case _:
                self.said[attempt.job] = acked.facts

    def _exited(self, attempt: Attempt, facts: dict[str, Any], out: Outbox, now_ms: int) -> None:  # Any: JSON
        code = facts.get("rc")
        exit_ = Exit(code if isinstance(code, int) else None, bool(facts.get("lost")), str(facts.get("text", "")))
        ending = endings.of_exit(attempt, exit_, self.executor.tries(attempt.job), now_ms)
        self.executor.ended(attempt, ending, out, now_ms)

    def _progress(self, progress: Progress, out: Outbox, now_ms: int) -> None:
        attempt = self._attempt(progress.job, progress.attempt)
        if attempt is None:
            return
        self.said[attempt.job] = progress.facts
        facts = progress.facts
        out.step(attempt.job, lambda s: rows.metrics(s, attempt, facts, now_ms))
        if facts.get("training") is False:
            attempt.runner_seen = False  # the driver is outside of fit(): nobody would hear an order
            self.executor.complete_resize(attempt, out, now_ms)
        elif facts.get("training") is True:
            attempt.runner_seen = True
        at_ms = facts.get("checkpoint_at_ms")
        if isinstance(at_ms, int) and at_ms > attempt.checkpoint_ms:
            attempt.checkpoint_ms = at_ms
            if attempt.in_engine:  # else with the lease, when the engine gets that
                out.event(Checkpointed(attempt.job, at_ms))

    def _slot_trouble(self, trouble: SlotTrouble, out: Outbox, now_ms: int) -> None:
        if trouble.ok:
            self.blocked.pop(trouble.slot, None)
        else:
            self.blocked[trouble.slot] = trouble.why
        out.event(SlotUnblocked(trouble.slot) if trouble.ok else SlotBlocked(trouble.slot, trouble.why))
        kind = "slot_usable" if trouble.ok else "slot_blocked"
        self._noted(kind, {"slot": trouble.slot, "why": trouble.why}, out, now_ms)

    def _attempt(self, job: str, n: int) -> Attempt | None:
        attempt = self.executor.attempts.get(job)
        return attempt if attempt is not None and attempt.n == n else None

    def _noted(self, kind: str, data: dict[str, Any], out: Outbox, now_ms: int) -> None:  # Any: JSON
        out.step("platform", partial(rows.noted, kind=kind, now_ms=now_ms, data=data))


def _node_spec(joined: NodeJoined) -> NodeSpec:
    first = joined.slots[0] if joined.slots else None
    return NodeSpec(
        id=joined.node,
        flavor=joined.flavor,
        slots=tuple(SlotSpec(slot.slot, slot.device) for slot in joined.slots),
        cpu_milli=joined.cpu_milli,
        memory_bytes=joined.memory_bytes,
        slot_cpu_milli=first.cpu_milli if first is not None else 0,
        slot_memory_bytes=first.memory_bytes if first is not None else 0,
        labels=tuple(sorted(joined.labels.items())),
    )


def _node_row(session: Session, joined: NodeJoined, now_ms: int) -> None:
    row = session.get(Node, joined.node)
    if row is None:
        row = Node(id=joined.node, joined_ms=now_ms, seen_ms=now_ms)
        session.add(row)
        rows.noted(session, "node_joined", now_ms, {"node": joined.node, "slots": [s.slot for s in joined.slots]})
    row.ip, row.flavor, row.state, row.is_head, row.seen_ms = joined.ip, joined.flavor, "up", joined.is_head, now_ms
    row.spec = asdict(joined)
    row.labels = dict(joined.labels)


def _node_state(session: Session, node: str, state: str, now_ms: int) -> None:
    row = session.get(Node, node)
    if row is not None:
        row.state, row.seen_ms = state, now_ms
    rows.noted(session, f"node_{state}", now_ms, {"node": node})
