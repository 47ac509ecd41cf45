"""A job that has never run starts within its deadline, the longest protection and a grace period, and `explain` states that time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from heliostat_scheduler.core import Policy, Preempt, ReasonCode, cycle, state

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


class Crowd:
    """One seed: endless work of higher classes on a few GPUs, who leave after their grace; one low job, that may need all of them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.grace_ms, self.turn_ms, self.min_ms = (
            rng.choice((1_000, 7_000)),
            rng.choice((0, 15_000)),
            rng.choice((0, 9_000)),
        )
        self.deadline_ms = rng.choice((30_000, 60_000))
        policy = replace(
            POLICY, starvation_ms=0, starvation_by_class=((50, self.deadline_ms),), starvation_turn_ms=self.turn_ms, min_runtime_ms=self.min_ms,
        )  # fmt: skip
        self.gpus = rng.choice((2, 3, 4))
        self.made = World([node("n0", self.gpus)], policy=policy, at=1_000)
        self.ends: dict[str, int] = {}
        self.leaves: dict[str, int] = {}
        self.count = 0

    def step(self) -> None:
        """One second: work arrives, whoever has run for long enough ends, whoever was told to leave leaves when its grace is over."""
        made, rng = self.made, self.rng
        while sum(spec.priority > 50 for spec in made.specs.values()) < 2 * self.gpus:
            self.count += 1
            tasks = rng.choice((1, 1, 2))
            spec = job(
                f"c{self.count:04d}",
                1,
                tasks=tasks,
                at=made.now,
                priority=rng.choice((100, 150)),
                grace_ms=self.grace_ms,
            )
            made.submit(spec)
        for order in made.decide().decisions:
            if isinstance(order, Preempt):
                self.leaves[order.job_id] = made.now + order.grace_ms
            else:
                made.answer(order.job_id)
                self.ends[order.job_id] = made.now + rng.choice((5_000, 40_000))
        made.now += 1_000
        for job_id in [job_id for job_id, due in self.leaves.items() if due <= made.now]:
            made.answer(job_id)
            del self.leaves[job_id]
        for job_id in made.running():
            if job_id != "low" and self.ends[job_id] <= made.now:
                made.finish(job_id)


@pytest.mark.parametrize("seed", range(24))
def test_under_any_crowd_it_starts_within_the_bound(seed: int) -> None:
    crowd = Crowd(seed)
    for _ in range(5):
        crowd.step()
    low = job("low", 1, tasks=crowd.rng.randint(1, crowd.gpus), at=crowd.made.now, priority=50, grace_ms=crowd.grace_ms)
    crowd.made.submit(low)
    crowd.step()
    bound = low.submitted_at_ms + crowd.deadline_ms + max(crowd.turn_ms, crowd.min_ms) + crowd.grace_ms
    if not crowd.made.runs("low"):
        checks = {check.name: dict(check.facts) for check in crowd.made.engine.explain("low", crowd.made.now).checks}
        assert checks["starts in time"]["starts_by_ms"] == bound, "deadline + longest protection + grace"
    while not crowd.made.runs("low") and crowd.made.now <= bound + 1_000:
        crowd.step()
    started = crowd.made.engine.state.book.jobs["low"].started_at
    assert crowd.made.runs("low") and started <= bound, f"seed {seed}: bound {bound}, now {crowd.made.now}"


def test_a_deadline_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: here nobody ever counts as starved."""
    for module in (state, cycle):
        monkeypatch.setattr(module, "is_starved", lambda *_: False)
    with pytest.raises(AssertionError, match=r"seed \d+: bound"):
        for seed in range(24):
            test_under_any_crowd_it_starts_within_the_bound(seed)


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
