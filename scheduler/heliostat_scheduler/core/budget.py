"""How much work of a queue may be thrown away a day: the preemption budget.

What evictions and shrinks cost (work since the last checkpoint and the restart, in GPU-milliseconds) is charged to the queue that loses,
and to its parents. The account drains evenly, one day's budget a day. While it is full, nobody takes turns with that queue's jobs, moves
them, or asks them for a share of the surplus; guarantees, higher classes and starved jobs still get their due, and are charged too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.model import UNLIMITED

if TYPE_CHECKING:
    from heliostat_scheduler.core.harm import Unit
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.tree import QueueNode

DAY_MS = 24 * 3_600_000
HOUR = 1000 * 3_600_000
"""One GPU-hour in milli-GPU x ms."""


def charge(state: State, leaf: QueueNode, lost: int) -> None:
    """Work of this queue is thrown away (milli-GPU x ms)."""
    for node in leaf.chain:
        if node.spec.preemption_budget != UNLIMITED:
            state.losses[node.name] = (level(state, node) + lost, state.clock)


def level(state: State, node: QueueNode) -> int:
    """What still counts of what was lost."""
    lost, at_ms = state.losses.get(node.name, (0, 0))
    return max(0, lost - node.spec.preemption_budget * HOUR * max(0, state.clock - at_ms) // DAY_MS)


def gpu_loss(unit: Unit) -> int:
    return unit.lost if unit.rec.spec.shape.gpu_milli else 0


def affordable_at(state: State, unit: Unit, taken: list[Unit]) -> int | None:
    """From when on the unit may be taken as far as budgets go, beside what is taken already; None: its cost is above a whole budget."""
    latest = state.clock
    for node in unit.leaf.chain:
        budget = node.spec.preemption_budget * HOUR
        if node.spec.preemption_budget == UNLIMITED:
            continue
        planned = gpu_loss(unit) + sum(gpu_loss(other) for other in taken if node in other.leaf.chain)
        if planned > budget or not budget:
            return None
        excess = level(state, node) + planned - budget
        if excess > 0:
            latest = max(latest, state.clock - (-excess * DAY_MS // budget))
    return latest
