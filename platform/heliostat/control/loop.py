"""The control loop: one thread owns the engine. Messages in, decisions out, and between them one transaction.

A turn: drain the inbox; let each message change memory, tell the engine, and collect what is to be written and done; when a
cycle is due, let the engine decide; commit everything in one transaction; only then act on the world. A cycle comes at
most every 50 ms, and never takes more than a third of the time. Nothing is polled: without messages the loop sleeps until the
next deadline.

When the store cannot be written the turn waits and tries again: nothing leaves that is not committed. When a turn fails
otherwise (a bug), everything in memory is thrown away and rebuilt from the store, as after a kill -9.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.decisions import Plan
from heliostat_scheduler.core.events import (
    DemandFound,
    Event,
    IllegalEvent,
    JobRequeued,
    JobStartFailed,
    JobSubmitted,
    QueuesChanged,
)
from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.live.protocol import NodeJoined, NodeLost
from sqlalchemy.orm import Session

from heliostat.control import decision_log, rows, terms
from heliostat.control.asking import Desk
from heliostat.control.bridge_reader import BridgeReader, Log
from heliostat.control.clock import Clock
from heliostat.control.deadlines import Deadlines
from heliostat.control.decision_log import SNAPSHOT_CYCLES, Record
from heliostat.control.driver_reader import DriverReader
from heliostat.control.executor import Executor
from heliostat.control.hands import Bridge, Drivers, Head, NoServing, Serving
from heliostat.control.inbox import Inbox
from heliostat.control.launch import Launcher
from heliostat.control.learned import LearnedReader
from heliostat.control.messages import (
    Asked,
    BridgeLost,
    BridgeSaid,
    DriverAccepted,
    DriverRefused,
    DriverSeen,
    DriverSilent,
    JobTold,
    Learned,
    LogSaved,
    Message,
    NodeAsked,
    QueuesTold,
    ServingSaid,
    SlotsRead,
)
from heliostat.control.nodes import NodeKeeper
from heliostat.control.outbox import Outbox, Step
from heliostat.control.port import ControlError
from heliostat.control.reconcile import Reconciler
from heliostat.control.serving_reader import ServingReader
from heliostat.control.supply import Supply
from heliostat.control.utilization import UtilizationReader
from heliostat.control.why import WhySweep
from heliostat.queuefile import parse
from heliostat.store import Store, StoreUnavailable, queuefiles
from heliostat.store.errors import unavailable

CYCLE_MS = 50
HEAD_LOOK_MS = 2_000
STORE_AGAIN_S = 1.0
AFTER_A_BUG_S = 1.0


@dataclass(slots=True)
class Parts:
    """What a control loop is made of besides its memory; tests put fakes here."""

    store: Store
    clock: Clock
    bridge: Bridge
    drivers: Drivers
    head: Head
    launcher: Launcher
    log: Log
    reserve_cpu_milli: Callable[[], int]
    on_outdated: Callable[[str], None]
    policy: Policy = field(default_factory=Policy)
    serving: Serving = field(default_factory=NoServing)


class Loop:
    """engine_lock guards the engine and everything in memory; other threads take it to read."""

    def __init__(self, parts: Parts, inbox: Inbox) -> None:
        self.parts = parts
        self.inbox = inbox
        self.engine_lock = threading.RLock()
        self.cycles = 0
        self.trouble = ""
        self._answers: list[Asked | NodeAsked] = []
        self._alarms: set[str] = set()
        self._build()

    def _build(self) -> None:
        """Empty memory; `boot` fills it from the store."""
        parts = self.parts
        self.engine = Engine(policy=parts.policy)
        self.executor = Executor(parts.store, parts.bridge, parts.drivers, parts.launcher, parts.serving)
        self.reconciler = Reconciler(self.executor)
        self.desk = Desk(parts.store, self.executor, self.reconciler)
        self.why = WhySweep(self.desk.waiting, self.engine.reason)
        self.deadlines = Deadlines(self.executor)
        self.nodes = NodeKeeper(parts.store, self.executor)
        self.supply = Supply(self.executor, self.nodes)
        self.utilization = UtilizationReader(self.executor)
        self.drivers = DriverReader(self.executor)
        self.serving = ServingReader(self.executor)
        self.learned = LearnedReader()
        self.bridge = BridgeReader(
            self.executor,
            parts.log,
            parts.reserve_cpu_milli,
            on_connected=self._connected,
            on_new_head=self._head_lost,
            on_outdated=parts.on_outdated,
        )
        self._events: list[tuple[int, Event]] = []
        self._dirty = True
        self._next_cycle_ms = 0
        self._next_head_look_ms = 0

    # ---- start and run -------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Read the store; from now on this process is the one that acts (a higher term)."""
        now_ms = self.parts.clock.now_ms()
        with self.engine_lock:
            self.executor.term, self.executor.head_node = self.parts.store.write(terms.begin)
            with self.parts.store.read() as session:
                self.cycles = decision_log.last_cycle(session)
            out = Outbox(partial(self._apply, now_ms))
            self._queues(out)
            self.reconciler.load(self.parts.store, out, now_ms)
            self.nodes.load()
            body, digest, cycle = self.engine.snapshot(), self.engine.digest(), self.cycles
            out.step("snapshot", lambda s: decision_log.keep_snapshot(s, cycle, now_ms, body, digest))
            self._events.clear()  # they are in the snapshot
        self._commit(out)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; then the world goes on without us, and a later control plane takes over."""
        healthy = True
        while not stop.is_set():
            try:
                if not healthy:
                    self._start_over()
                due_ms = self.turn()
                healthy = True
            except Exception:  # noqa: BLE001  (a bug: told, and answered like a crash)
                healthy = False
                self._failed(traceback.format_exc())
                stop.wait(AFTER_A_BUG_S)
                continue
            wait_ms = None if due_ms is None else max(0, due_ms - self.parts.clock.now_ms())
            self.inbox.wait(None if wait_ms is None else wait_ms / 1000)

    def turn(self) -> int | None:
        """One turn. Returns when the next one is due at the latest (None: only when something arrives)."""
        now_ms = self.parts.clock.now_ms()
        with self.engine_lock:
            out = Outbox(partial(self._apply, now_ms))
            self._messages(self.inbox.drain(), out, now_ms)
            self._look_at_head(out, now_ms)
            self.deadlines.tick(out, now_ms, connected=self.bridge.connected)
            if self.bridge.connected:
                self.nodes.tick(out, now_ms)
            if self._cycle_due(now_ms):
                self._cycle(out, now_ms)
            if self.bridge.connected and not self._dirty:
                self.supply.tick(self.engine, out, now_ms)
            self.why.tick(out, now_ms)
            due_ms = self._due(now_ms)
        self._commit(out)
        return due_ms

    def _connected(self, out: Outbox, now_ms: int) -> None:
        self.reconciler.connected(self.parts.store, out, now_ms)
        self.supply.connected()

    def _failed(self, trace: str) -> None:
        self.trouble = trace.strip().splitlines()[-1]
        self.parts.log("error", "control_loop_failed", {"trace": trace})
        for asked in self._answers:
            asked.answer.set_exception(ControlError("busy", "The control plane starts over; try again."))
        self._answers = []

    def _start_over(self) -> None:
        """Everything from the store, as a new process would."""
        with self.engine_lock:
            self._build()
            self.parts.bridge.restart()
            for message in self.inbox.drain():
                if not isinstance(message, BridgeSaid):
                    self.inbox.post(message)
            self.boot()

    # ---- messages ------------------------------------------------------------------------------------------------------

    def _messages(self, messages: list[Message], out: Outbox, now_ms: int) -> None:
        new: list[str] = []
        changed: list[str] = []
        for message in messages:
            match message:
                case JobTold():
                    (new if message.new else changed).append(message.job_id)
                case Asked():
                    self.desk.arrived(new, out)
                    new = []
                    self._asked(message, out, now_ms)
                case NodeAsked():
                    self._asked(message, out, now_ms)
                case QueuesTold():
                    self._queues(out)
                case BridgeSaid():
                    self._bridge_said(message, out, now_ms)
                case BridgeLost():
                    self.bridge.lost()
                    self._next_head_look_ms = now_ms
                    data = {"why": message.why}
                    out.step("bridge", lambda s, d=data: rows.noted(s, "bridge_lost", now_ms, d))  # type: ignore[misc]
                case DriverAccepted() | DriverRefused() | DriverSeen() | DriverSilent() | LogSaved():
                    self.drivers.read(message, out, now_ms)
                case SlotsRead():
                    self.utilization.read(message, self.bridge.said, out, now_ms)
                case ServingSaid():
                    self.serving.read(message, out, now_ms)
                case Learned():
                    self.learned.read(message, self.engine, out)
                case _:
                    assert_never(message)
        self.desk.arrived(new, out)
        self.desk.changed(changed, out)

    def _bridge_said(self, said: BridgeSaid, out: Outbox, now_ms: int) -> None:
        flavors = self._flavors()
        self.bridge.read(said.fact, out, now_ms)
        if isinstance(said.fact, NodeJoined):
            self.nodes.joined(said.fact, out)
        elif isinstance(said.fact, NodeLost):
            self.nodes.lost(said.fact.node)
        if self._flavors() != flavors:
            self._queues(out)

    def _asked(self, asked: Asked | NodeAsked, out: Outbox, now_ms: int) -> None:
        try:
            if isinstance(asked, NodeAsked):
                self.nodes.asked(asked, out, now_ms)
            else:
                self.desk.asked(asked, out, now_ms)
        except ControlError as error:
            asked.answer.set_exception(error)
        else:
            self._answers.append(asked)

    def _queues(self, out: Outbox) -> None:
        with self.parts.store.read() as session:
            file = parse(queuefiles.current_text(session))
        out.event(QueuesChanged(file.to_core(self._flavors())))
        self.supply.put_pools(dict(file.pools), out)

    def _flavors(self) -> tuple[str, ...]:
        return tuple(sorted({node.flavor for node in self.executor.nodes.values()}))

    def _look_at_head(self, out: Outbox, now_ms: int) -> None:
        """Without a bridge: is it only the bridge, or is Ray dead?"""
        if now_ms < self._next_head_look_ms:
            return
        self._next_head_look_ms = now_ms + HEAD_LOOK_MS
        if (self.executor.attempts or self.executor.nodes) and not self.parts.head.alive():
            self._head_lost("the Ray head is dead", out, now_ms)
            self.parts.bridge.restart()

    def _head_lost(self, why: str, out: Outbox, now_ms: int) -> None:
        """Whatever ran on that cluster is gone: void every lease, then its nodes."""
        self.bridge.lost()
        out.step("head", lambda s: rows.noted(s, "ray_head_lost", now_ms, {"why": why}))
        self.reconciler.head_lost(out, now_ms)
        for node in sorted(self.executor.nodes):
            self.bridge.node_down(node, "lost", out, now_ms)

    # ---- the cycle -----------------------------------------------------------------------------------------------------

    def _apply(self, now_ms: int, event: Event) -> bool:
        try:
            self.engine.apply(event, now_ms)
        except IllegalEvent as error:
            self.parts.log("warning", "event_refused", {"event": type(event).__name__, "text": str(error)})
            return False
        self._events.append((now_ms, event))
        self._dirty = True
        match event:
            case JobSubmitted():
                self.desk.waiting[event.job.id] = None
                first = self.learned.of_new(self.engine, event.job)
                if first is not None:
                    self._apply(now_ms, first)
            case JobRequeued() | JobStartFailed() | DemandFound():
                self.desk.waiting[event.job_id] = None
            case _:
                pass
        return True

    def _cycle_due(self, now_ms: int) -> bool:
        """Decide when something changed, but never while nobody could carry it out: nodes without a bridge."""
        at_ms = self._next_decision_ms()
        return at_ms is not None and at_ms <= now_ms

    def _next_decision_ms(self) -> int | None:
        if self.executor.nodes and not self.bridge.connected:
            return None
        wakeup = 0 if self._dirty else self.engine.next_wakeup_ms()
        return None if wakeup is None else max(wakeup, self._next_cycle_ms)

    def _cycle(self, out: Outbox, now_ms: int) -> None:
        began = time.perf_counter()
        plan = self.engine.decide(now_ms)
        self._log_cycle(plan, out, now_ms)
        self._log_alarms(plan)
        self._dirty = False
        for decision in plan.decisions:
            self.desk.waiting.pop(decision.job_id, None)
            self.why.forget(decision.job_id)
        self.executor.carry_out(plan, out, now_ms)
        self.why.cycle_done()
        if self.supply.pools:
            self.supply.look_again()
        took_ms = int((time.perf_counter() - began) * 1000)
        self._next_cycle_ms = now_ms + max(CYCLE_MS, 3 * took_ms)

    def _log_alarms(self, plan: Plan) -> None:
        """Each alarm of the scheduler once: the same one is in every cycle."""
        for text in dict.fromkeys(plan.alarms):
            if text not in self._alarms:
                self._alarms.add(text)
                self.parts.log("warning", "quotas_scaled", {"text": text})

    def _log_cycle(self, plan: Plan, out: Outbox, now_ms: int) -> None:
        self.cycles += 1
        record = Record(
            self.cycles, now_ms, tuple(self._events), plan, self.engine.policy_digest(), self.engine.digest()
        )
        self._events = []
        out.step("decision_log", lambda s: decision_log.append(s, record))
        if self.cycles % SNAPSHOT_CYCLES == 0:
            body, digest, cycle = self.engine.snapshot(), record.state_digest, self.cycles
            out.step("snapshot", lambda s: decision_log.keep_snapshot(s, cycle, now_ms, body, digest))

    def _due(self, now_ms: int) -> int | None:
        moments = [self.deadlines.next_ms(connected=self.bridge.connected), self._next_decision_ms()]
        if self.bridge.connected:
            moments += [self.nodes.next_ms(), None if self._dirty else self.supply.due_ms()]
        if self.executor.attempts or self.executor.nodes:
            moments.append(self._next_head_look_ms)
        if self.why.left:
            moments.append(now_ms + CYCLE_MS)
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- commit, then act ----------------------------------------------------------------------------------------------

    def _commit(self, out: Outbox) -> None:
        answers, self._answers = self._answers, []
        steps = out.steps
        refused: list[tuple[Step, str]] = []
        if any(step.write is not None for step in steps):
            refused = self._write(steps)
        self.desk.moved.clear()
        bad = {id(step) for step, _ in refused}
        for step, why in refused:
            self.parts.log("error", "write_refused", {"about": step.about, "why": why})
        for step in steps:
            if id(step) not in bad:
                for effect in step.effects:
                    effect()
        for asked in answers:
            asked.answer.set_result(None)

    def _write(self, steps: list[Step]) -> list[tuple[Step, str]]:
        """One transaction, a savepoint for each step. Waits for a store that is not available."""

        def work(session: Session) -> list[tuple[Step, str]]:
            refused: list[tuple[Step, str]] = []
            for step in steps:
                if step.write is None:
                    continue
                try:
                    with session.begin_nested():
                        step.write(session)
                except Exception as error:
                    if isinstance(error, StoreUnavailable) or unavailable(error) is not None:
                        raise
                    refused.append((step, "".join(traceback.format_exception(error))))
            return refused

        while True:
            try:
                return self.parts.store.write(work)
            except StoreUnavailable as error:
                self.trouble = str(error)
                self.parts.log("error", "store_unavailable", {"text": str(error)})
                time.sleep(STORE_AGAIN_S)
