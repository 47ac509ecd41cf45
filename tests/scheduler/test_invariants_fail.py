"""A checker that cannot fail proves nothing: for each invariant a deliberate fault in the engine, and its checker finds it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from heliostat_scheduler.core import (
    admission,
    cycle,
    engine,
    growth,
    idle,
    judge,
    offers,
    pools,
    protection,
    recovery,
    state,
    tree,
    victims,
)
from heliostat_scheduler.core.admission import Admission
from heliostat_scheduler.core.book import ACTIVE, HOLDING, Book, JobRec
from heliostat_scheduler.core.bounds import Bounds
from heliostat_scheduler.core.decisions import Plan
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.harm import Harm
from heliostat_scheduler.core.model import Amounts
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.recovery import Search
from heliostat_scheduler.core.settling import Settling
from heliostat_scheduler.core.snapshot import restore_state
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.tree import QueueTree
from heliostat_scheduler.core.victims import LeafVictims

from tests.scheduler.storm import ACTIONS, Storm
from tests.scheduler.wide_storm import WIDE_ACTIONS, WideStorm

SEEDS = 400
STEPS = 60
Patch = pytest.MonkeyPatch


def free_too_early(patch: Patch) -> None:
    """What was told to leave counts as free at once."""
    leave = Book.leave

    def fault(self: Book, rec: JobRec, places: tuple[Any, ...]) -> None:
        leave(self, rec, places)
        self.now.give(places, rec.spec.shape)

    patch.setattr(Book, "leave", fault)


def one_task_short(patch: Patch) -> None:
    patch.setattr(admission, "find", lambda space, shape, count, *more: find(space, shape, max(1, count - 1), *more))


def no_limits(patch: Patch) -> None:
    patch.setattr(QueueTree, "limit_gap", lambda *_: None)


def no_lending_limits(patch: Patch) -> None:
    patch.setattr(QueueTree, "lending_gap", lambda *_, **__: None)


def nothing_is_reclaimed(patch: Patch) -> None:
    patch.setattr(recovery, "reclaim_harm", lambda *_: None)


def nothing_is_hopeless(patch: Patch) -> None:
    """No fault by itself: every search is made, so that a fault inside it shows."""
    patch.setattr(Settling, "_settled", lambda *_: False)
    patch.setattr(Bounds, "refusal", lambda *_: None)
    patch.setattr(Admission, "_hopeless", lambda *_: False)


def everything_is_reclaimed(patch: Patch) -> None:
    patch.setattr(recovery, "reclaim_harm", lambda *_: (Harm.RECLAIM_OVER_SHARE, 0))
    patch.setattr(victims, "victim_side_over", lambda *_: True)
    patch.setattr(victims, "_above", lambda *_: True)
    patch.setattr(Search, "_may_reclaim", lambda *_: True)
    nothing_is_hopeless(patch)


def nothing_is_sacred(patch: Patch) -> None:
    for module in (victims, pools):
        patch.setattr(module, "evictable", lambda rec: rec.phase in ACTIVE and bool(rec.places))


def equals_are_evicted(patch: Patch) -> None:
    def fault(
        policy: object, wish: Any, rec: JobRec, evict: bool, now_ms: int, equals: bool = True
    ) -> tuple[Harm, int] | None:
        return (Harm.PREEMPT, 0) if rec.spec.priority <= wish.spec.priority else None

    for module in (recovery, offers):
        patch.setattr(module, "own_harm", fault)
    patch.setattr(LeafVictims, "in_question", lambda self, *_: self.jobs)
    nothing_is_hopeless(patch)


def nobody_gets_what_was_taken(patch: Patch) -> None:
    decide = Engine.decide

    def fault(self: Engine, now_ms: int) -> Plan:
        plan = decide(self, now_ms)
        for rec in self.state.book.jobs.values():
            if rec.claim:
                self.state.book.withdraw(rec)
        return plan

    patch.setattr(Engine, "decide", fault)


def surplus_is_not_asked(patch: Patch) -> None:
    candidates = Search.candidates
    patch.setattr(Search, "candidates", lambda self: [replace(offers, shrinks=[]) for offers in candidates(self)])


def free_places_are_overlooked(patch: Patch) -> None:
    patch.setattr(Admission, "_free_places", lambda *_: None)


def promises_are_never_withdrawn(patch: Patch) -> None:
    def fault(self: Book, rec: JobRec) -> None:
        rec.claim, rec.claim_flavor, rec.claim_on = (), "", ()
        self.account(rec)

    patch.setattr(Book, "withdraw", fault)


def equals_take_turns_for_ever(patch: Patch) -> None:
    equals_are_evicted(patch)
    for module in (victims, cycle, protection):
        patch.setattr(module, "safe_until", lambda *_: 0)


def whoever_never_ran_is_starved(patch: Patch) -> None:
    for module in (state, cycle):
        patch.setattr(module, "is_starved", lambda rec, *_: rec.attempt == 0 and rec.phase not in HOLDING)


def a_snapshot_forgets(patch: Patch) -> None:

    def fault(data: Any) -> State:
        found = restore_state(data)
        for rec in found.book.jobs.values():
            rec.running_at = 0
        return found

    patch.setattr(engine, "restore_state", fault)


def parents_are_not_charged(patch: Patch) -> None:
    def fault(_: QueueTree, leaf: tree.QueueNode, account: str, amounts: Amounts, sign: int) -> None:
        for key, amount in amounts:
            sums = getattr(leaf, account)
            sums[key] = sums.get(key, 0) + sign * amount

    patch.setattr(QueueTree, "add", fault)


def one_low_reading_is_enough(patch: Patch) -> None:
    def fault(policy: object, rec: JobRec, window_ms: int, now_ms: int) -> None:
        rec.low_since, rec.idle_state = now_ms - window_ms, idle.IDLE

    patch.setattr(idle, "_low", fault)


def nobody_is_told_why(patch: Patch) -> None:
    patch.setattr(State, "waiting_reason", lambda *_: None)


def no_limits_of_users(patch: Patch) -> None:
    patch.setattr(judge, "user_reason", lambda *_: None)


def what_grows_at_the_cost_of_others_forgets_its_user(patch: Patch) -> None:
    patch.setattr(growth, "user_reason", lambda *_: None)


FAULTS: list[tuple[str, Callable[[Patch], None]]] = [
    ("S1", free_too_early),
    ("S2", one_task_short),
    ("S3", no_limits),
    ("S4", no_lending_limits),
    ("S5", nothing_is_reclaimed),
    ("S6", everything_is_reclaimed),
    ("S7", nothing_is_sacred),
    ("S8", equals_are_evicted),
    ("S9", nobody_gets_what_was_taken),
    ("S10", surplus_is_not_asked),
    ("S11", free_places_are_overlooked),
    ("S12", promises_are_never_withdrawn),
    ("S15", equals_take_turns_for_ever),
    ("S16", whoever_never_ran_is_starved),
    ("S18", a_snapshot_forgets),
    ("S20", parents_are_not_charged),
    ("S22", one_low_reading_is_enough),
    ("S23", nobody_is_told_why),
]
WIDE_FAULTS: list[tuple[str, Callable[[Patch], None]]] = [
    ("S3", no_limits_of_users),
    ("S3", what_grows_at_the_cost_of_others_forgets_its_user),
    ("S5", nothing_is_reclaimed),
    ("S6", everything_is_reclaimed),
    ("S11", free_places_are_overlooked),
]
CASES = [(*row, Storm, ACTIONS) for row in FAULTS] + [(*row, WideStorm, WIDE_ACTIONS) for row in WIDE_FAULTS]


@pytest.mark.parametrize(
    ("number", "fault", "kind", "actions"),
    CASES,
    ids=[f"{number} {fault.__name__} {kind.__name__}" for number, fault, kind, _ in CASES],
)
def test_the_fault_is_found(
    number: str, fault: Callable[[Patch], None], kind: type[Storm], actions: tuple[str, ...], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError, match=f"^{number}: "):
        for seed in range(SEEDS):
            rng = random.Random(seed)
            storm = kind(rng.choice, frozenset({number}))
            for _ in range(STEPS):
                storm.act(rng.choice(actions))
            storm.end()
