"""Nodes that somebody takes out of use: cordoned (nothing new starts there), draining (what runs there moves away), drained.
Those that the scheduler lets go (`supply`) are `leaving`, then `let_go`: as draining, but nobody's order.

A cordon stands in the node's row, so it outlives the control plane; the engine is told whenever it learns of the node anew. A
draining node loses its slots when no lease names them any more: from then on its GPUs are Ray's own again, and an autoscaler sees it
idle. `uncordon` makes the slots again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_scheduler.core.events import NodeCordoned, NodeUncordoned
from heliostat_scheduler.live.protocol import DropNode, NodeJoined, RestoreNode
from sqlalchemy.orm import Session

from heliostat.control import rows
from heliostat.control.executor import Executor
from heliostat.control.messages import NodeAsked
from heliostat.control.outbox import Outbox
from heliostat.control.port import ControlError
from heliostat.store import Store
from heliostat.store.tables import Node

CORDONED, DRAINING, LEAVING = "cordoned", "draining", "leaving"
EMPTIED = (DRAINING, LEAVING)
ORDERS = {"cordon": CORDONED, "drain": DRAINING, "uncordon": ""}
DROP_AGAIN_MS = 5_000


@dataclass(slots=True)
class NodeKeeper:
    """cordons: node -> cordoned or draining. told: nodes of which the engine knows that. drop_at_ms: when to ask for slots again."""

    store: Store
    executor: Executor
    cordons: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    drop_at_ms: dict[str, int] = field(default_factory=dict)

    def load(self) -> None:
        """What the last control plane was told."""
        with self.store.read() as session:
            found = session.query(Node).filter(Node.cordon != "").all()
            self.cordons = {node.id: node.cordon for node in found}

    def joined(self, joined: NodeJoined, out: Outbox) -> None:
        """After the engine knows the node."""
        cordon = self.cordons.get(joined.node)
        if cordon is not None and joined.node not in self.told:
            self.told.add(joined.node)
            out.event(NodeCordoned(joined.node, drain=cordon in EMPTIED))

    def lost(self, node: str) -> None:
        """An order of somebody outlives the node; that it was let go does not."""
        self.told.discard(node)
        if self.cordons.get(node) == LEAVING:
            del self.cordons[node]

    def asked(self, asked: NodeAsked, out: Outbox, now_ms: int) -> None:
        """Raises ControlError for a node that is not there."""
        if asked.node not in self.executor.nodes:
            raise ControlError("unknown_node", f"There is no node {asked.node} now.", "List them with: helio nodes")
        self.order(asked.node, ORDERS[asked.what], asked.actor, out, now_ms)

    def order(self, node: str, cordon: str, actor: str, out: Outbox, now_ms: int) -> None:
        """Take the node out of use, or back. The same word again changes nothing."""
        before = self.cordons.get(node, "")
        if cordon == before:
            return
        out.step(node, lambda s: _cordoned(s, node, cordon, actor, now_ms))
        if cordon:
            self.cordons[node] = cordon
            self.told.add(node)
            out.event(NodeCordoned(node, drain=cordon in EMPTIED))
        else:
            del self.cordons[node]
            self.told.discard(node)
            out.event(NodeUncordoned(node))
        if before in EMPTIED and cordon not in EMPTIED:  # an order to drop its slots may be on its way
            term = self.executor.term
            out.step(node, None, self.executor.send(lambda i: RestoreNode(i, term, node)))

    def tick(self, out: Outbox, now_ms: int) -> None:
        """A draining node that nothing holds any more gives its slots back."""
        term = self.executor.term
        for node in self._to_drop():
            if self.drop_at_ms.get(node, 0) <= now_ms:
                self.drop_at_ms[node] = now_ms + DROP_AGAIN_MS
                out.step(node, None, self.executor.send(lambda i, n=node: DropNode(i, term, n)))  # type: ignore[misc]  # bound now

    def next_ms(self) -> int | None:
        return min((self.drop_at_ms.get(node, 0) for node in self._to_drop()), default=None)

    def state(self, node: NodeJoined) -> str:
        """up, cordoned, draining or leaving; drained or let_go: nothing of ours is left there."""
        cordon = self.cordons.get(node.node, "")
        if cordon in EMPTIED and not node.slots and not self.held(node.node):
            return "let_go" if cordon == LEAVING else "drained"
        return cordon or "up"

    def _to_drop(self) -> list[str]:
        nodes = self.executor.nodes
        draining = [node for node, cordon in self.cordons.items() if cordon in EMPTIED and node in nodes]
        return [node for node in sorted(draining) if nodes[node].slots and not self.held(node)]

    def held(self, node: str) -> bool:
        """Whether an attempt holds something there."""
        return any(node in attempt.nodes() and not attempt.freed for attempt in self.executor.attempts.values())


def _cordoned(session: Session, node: str, cordon: str, actor: str, now_ms: int) -> None:
    row = session.get(Node, node)
    if row is not None:
        row.cordon = cordon
    kind = {CORDONED: "node_cordoned", DRAINING: "node_draining", LEAVING: "node_let_go"}.get(cordon, "node_uncordoned")
    rows.noted(session, kind, now_ms, {"node": node, "by": actor})
