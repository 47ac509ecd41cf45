"""Whether time alone is what a job waits for: minimum runtimes and cooldowns that protect its victims, and until when.

It is found out for the first groups of a pass only; that nobody else is told costs a precise reason, never a start: the next cycle is due as
soon as the first protection ends.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import reason
from heliostat_scheduler.core.harm import Wish, safe_until
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.recovery import Search

if TYPE_CHECKING:
    from heliostat_scheduler.core.cycle import Cycle
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.tree import QueueNode

COOLINGS = 8
"""Groups of a pass, in order, for which it is found out whether time alone is all they wait for."""

COOLING_TRIES = 4
"""Searches for the soonest time at which enough protection ends; each finds a sooner one than the last."""

COOLING_WORK = 500
"""Nodes that these searches of a pass may look at: in a large cluster the first groups use it up."""


@dataclass(slots=True)
class Protection:
    """What one pass found out. times: when the first and the last of the jobs that are protected now will be so no longer."""

    cycle: Cycle
    times: tuple[int, int] | None = None
    asked: int = 0
    work: int = 0

    def ends_for(self, wish: Wish) -> tuple[Reason | None, bool]:
        """Why the wish has to wait if protection is all that stands in its way; whether the sums left that open."""
        cycle, state = self.cycle, self.cycle.state
        policy = state.policy
        soonest, latest = self._times()
        self.asked += 1
        if self.asked > COOLINGS or self.work >= COOLING_WORK:
            cycle.recheck.append(soonest)
            return None, False
        until, reached = 0, False
        for _ in range(COOLING_TRIES):
            search = Search(state, wish, cycle.victims, at_ms=latest)
            victims = search.run()
            cycle.budget -= search.spent
            self.work += len(state.book.soon.nodes) if search.reached else 0
            reached |= search.reached
            if not victims:
                break
            until = max(safe_until(unit.rec, policy) for unit in victims)
            latest = until - 1
            if self.work >= COOLING_WORK:
                cycle.recheck.append(soonest)
                break
        if until <= cycle.now_ms:
            return None, reached
        cycle.recheck.append(until)
        return reason(ReasonCode.COOLDOWN, ("min_runtime_ms", policy.min_runtime_ms), until=until), reached

    @property
    def soonest(self) -> int:
        """When the first of those who are protected now is so no longer."""
        return self._times()[0]

    def _times(self) -> tuple[int, int]:
        if self.times is None:
            state, now_ms = self.cycle.state, self.cycle.now_ms
            lines = [times for leaf in state.book.tree.leaves if (times := safe_times(state, leaf))]
            later = [times[bisect_right(times, now_ms)] for times in lines if times[-1] > now_ms]
            self.times = (min(later, default=now_ms), max((times[-1] for times in lines), default=0))
        return self.times


def safe_times(state: State, leaf: QueueNode) -> list[int]:
    """Until when each of the queue's jobs is protected, ascending. Kept until something of its leases changes."""
    version, policy = state.book.leaf_version.get(leaf.name, 0), state.policy
    known = state.safe_times.get(leaf.name)
    if known is None or known[0] != version or known[1] is not policy:
        times = sorted(safe_until(rec, policy) for rec in state.holders(leaf.name))
        known = state.safe_times[leaf.name] = (version, policy, times)
    return known[2]
