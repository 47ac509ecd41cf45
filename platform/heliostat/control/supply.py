"""Nodes that come and go by demand: carries out what `core.fleet` plans for the pools of the queue file.

A look costs a copy of the engine and a cycle on it, so it follows decisions (never a state that is not decided on), at most once a
second and never more than a twentieth of the time. Without pools it does nothing. What is wanted goes to the bridge as one absolute
list, again after each Hello; what is on its way goes to the engine, as the reason of those who wait.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.events import NodesComing, PoolsChanged
from heliostat_scheduler.core.fleet import Fleet, FleetPlan, Machine, offered
from heliostat_scheduler.core.model import NodeComing, NodePool
from heliostat_scheduler.core.node_demand import node_demand
from heliostat_scheduler.live.protocol import NodeWant, WantNodes

from heliostat.control import rows
from heliostat.control.executor import Executor
from heliostat.control.nodes import LEAVING, NodeKeeper
from heliostat.control.outbox import Outbox
from heliostat.queuefile.pools import Pool

LOOK_MS = 1_000
SHARE = 20
ACTOR = "scheduler"


@dataclass(slots=True)
class Supply:
    """pools: as the queue file has them. sent: the last list that the bridge got. coming: what the engine was told."""

    executor: Executor
    keeper: NodeKeeper
    pools: dict[str, Pool] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)
    sent: tuple[tuple[NodeWant, ...], tuple[str, ...]] = ((), ())
    coming: tuple[NodeComing, ...] = ()
    next_look_ms: int | None = None
    _may_look_ms: int = 0
    _core: dict[str, NodePool] = field(default_factory=dict)

    def put_pools(self, pools: dict[str, Pool], out: Outbox) -> None:
        """The queue file was put in force."""
        core = {flavor: pool.to_core() for flavor, pool in sorted(pools.items())}
        self.pools = pools
        if core != self._core:
            self._core = core
            out.event(PoolsChanged(tuple(core.values())))
        self.look_again()

    def look_again(self) -> None:
        """Something has changed that may change the answer."""
        self.next_look_ms = 0

    def connected(self) -> None:
        """A new bridge wants nothing yet."""
        self.sent = ((), ())
        self.look_again()

    def due_ms(self) -> int | None:
        return None if self.next_look_ms is None else max(self.next_look_ms, self._may_look_ms)

    def tick(self, engine: Engine, out: Outbox, now_ms: int) -> None:
        due_ms = self.due_ms()
        if due_ms is None or due_ms > now_ms:
            return
        began = time.perf_counter()
        machines = self._machines(engine)
        demand = node_demand(engine, offered(self._core, machines), now_ms)
        plan = self.fleet.plan(self._core, demand, machines, now_ms)
        self._carry_out(plan, out, now_ms)
        self.next_look_ms = plan.next_ms
        self._may_look_ms = now_ms + max(LOOK_MS, SHARE * int((time.perf_counter() - began) * 1000))

    def _machines(self, engine: Engine) -> list[Machine]:
        """Every node of a pool but the head. One on which somebody was promised a place counts as held."""
        book, cordons = engine.state.book, self.keeper.cordons
        promised = {place.node for job in book.claimants for place in book.jobs[job].claim}
        return [
            Machine(
                node.node,
                node.flavor,
                held=node.node in promised or self.keeper.held(node.node),
                closed=cordons.get(node.node, LEAVING) != LEAVING,
                let_go=cordons.get(node.node) == LEAVING,
            )
            for node in self.executor.nodes.values()
            if node.flavor in self._core and not node.is_head
        ]

    def _carry_out(self, plan: FleetPlan, out: Outbox, now_ms: int) -> None:
        for node in plan.take_back:
            self.keeper.order(node, "", ACTOR, out, now_ms)
        for node in plan.let_go:
            self.keeper.order(node, LEAVING, ACTOR, out, now_ms)
        if plan.coming != self.coming:
            self._note(plan.coming, out, now_ms)
            self.coming = plan.coming
            out.event(NodesComing(plan.coming))
        self._send(plan.want, out)

    def _note(self, coming: tuple[NodeComing, ...], out: Outbox, now_ms: int) -> None:
        """The story of what was asked for, without who waits and for how long."""
        before = {nodes.flavor: (nodes.nodes, nodes.tries, nodes.late) for nodes in self.coming}
        for nodes in coming:
            if before.get(nodes.flavor) != (nodes.nodes, nodes.tries, nodes.late):
                kind = "nodes_late" if nodes.late else "nodes_wanted"
                data = {"flavor": nodes.flavor, "nodes": nodes.nodes, "tries": nodes.tries}
                out.step("nodes", partial(rows.noted, kind=kind, now_ms=now_ms, data=data))

    def _send(self, want: dict[str, int], out: Outbox) -> None:
        wants = tuple(
            NodeWant(flavor, count, pool.max_nodes, pool.gpus, pool.cpu_milli)
            for flavor, count in sorted(want.items())
            if count and (pool := self.pools.get(flavor)) is not None
        )
        known = tuple(sorted(self.executor.nodes)) if wants else ()
        if (wants, known) != self.sent:
            self.sent = (wants, known)
            term = self.executor.term
            out.step("nodes", None, self.executor.send(lambda i: WantNodes(i, term, wants, known)))
