"""The book of one attempt's slots: who uses which, and who should after a change. Pure: no Ray, no clock.

Two kinds of use. A *load* is a plain task or actor: it goes to the slot with the fewest pending requests and queues there as it
would queue on any busy GPU. A *claim* is exclusive: a Tune trial's slot (or a share of one), or all workers of a trainer that a
trial built. Claims are planned by `allocate`; one that no longer gets what it holds is told so by a raised epoch, exactly as the
whole job is told by the scheduler.

Always true: the wanted slots of claims never overlap beyond a whole GPU; a claim's `occupied` contains every slot that may still
hold one of its processes; nobody is given a slot that the lease does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from heliostat_scheduler.live.protocol import PREEMPT, RUN, Lease

WHOLE = 1000
"""Milli-GPU of one slot."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a claim may get: `fewest` to `most` slots, or (with share below WHOLE) that part of one slot."""

    fewest: int
    most: int
    share: int = WHOLE


@dataclass(slots=True)
class Claim:
    """owner: the trial's id. holder: the process (Ray's worker id) whose death ends the claim; since_s: when it was made.

    wanted: its slots by the newest plan; epoch rises whenever they change. occupied: slots that may still hold its processes.
    deadline_ms: when it must have followed the last change (0: nobody outside of the job waits for it).
    """

    id: str
    owner: str
    holder: str
    wish: Wish
    since_s: float = 0.0
    wanted: tuple[str, ...] = ()
    occupied: set[str] = field(default_factory=set)
    epoch: int = 0
    deadline_ms: int = 0


@dataclass(slots=True)
class Load:
    """One plain task or actor: amount in milli-GPU. since_s: when it was placed. stays: an actor; actor: its id once known."""

    slot: str
    amount: int
    since_s: float
    stays: bool
    actor: str = ""


class SlotLedger:
    """Loads and claims over the slots of one lease."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.claims: dict[str, Claim] = {}
        self.loads: dict[int, Load] = {}
        self.ranking: tuple[str, ...] = ()
        self.over = 0
        self._tokens = 0
        self._queued: Counter[str] = Counter()  # milli-GPU of all loads, by slot
        self._staying: Counter[str] = Counter()  # the part of it that is actors

    # ---- plain tasks and actors --------------------------------------------------------------------------------------

    def pick(self, amount: int, node: str, stays: bool, now_s: float) -> tuple[int, str] | None:
        """(token, slot) for a task or (`stays`) an actor; None when the lease has no slot (on that node).

        First slots that actors and claims leave room in: behind one of those it might wait for ever.
        """
        candidates = [ref.slot for ref in self.lease.slots if not node or ref.node == node]
        if not candidates:
            return None
        pending, staying = self.pending(), self.pending(only_staying=True)
        slot = min(candidates, key=lambda name: (staying[name] + amount > WHOLE, pending[name]))
        self._tokens += 1
        self.loads[self._tokens] = load = Load(slot, amount, now_s, stays)
        self._count(load, load.amount)
        return self._tokens, slot

    def pending(self, only_staying: bool = False) -> dict[str, int]:
        """Milli-GPU asked for in each slot, running or queued; without plain tasks, if so asked."""
        sums = self._staying if only_staying else self._queued
        pending = {ref.slot: 0 for ref in self.lease.slots} | {slot: amount for slot, amount in sums.items() if amount}
        for claim in self.claims.values():
            for slot in {*claim.occupied, *claim.wanted}:
                pending[slot] = pending.get(slot, 0) + claim.wish.share
        return pending

    def bind(self, token: int, actor: str) -> None:
        """The load is this actor: it lasts until the actor is dead."""
        if token in self.loads:
            self.loads[token].actor = actor

    def done(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            load = self.loads.pop(token, None)
            if load is not None:
                self.over += 1
                self._count(load, -load.amount)

    def _count(self, load: Load, amount: int) -> None:
        self._queued[load.slot] += amount
        if load.stays:
            self._staying[load.slot] += amount

    def are_free(self, slots: Iterable[str], before_s: float) -> None:
        """Ray shows these slots unused: tasks placed there before that moment are over, whoever made them."""
        free = set(slots)
        over = [t for t, load in self.loads.items() if load.slot in free and not load.stays and load.since_s < before_s]
        self.done(over)

    def told(self) -> dict[str, int]:
        """What the scheduler is told about plain work: requests that are over, open, and how many slots they are in."""
        open_in = {load.slot for load in self.loads.values()}
        return {"step": self.over, "gpu_requests_open": len(self.loads), "slots_in_use": len(open_in)}

    # ---- claims ------------------------------------------------------------------------------------------------------

    def claim(self, claim_id: str, owner: str, holder: str, wish: Wish, now_s: float = 0.0) -> Claim:
        """A new claim; `wanted` is empty while nothing is free for it."""
        if claim_id not in self.claims:
            self.claims[claim_id] = Claim(claim_id, owner, holder, wish, now_s)
            self.plan()
        return self.claims[claim_id]

    def release(self, claim_id: str) -> None:
        """The claim is over: its slots go to whoever waits."""
        if self.claims.pop(claim_id, None) is not None:
            self.plan()

    def released(self, claim_id: str, epoch: int) -> None:
        """Its processes left the slots that the order of this epoch took away."""
        claim = self.claims.get(claim_id)
        if claim is not None and epoch >= claim.epoch:
            claim.occupied = set(claim.wanted)

    def move(self, claim_id: str) -> tuple[str, ...]:
        """Its one process has ended: the slots where the claim goes on; () when it has none any more, and then it is over."""
        claim = self.claims.get(claim_id)
        if claim is None or not claim.wanted or set(claim.wanted) == claim.occupied:
            self.release(claim_id)
            return ()
        claim.occupied = set(claim.wanted)
        return claim.wanted

    def resize(self, lease: Lease) -> None:
        """The scheduler's newest word. Loads keep their slots: plain tasks are rigid."""
        if lease.epoch <= self.lease.epoch:
            return
        self.lease = lease
        self.plan(grow=True)

    def plan(self, grow: bool = False) -> None:
        """Give every claim its slots anew; those whose slots change get a higher epoch.

        grow: the lease has changed. Only then does its deadline count, and for those who are still in a slot that it took away: for a
        change between claims that of some earlier order would be over already.
        """
        slots = [ref.slot for ref in self.lease.slots] if self.lease.order == RUN else []
        ranked = self._ranked()
        wanted = allocate(slots, [(claim.id, claim.wish, claim.wanted) for claim in ranked], grow)
        for claim in ranked:
            if wanted[claim.id] == claim.wanted:
                continue
            claim.wanted = wanted[claim.id]
            claim.occupied |= set(claim.wanted)
            claim.epoch += 1
            claim.deadline_ms = self.lease.deadline_ms if grow or not claim.occupied <= set(slots) else 0

    def _ranked(self) -> list[Claim]:
        """Holders first, best trial first; then those who wait, in the order they came."""
        place = {owner: n for n, owner in enumerate(self.ranking)}
        claims = list(self.claims.values())
        order = {claim.id: n for n, claim in enumerate(claims)}
        holders = [claim for claim in claims if claim.wanted]
        holders.sort(key=lambda claim: (place.get(claim.owner, len(place)), order[claim.id]))
        return holders + [claim for claim in claims if not claim.wanted]

    def rank(self, owners: Sequence[str]) -> None:
        """Trials, best first. Used at the next plan."""
        self.ranking = tuple(owners)

    def holders(self) -> dict[str, list[str]]:
        """Whose claims are in which slots."""
        found: dict[str, list[str]] = {}
        for claim in self.claims.values():
            for slot in claim.wanted:
                found.setdefault(slot, []).append(claim.owner)
        return found

    def is_stuck(self, claim_id: str) -> bool:
        """Whether it waits for ever: the lease is large enough, but all who hold something wait for a further claim themselves."""
        claim = self.claims.get(claim_id)
        if claim is None or claim.wanted or claim.wish.fewest > len(self.lease.slots):
            return False
        waiting = {other.owner for other in self.claims.values() if not other.wanted and other.owner}
        holding = {owner for owners in self.holders().values() for owner in owners}
        return bool(holding) and holding <= waiting

    def lease_of(self, claim_id: str) -> Lease | None:
        """The claim in the shape of a lease, for the trainer inside; None when there is no such claim."""
        claim = self.claims.get(claim_id)
        if claim is None:
            return None
        refs = {ref.slot: ref for ref in self.lease.slots}
        order = RUN if claim.wanted else PREEMPT
        held = tuple(refs[slot] for slot in refs if slot in claim.wanted)
        deadline_ms = 0 if claim.wanted and claim.occupied == set(claim.wanted) else claim.deadline_ms
        return replace(self.lease, epoch=claim.epoch, order=order, tasks=len(held), slots=held, deadline_ms=deadline_ms)

    # ---- the whole ---------------------------------------------------------------------------------------------------

    def outside(self) -> dict[str, list[str]]:
        """Owners of claims (and `task` for loads) in slots that the lease does not have any more, or may not use now."""
        allowed = {ref.slot for ref in self.lease.slots} if self.lease.order == RUN else set()
        found: dict[str, list[str]] = {}
        for claim in self.claims.values():
            for slot in sorted(claim.occupied - allowed):
                found.setdefault(slot, []).append(claim.owner)
        for load in self.loads.values():
            if load.slot not in allowed:
                found.setdefault(load.slot, []).append("task")
        return found

    def bury(self, alive: set[str], before_s: float) -> None:
        """Drop what belonged to actors and processes that are dead. One made after that moment may not be in Ray's tables yet."""
        loads = self.loads.items()
        self.done([t for t, load in loads if load.actor and load.actor not in alive and load.since_s < before_s])
        for claim in list(self.claims.values()):
            if claim.holder and claim.holder not in alive and claim.since_s < before_s:
                self.release(claim.id)


def allocate(
    slots: Sequence[str], claims: Sequence[tuple[str, Wish, tuple[str, ...]]], grow: bool
) -> Mapping[str, tuple[str, ...]]:
    """Slots for each claim (id, wish, what it holds), in the order given; () for those that get nothing.

    First everybody's minimum, so that a newcomer shrinks who has more than that; then holders get back what they had (with `grow` up to
    their maximum); then newcomers up to an even share. Slots that a claim already has are preferred.
    """
    free = dict.fromkeys(slots, WHOLE)
    given: dict[str, list[str]] = {claim: [] for claim, _, _ in claims}

    def extend(claim: str, wish: Wish, held: tuple[str, ...], limit: int) -> None:
        mine = given[claim]
        fitting = [slot for slot in free if free[slot] >= wish.share and slot not in mine]
        fitting.sort(key=lambda slot: (slot not in held, free[slot]))
        for slot in fitting[: max(0, limit - len(mine))]:
            free[slot] -= wish.share
            mine.append(slot)

    for claim, wish, held in claims:
        if sum(room >= wish.share for room in free.values()) >= wish.fewest:
            extend(claim, wish, held, wish.fewest)
    even = len(slots) // max(1, len(claims))
    for claim, wish, held in claims:
        if held and given[claim]:
            extend(claim, wish, held, wish.most if grow else min(len(held), wish.most))
    for claim, wish, held in claims:
        if not held and given[claim]:
            extend(claim, wish, held, min(wish.most, max(wish.fewest, even)))
    position = {slot: n for n, slot in enumerate(slots)}
    return {claim: tuple(sorted(mine, key=position.__getitem__)) for claim, mine in given.items()}
