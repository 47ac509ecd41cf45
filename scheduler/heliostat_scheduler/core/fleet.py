"""Which nodes to ask for, which to let go, and what to do about those that do not come. Pure: time and facts are arguments.

Asking is a number per flavor, never a list of nodes: what is wanted is computed anew from those who wait, so a node that dies on its
way leaves nothing behind. Always true: nodes that are there and nodes that are asked for are together at most `max_nodes`.
A node that was let go and is still there is taken back before another is asked for. Nodes that do not come within
`join_ms`, or die as soon as they came, are asked for again after a pause that doubles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliostat_scheduler.core.model import NodeComing, NodePool
from heliostat_scheduler.core.node_demand import NodeDemand

FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 1_800_000
SOON_MS = 60_000
"""A node that dies within this time after it joined counts as one that did not come."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A node that is there. held: something of ours is on it, or promised. closed: somebody took it out of use. let_go: we did."""

    node: str
    flavor: str
    held: bool = False
    closed: bool = False
    let_go: bool = False


@dataclass(slots=True)
class Ask:
    """since_ms: of this try. retry_ms: when to try again (0: it is being asked for)."""

    since_ms: int
    tries: int = 1
    retry_ms: int = 0


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """want: flavor -> how many nodes to ask for now, all pools. coming: what to tell those who wait. next_ms: when to look again."""

    want: dict[str, int]
    let_go: tuple[str, ...]
    take_back: tuple[str, ...]
    coming: tuple[NodeComing, ...]
    next_ms: int | None


@dataclass(slots=True)
class Fleet:
    """asks: flavor -> what was asked for. idle_since: node -> since when. took_ms: flavor -> how long the last one took to join."""

    asks: dict[str, Ask] = field(default_factory=dict)
    idle_since: dict[str, int] = field(default_factory=dict)
    took_ms: dict[str, int] = field(default_factory=dict)
    _there: dict[str, dict[str, bool]] = field(default_factory=dict)  # flavor -> node -> whether we let it go
    _joined: dict[str, int] = field(default_factory=dict)
    _deaths: dict[str, int] = field(default_factory=dict)

    def plan(
        self, pools: Mapping[str, NodePool], demand: NodeDemand, machines: Iterable[Machine], now_ms: int
    ) -> FleetPlan:
        here = sorted(machines, key=lambda machine: machine.node)
        times: list[int] = []
        want: dict[str, int] = {}
        gone: list[str] = []
        back: list[str] = []
        coming: list[NodeComing] = []
        self._forget(pools, {machine.node for machine in here})
        for flavor, pool in sorted(pools.items()):
            mine = [machine for machine in here if machine.flavor == flavor]
            need = demand.nodes.get(flavor, 0)
            returned = [machine.node for machine in mine if machine.let_go][: self._short(pool, mine, need)]
            back += returned
            short = min(self._short(pool, mine, need) - len(returned), room(pool, mine))
            self._notice(flavor, mine, now_ms)
            want[flavor] = self._ask(pool, short, now_ms)
            if flavor in self.asks:
                coming.append(self._coming(pool, short, demand.jobs.get(flavor, ())))
                times.append(self._next(pool))
            self._count_idle(mine, now_ms)
            if not need and flavor not in demand.waited:
                gone += self._idle_long(pool, mine, now_ms, times)
        return FleetPlan(want, tuple(gone), tuple(back), tuple(coming), min(times, default=None))

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _short(self, pool: NodePool, mine: list[Machine], need: int) -> int:
        """How many are missing: for those who wait, or up to the fewest that are kept."""
        kept = sum(1 for machine in mine if not machine.let_go)
        return max(need, pool.min_nodes - kept, 0)

    def _notice(self, flavor: str, mine: list[Machine], now_ms: int) -> None:
        """Who joined and who died since the last look. Who was let go has not died."""
        here, before = {machine.node: machine.let_go for machine in mine}, self._there.get(flavor)
        self._there[flavor] = here
        if before is None:
            return
        ask = self.asks.get(flavor)
        if here.keys() - before:
            if ask is not None:
                self.took_ms[flavor] = now_ms - ask.since_ms
                ask.since_ms, ask.retry_ms = now_ms, 0
            self._joined[flavor] = now_ms
        elif any(node not in here for node, let_go in before.items() if not let_go):
            young = now_ms - self._joined.get(flavor, -SOON_MS) < SOON_MS
            self._deaths[flavor] = self._deaths.get(flavor, 0) + 1 if young else 0

    def _ask(self, pool: NodePool, short: int, now_ms: int) -> int:
        """How many to ask for now; 0 while it pauses."""
        flavor = pool.flavor
        if short <= 0:
            self.asks.pop(flavor, None)
            return 0
        ask = self.asks.get(flavor)
        if ask is None:
            deaths = self._deaths.get(flavor, 0)
            pause = _pause(deaths - 1) if deaths > 1 else 0
            ask = self.asks[flavor] = Ask(now_ms, 1 + deaths, now_ms + pause if pause else 0)
        if not ask.retry_ms and now_ms - ask.since_ms >= pool.join_ms:
            ask.retry_ms = now_ms + _pause(ask.tries)
        elif ask.retry_ms and now_ms >= ask.retry_ms:
            ask.since_ms, ask.tries, ask.retry_ms = now_ms, ask.tries + 1, 0
        return 0 if ask.retry_ms else short

    def _coming(self, pool: NodePool, short: int, jobs: tuple[str, ...]) -> NodeComing:
        ask = self.asks[pool.flavor]
        if ask.retry_ms:
            return NodeComing(pool.flavor, short, ask.retry_ms, jobs, ask.tries, late=True)
        took = self.took_ms.get(pool.flavor, pool.join_ms)
        return NodeComing(pool.flavor, short, ask.since_ms + took, jobs, ask.tries)

    def _next(self, pool: NodePool) -> int:
        ask = self.asks[pool.flavor]
        return ask.retry_ms or ask.since_ms + pool.join_ms

    # ---- letting go --------------------------------------------------------------------------------------------------

    def _count_idle(self, mine: list[Machine], now_ms: int) -> None:
        for machine in mine:
            if machine.held or machine.closed or machine.let_go:
                self.idle_since.pop(machine.node, None)
            else:
                self.idle_since.setdefault(machine.node, now_ms)

    def _idle_long(self, pool: NodePool, mine: list[Machine], now_ms: int, times: list[int]) -> list[str]:
        """The longest idle first, down to the fewest that are kept."""
        spare = sum(1 for machine in mine if not machine.let_go) - pool.min_nodes
        idle = sorted((self.idle_since[m.node], m.node) for m in mine if m.node in self.idle_since)
        due = [node for since, node in idle if now_ms - since >= pool.idle_ms][: max(0, spare)]
        times += [since + pool.idle_ms for since, node in idle if node not in due][: max(0, spare - len(due))]
        return due

    def _forget(self, pools: Mapping[str, NodePool], here: set[str]) -> None:
        self.asks = {flavor: ask for flavor, ask in self.asks.items() if flavor in pools}
        self.idle_since = {node: since for node, since in self.idle_since.items() if node in here}


def room(pool: NodePool, mine: Iterable[Machine]) -> int:
    """How many more nodes the pool allows."""
    return max(0, pool.max_nodes - sum(1 for _ in mine))


def offered(pools: Mapping[str, NodePool], machines: Iterable[Machine]) -> dict[str, int]:
    """How many nodes those who wait could get: what the pools still allow, and what was let go and is still there."""
    here = list(machines)
    found: dict[str, int] = {}
    for flavor, pool in pools.items():
        mine = [machine for machine in here if machine.flavor == flavor]
        found[flavor] = room(pool, mine) + sum(machine.let_go for machine in mine)
    return found


def _pause(times: int) -> int:
    return int(min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(times - 1, 10)))
