"""Getting capacity back for a job that does not fit: the mildest sufficient set of victims, or nobody.

The search runs on the real books and undoes everything it tried, so a failed search leaves no trace. First only elastic surplus
is tried, then whole jobs. Victims are taken greedily by harm; tasks that need several devices of one node are served node by node.
A backward pass then returns every victim that turned out to be unnecessary, whole jobs before surplus tasks, so the set is minimal:
giving back any one of them would break the beneficiary.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.budget import affordable_at
from heliostat_scheduler.core.harm import (
    MINE,
    Harm,
    Unit,
    Wish,
    asked_back,
    beats,
    idle_harm,
    own_harm,
    rank_to_beat,
    reclaim_harm,
    turn_of,
    unit_amounts,
    within,
)
from heliostat_scheduler.core.minimal import give_back
from heliostat_scheduler.core.model import Amounts, TaskPlace
from heliostat_scheduler.core.offers import Offers, look
from heliostat_scheduler.core.placement import ANY, find
from heliostat_scheduler.core.resorts import one_alone, right_first
from heliostat_scheduler.core.sites import by_sites
from heliostat_scheduler.core.space import WHOLE
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.victims import VictimIndex

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

HarmKey = tuple[int, int, int, int, int, int, int, int, str]


class Search:
    """One search for one wish.

    spent: the victims that were looked at (the unit of the work budget). reached: it was not refused by the sums alone.
    """

    def __init__(self, state: State, wish: Wish, index: VictimIndex, at_ms: int | None = None) -> None:
        self.state = state
        self.index = index
        now_ms = index.now_ms
        self.book = state.book
        self.wish = wish
        self.now_ms = now_ms
        self.protected_as_of = now_ms if at_ms is None else at_ms
        self.taken: list[Unit] = []
        self.surplus_left: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        """Surplus tasks taken, by job."""
        self.own_surplus = True
        self.harms: dict[tuple[str, Amounts, Amounts, int], tuple[Harm, int] | None] = {}
        self._equals: bool | None = None
        self.protected = 0
        self.reached = False
        self.affordable_at: int | None = None
        self._found: list[Offers] | None = None
        self._own, self._others = (0, 0), (0, 0)
        self.spent = 0

    # -- trying and undoing

    def take(self, unit: Unit) -> None:
        if unit.evict:
            for other in [u for u in self.taken if u.rec is unit.rec]:
                self.put_back(other)
        else:
            self._lose(unit, 1)
        self.harms.clear()
        self.book.soon.give(unit.places, unit.rec.spec.shape)
        self.book.tree.add(unit.leaf, "plan", unit.amounts, -1)
        self.taken.append(unit)

    def put_back(self, unit: Unit) -> None:
        if not unit.evict:
            self._lose(unit, -1)
        self.harms.clear()
        self.book.soon.take(unit.places, unit.rec.spec.shape)
        self.book.tree.add(unit.leaf, "plan", unit.amounts, 1)
        self.taken.remove(unit)

    def _lose(self, unit: Unit, tasks: int) -> None:
        self.surplus_left[unit.rec.id] -= tasks
        self.lost[unit.rec.id] = self.lost.get(unit.rec.id, 0) + tasks

    def undo(self) -> None:
        self.back_to([])

    def back_to(self, before: list[Unit]) -> None:
        """Undo what was tried since these were taken. A job taken whole had replaced its surplus: that comes back."""
        kept = set(before)
        for unit in reversed(self.taken.copy()):
            if unit not in kept:
                self.put_back(unit)
        if len(self.taken) < len(before):
            left = set(self.taken)
            for unit in before:
                if unit not in left:
                    self.take(unit)

    # -- legality

    def harm(self, unit: Unit) -> tuple[Harm, int] | None:
        """How bad taking this unit now would be; None when it is not allowed."""
        if not unit.evict and (self.surplus_left[unit.rec.id] <= 0 or self._whole(unit.rec)):
            return None
        found = self._harm(unit)
        if found is None or not self.book.tree.budgeted or not self._by_grace(found[0]):
            return found
        at = affordable_at(self.state, unit, self.taken)
        if at is not None and at > self.now_ms:
            self.affordable_at = at if self.affordable_at is None else min(at, self.affordable_at)
        return found if at is not None and at <= self.now_ms else None

    def _by_grace(self, kind: Harm) -> bool:
        """Whether it is a matter of turns and shares, not of guarantees, classes or idleness."""
        if self.wish.starved or kind in (Harm.IDLE, Harm.PREEMPT, Harm.SHRINK_OWN, Harm.ASK_BACK):
            return False
        return kind is Harm.ROTATE or not within(self.wish.leaf.chain, self.wish.need, quota=True)

    def _harm(self, unit: Unit) -> tuple[Harm, int] | None:
        wish, policy, rec = self.wish, self.state.policy, unit.rec
        if unit.idle and idle_harm(wish, unit, self.book.tree):
            return Harm.IDLE, 0
        if unit.leaf is wish.leaf:
            found = own_harm(policy, wish, rec, unit.evict, self.now_ms, unit.evict or self.equals_share())
            back = found is None and unit.evict and asked_back(wish, rec, self.now_ms)
            return (Harm.ASK_BACK, 0) if back else found
        turn = turn_of(policy, wish, unit.leaf, rec.spec.priority, rank_to_beat(rec, self.now_ms)) if unit.evict else 0
        given = unit_amounts(rec, self.lost.get(rec.id, 0)) if unit.evict else ()
        at = (unit.leaf.name, unit.amounts, given, turn)
        if at in self.harms:
            found = self.harms[at]
        else:
            found = self.harms[at] = self._reclaim(unit, given, turn)
        if found is None or unit.evict:
            return found
        return Harm.SHRINK_BORROWED, found[1]

    def _reclaim(self, unit: Unit, given: Amounts, turn: int) -> tuple[Harm, int] | None:
        """given: surplus of the job that was taken already, and which its eviction takes the place of."""
        tree, rule = self.book.tree, self.state.policy.reclaim_rule
        tree.add(unit.leaf, "plan", given, 1)
        found = reclaim_harm(tree, self.wish, unit.leaf, unit.amounts, self.book.capacity, rule, turn)
        tree.add(unit.leaf, "plan", given, -1)
        return found

    def _whole(self, rec: JobRec) -> bool:
        return any(unit.evict and unit.rec is rec for unit in self.taken)

    def key(self, unit: Unit) -> HarmKey | None:
        self.spent += 1
        found = self.harm(unit)
        if found is None:
            return None
        kind, fall = found
        over = 0
        if unit.leaf is not self.wish.leaf:
            top = self.wish.below(self.book.tree, unit.leaf)[1][-1]
            over = max((top.plan.get(k, 0) - top.entitled.get(k, 0) for k, _ in unit.amounts), default=0)
        rec = unit.rec
        if kind is Harm.ROTATE:
            return (kind, -rec.rank, unit.lost_ms, 0, 0, 0, -rec.started_at, -rec.spec.submitted_at_ms, rec.id)
        return (
            kind,
            max(0, fall),
            unit.lost_ms,
            rec.spec.priority,
            -rec.rank,
            -over,
            -rec.started_at,
            -rec.spec.submitted_at_ms,
            rec.id,
        )

    def allowed(self) -> bool:
        """Whether limits and lending limits let the wish in, in the tried state."""
        wish, tree = self.wish, self.book.tree
        return (
            tree.limit_gap(wish.leaf, wish.need, "plan") is None
            and tree.lending_gap(wish.leaf, wish.need, "plan", self.book.capacity) is None
        )

    def fits(self) -> tuple[TaskPlace, ...] | None:
        """Places for the wish in the tried state, if the queues allow it too."""
        wish, soon = self.wish, self.book.soon
        if wish.flavor and soon.free_milli.get(wish.flavor, 0) < wish.spec.shape.gpu_milli * wish.count:
            return None
        if not self.allowed():
            return None
        flavors = (wish.flavor,) if wish.flavor else wish.spec.flavors
        return find(soon, wish.spec.shape, wish.count, flavors, wish.spec.spread, wish.near)

    def equals_share(self) -> bool:
        """Whether elastic surplus of the queue may go to an equal of its own: the minimum sizes, the wish included, stay within what
        the queue is guaranteed (within its share, where nothing is guaranteed)."""
        if self._equals is None:
            wish = self.wish
            floor = self.index.floor(wish.leaf, wish.flavor) if wish.flavor else 0
            key, amount = max(wish.need, key=lambda pair: pair[1], default=("", 0))
            quota = wish.leaf.quota_of(key, self.book.capacity.get(key, 0)) or wish.leaf.entitled.get(key, 0)
            self._equals = not wish.flavor or floor + amount <= quota
        return self._equals

    # -- the search

    def run_shrinks(self) -> list[Unit] | None:
        """Surplus tasks that suffice, or None. The books are as before when this returns."""
        return self._run([], 0)

    def run_evicts(self) -> list[Unit] | None:
        """Whole jobs (and surplus tasks) that suffice, or None."""
        evicts = [unit for offers in self.candidates() for unit in offers.evicts] if self.wish.evict else []
        return self._run(evicts, 1) if evicts else None

    def run(self) -> list[Unit] | None:
        """The victims, surplus tasks alone if these suffice, or None."""
        return self.run_shrinks() or self.run_evicts()

    def _run(self, evicts: list[Unit], whole: int) -> list[Unit] | None:
        candidates = self.candidates()
        if not self._could_suffice(whole):
            return None
        self.reached = True
        units = [unit for offers in candidates for unit in offers.shrinks] + evicts
        found = None
        if units and (self._gather(units) or one_alone(self, units)) and self.fits() is not None:
            give_back(self)
            found = self.taken.copy()
        self.undo()
        return found

    def candidates(self) -> list[Offers]:
        """Everything that may legally be asked, queue by queue, the own one first (looked up once)."""
        if self._found is not None:
            return self._found
        self._found = []
        wish = self.wish
        own = self.own_surplus and self._of_own()
        if self.state.policy.reclaim and self._may_reclaim(own):
            leaves, most = self.index.asked_by(wish)
            if not wish.flavor or self._free() + most >= wish.spec.shape.gpu_milli * wish.count:
                may = own or self.state.policy.reclaim_rule == "share" or self.in_share()
                self._of_others(leaves, may)
        return self._found

    def _free(self) -> int:
        return self.book.soon.free_milli.get(self.wish.flavor, 0)

    def _may_reclaim(self, own_lower: bool) -> bool:
        """Cheap refusal: a queue above its own share reclaims nothing, unless its own lower work could make room first."""
        if own_lower or self.state.policy.reclaim_rule == "share":
            return True
        if self.state.idle or self.wish.starved:
            return True
        wish = self.wish
        keys = tuple(key for key, amount in wish.need if amount)
        worst = self.index.longest(wish.leaf, wish.flavor, wish.spec.priority, keys)
        return self.in_share() or beats(self.state.policy, wish.rank, worst)

    def in_share(self) -> bool:
        return any(within((self.wish.leaf,), self.wish.need, quota) for quota in (True, False))

    def my_turn(self, leaf: QueueNode, rec: JobRec) -> bool:
        return turn_of(self.state.policy, self.wish, leaf, rec.spec.priority, rank_to_beat(rec, self.now_ms)) == MINE

    def _of_own(self) -> bool:
        """Add the own queue's victims; whether some are of a lower class."""
        wish = self.wish
        named = wish.spec.id in self.book.holding.get(wish.leaf.name, ()) or wish.spec.id in self.state.revocable
        holder = wish.spec.id if named else ""
        offers = self._offers(self._known(2 + self.equals_share(), holder), wish.leaf, True, holder)
        self._own = offers.gains
        return offers.lower

    def _of_others(self, leaves: list[QueueNode], may: bool) -> None:
        """Add other queues' victims; without `may`, only those whose turn is over."""
        known, flavor = self._known(may, ""), self.wish.flavor
        shrinks = wholes = 0
        for leaf in leaves:
            offers = self._offers(known, leaf, may, "")
            if flavor and offers.biggest:
                most = self._takeable(leaf, offers)
                shrinks += min(most, offers.gains[0])
                wholes += min(most, offers.gains[1])
        self._others = (shrinks, wholes)

    def _known(self, rights: int, holder: str) -> dict[str, tuple[int, Offers]]:
        """What was found for such a wish before, by queue."""
        wish = self.wish
        rights += 4 * wish.leaf.spec.rotate
        return self.index.known(
            (
                wish.flavor,
                wish.spec.priority,
                wish.rank,
                wish.user_step,
                wish.starved,
                self.protected_as_of,
                rights,
                holder,
            )
        )

    def _offers(self, known: dict[str, tuple[int, Offers]], leaf: QueueNode, may: bool, holder: str) -> Offers:
        """Kept as long as nothing of the queue's leases has changed."""
        version, row = self.book.leaf_version.get(leaf.name, 0), known.get(leaf.name)
        if row is None or row[0] != version:
            row = known[leaf.name] = (version, look(self, leaf, may, holder))
            self.spent += row[1].looked_at
        offers = row[1]
        assert self._found is not None
        self._found.append(offers)
        self.protected += offers.protected
        if offers.surplus:
            self.surplus_left |= offers.surplus
        return offers

    def _takeable(self, leaf: QueueNode, offers: Offers) -> int:
        """An upper bound of what the queue would give: another queue gives only as long as it is above its own."""
        if self.state.policy.reclaim_rule == "share":
            return offers.gains[1]
        flavor = self.wish.flavor
        own = min(leaf.secured.get(flavor, 0), leaf.entitled.get(flavor, 0))
        return max(0, leaf.plan.get(flavor, 0) - own) + offers.biggest

    def _could_suffice(self, whole: int) -> bool:
        wish = self.wish
        if not wish.flavor:
            return True
        needed = wish.spec.shape.gpu_milli * wish.count - self._free()
        if needed <= self._own[whole]:
            return True
        return needed <= self._own[whole] + self._others[whole] and self._may_ask_others(self._own[whole])

    def _may_ask_others(self, own_gain: int) -> bool:
        """Whether the wish could come within its queue's share at all, once the own queue has given `own_gain`."""
        wish, policy = self.wish, self.state.policy
        if wish.starved or wish.rank or self.state.idle or policy.reclaim_rule == "share":
            return True
        leaf, flavor = wish.leaf, wish.flavor
        share = max(leaf.secured.get(flavor, 0), leaf.entitled.get(flavor, 0))
        return leaf.plan.get(flavor, 0) - own_gain + wish.spec.shape.gpu_milli * wish.count <= share

    def _gather(self, units: list[Unit]) -> bool:
        """Take victims until the wish fits."""
        gap = self.book.tree.limit_gap(self.wish.leaf, self.wish.need, "plan")
        while gap is not None:
            node = gap[0]
            below = partial(self._below_limit, node)
            if not self.greedy([u for u in units if node in u.leaf.chain], below):
                return False
            gap = self.book.tree.limit_gap(self.wish.leaf, self.wish.need, "plan")
        if not self.allowed() and not self.greedy([u for u in units if u.leaf is self.wish.leaf], self.allowed):
            return False
        shape = self.wish.spec.shape
        simple = shape.gpu_milli == WHOLE and self.wish.spec.spread == ANY and not self.wish.near
        if simple and not self.book.soon.partial.get(self.wish.flavor):
            return self.greedy(units, lambda: self.fits() is not None)
        return by_sites(self, units) or right_first(self, units)

    def _below_limit(self, node: QueueNode) -> bool:
        gap = self.book.tree.limit_gap(self.wish.leaf, self.wish.need, "plan")
        return gap is None or gap[0] is not node

    def greedy(self, units: list[Unit], done: Callable[[], bool]) -> bool:
        """Take the mildest unit again and again. Keys only grow as more is taken, so a stale key is renewed when it surfaces."""
        taken = set(map(id, self.taken))
        left = [unit for unit in units if id(unit) not in taken]
        while not done():
            heap = [
                (key, -int(unit.evict), index) for index, unit in enumerate(left) if (key := self.key(unit)) is not None
            ]
            heapq.heapify(heap)
            used: set[int] = set()
            while heap and not done():
                old, evict, index = heap[0]
                new = self.key(left[index])
                if new != old:
                    if new is None:
                        heapq.heappop(heap)
                    else:
                        heapq.heapreplace(heap, (new, evict, index))
                    continue
                heapq.heappop(heap)
                used.add(index)
                self.take(left[index])
            if not used:
                return done()
            left = [unit for index, unit in enumerate(left) if index not in used]
        return True
