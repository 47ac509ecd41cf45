"""A job that has never run starts within its deadline, the longest protection and a grace period, and `explain` states that time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat_scheduler.core import Policy, Preempt, ReasonCode

from tests.scheduler.world import FIXED, World, job, node, queue

DEADLINE_MS = 600_000
POLICY = Policy(
    cooldown_ms=0, aging_step_ms=0, starvation_ms=DEADLINE_MS, starvation_turn_ms=120_000, min_runtime_ms=20_000
)
STEP_MS = 5_000


def _crowd(made: World, until: int, name: str = "default", priority: int = 150) -> int | None:
    """Endless work of a higher class; when the low job started, or None."""
    count = 0
    while made.now < until:
        while sum(spec.priority == priority for spec in made.specs.values()) < 4:
            count += 1
            made.submit(job(f"{name}-{count:04d}", 1, name, at=made.now, priority=priority))
        made.settle()
        if made.runs("low"):
            return made.now
        made.now += STEP_MS
        for job_id in made.running()[:1]:
            made.finish(job_id)
    return None


def test_a_low_job_starts_within_the_bound_that_explain_states() -> None:
    made = World([node("n0", 2)], policy=POLICY, at=1_000)
    made.submit(*(job(f"first-{i}", 1, priority=150) for i in range(2)))
    made.settle()
    low = job("low", 2, at=made.now, priority=50)
    made.submit(low)
    made.decide()
    facts = next(check.facts for check in made.engine.explain("low", made.now).checks if check.name == "starts in time")
    bound = int(dict(facts)["starts_by_ms"])
    started = _crowd(made, bound + 60_000)
    assert started is not None and low.submitted_at_ms + DEADLINE_MS <= started <= bound


def test_without_a_deadline_it_waits_for_ever() -> None:
    made = World([node("n0", 2)], policy=replace(POLICY, starvation_ms=0), at=1_000)
    made.submit(*(job(f"first-{i}", 1, priority=150) for i in range(2)))
    made.settle()
    made.submit(job("low", 2, at=made.now, priority=50))
    assert _crowd(made, 3 * DEADLINE_MS) is None
    assert not [check for check in made.engine.explain("low", made.now).checks if check.name == "starts in time"]


def test_each_class_has_its_own_deadline() -> None:
    policy = replace(POLICY, starvation_by_class=((50, 2 * DEADLINE_MS),))
    made = World([node("n0", 1)], policy=policy, at=1_000)
    made.submit(job("first", 1, priority=150))
    made.settle()
    made.submit(job("low", 1, at=1, priority=50), job("normal", 1, at=2))
    made.now += DEADLINE_MS + 1_000
    made.settle()
    assert made.running() == ["normal"]


def test_whom_it_displaced_may_not_take_its_turn_away_at_once() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("high", 1, priority=150))
    made.settle()
    made.submit(job("low", 1, at=1, priority=50))
    made.now += DEADLINE_MS
    made.settle()
    assert made.running() == ["low"]
    assert [d.reason.code for p in made.plans for d in p.decisions if isinstance(d, Preempt)] == [
        ReasonCode.STARVED_FOR
    ]
    made.now += POLICY.starvation_turn_ms
    made.settle()
    assert made.running() == ["high"]


@pytest.mark.parametrize(
    ("quota", "starts"), [(2, False), (1, True)], ids=["within the other's quota: waits", "above it: starts"]
)
def test_another_queue_gives_only_what_it_borrows(quota: int, starts: bool) -> None:
    made = World([node("n0", 2)], [queue("a", weight=0), queue("b", quota)], POLICY, at=1_000)
    made.submit(job("x", 1, "b"), job("y", 1, "b", at=1))
    made.settle()
    made.submit(job("low", 1, "a", at=2))
    made.now += DEADLINE_MS + 1
    made.settle()
    assert made.runs("low") is starts


def test_work_that_may_not_stop_stays() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("fixed", 1, preemptibility=FIXED))
    made.settle()
    made.submit(job("low", 1, at=1, priority=50))
    made.now += 2 * DEADLINE_MS
    made.settle()
    assert made.running() == ["fixed"]
