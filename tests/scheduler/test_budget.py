"""A queue's preemption budget: how much of its work turns, moves and shares may throw away a day."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from heliostat_scheduler.core import JobSpec, Policy
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.budget import DAY_MS, HOUR

from tests.scheduler.world import World, job, node, queue

HOUR_MS = 3_600_000
POLICY = Policy(cooldown_ms=0, aging_step_ms=0, starvation_ms=0, rotate_hysteresis_milli=2000)


def _long(made: World, hours: int) -> World:
    """Four GPUs for so many hours, without a checkpoint."""
    made.submit(job("long", 4, "a", restart_cost_ms=0))
    made.settle()
    made.now += hours * HOUR_MS
    return made


def _turn(made: World) -> bool:
    """Whether a job of which much less is expected gets the GPUs of `long` now."""
    made.apply(ev.Estimated("long", rank_ms=1_000 * HOUR_MS))
    made.submit(job("short", 4, "a", at=made.now))
    made.apply(ev.Estimated("short", rank_ms=HOUR_MS))
    made.settle()
    return made.runs("short")


@pytest.mark.parametrize("hours, budget, turns", [(1, -1, True), (1, 4, True), (1, 3, False), (2, 7, False)])
def test_a_turn_that_costs_more_than_a_days_budget_is_not_taken(hours: int, budget: int, turns: bool) -> None:
    made = World([node("n0", 4)], [queue("a", -1, preemption_budget=budget)], POLICY, at=1_000)
    assert _turn(_long(made, hours)) is turns


@dataclass(frozen=True)
class Due:
    say: str
    winner: JobSpec
    quota: int = 0


GETS = [
    Due("a higher class", job("winner", 4, "a", priority=150)),
    Due("a guarantee", job("winner", 4, "b"), quota=4),
]


@pytest.mark.parametrize("due", GETS, ids=lambda due: due.say)
def test_what_is_owed_goes_before_the_budget_and_is_charged(due: Due) -> None:
    queues = [queue("a", 0, preemption_budget=1), queue("b", due.quota)]
    made = _long(World([node("n0", 4)], queues, POLICY, at=1_000), 2)
    made.submit(due.winner)
    made.settle()
    assert made.runs("winner")
    assert made.engine.state.losses["a"][0] == 8 * HOUR


def test_the_account_drains_evenly_and_the_engine_wakes_when_it_has() -> None:
    """Each turn costs a restart of 4 GPU-hours; of 6 a day a quarter comes back every hour."""
    made = World([node("n0", 4)], [queue("a", -1, preemption_budget=6)], POLICY, at=1_000)
    made.submit(job("long", 4, "a", saves_on_order=True, restart_cost_ms=HOUR_MS))
    made.settle()
    assert _turn(made)
    made.finish("short")
    made.settle()
    assert made.runs("long")
    made.now, since = made.now + 1, made.now
    made.submit(job("brief", 4, "a", at=made.now))
    made.apply(ev.Estimated("brief", rank_ms=HOUR_MS))
    made.settle()
    assert made.runs("long") and not made.runs("brief")
    wake = made.engine.next_wakeup_ms()
    assert wake is not None and wake <= since + DAY_MS * 2 // 6
    restored = made.engine.restore(made.engine.snapshot())
    assert restored.state.losses == made.engine.state.losses and restored.digest() == made.engine.digest()
    made.now = since + DAY_MS * 2 // 6 - 1
    made.settle()
    assert made.runs("long")
    made.now += 1
    made.settle()
    assert made.runs("brief")
