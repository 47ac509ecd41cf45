"""A job that has never run starts within its deadline, the longest protection and a grace period, and `explain` states that time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from heliostat_scheduler.core import (
    JobSpec,
    Policy,
    Preempt,
    Preemptibility,
    QueueSpec,
    ReasonCode,
    Start,
    cycle,
    reservation,
    state,
)

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


KINDS = ("may be stopped", "half may not, ends declared", "half may not, no end known")
LONG_MS = 40_000


class Crowd:
    """One seed: endless work of higher classes on a few GPUs, who leave after their grace; one low job, that may need all of them."""

    def __init__(self, seed: int, kind: str = KINDS[0]) -> None:
        self.rng = rng = random.Random(seed)
        self.kind = kind
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
        self.ended: dict[str, int] = {}
        self.leaves: dict[str, int] = {}
        self.count = 0

    def _arrival(self) -> JobSpec:
        self.count += 1
        rng = self.rng
        tasks = rng.choice((1, 1, 2))
        more: dict[str, object] = {"priority": rng.choice((100, 150))}
        if self.kind != KINDS[0] and rng.random() < 0.5:
            more["preemptibility"] = FIXED
            more["max_runtime_ms"] = LONG_MS if self.kind == KINDS[1] else None
        return job(f"c{self.count:04d}", 1, "default", tasks, self.made.now, grace_ms=self.grace_ms, **more)

    def step(self) -> None:
        """One second: work arrives, whoever has run for long enough ends, whoever was told to leave leaves when its grace is over."""
        made, rng = self.made, self.rng
        while sum(spec.priority > 50 for spec in made.specs.values()) < 2 * self.gpus:
            made.submit(self._arrival())
        for order in made.decide().decisions:
            if isinstance(order, Preempt):
                self.leaves[order.job_id] = made.now + order.grace_ms
            else:
                made.answer(order.job_id)
                self.ends[order.job_id] = made.now + rng.choice((5_000, LONG_MS))
        made.now += 1_000
        for job_id in [job_id for job_id, due in self.leaves.items() if due <= made.now]:
            made.answer(job_id)
            del self.leaves[job_id]
        for job_id in made.running():
            if job_id != "low" and self.ends[job_id] <= made.now:
                made.finish(job_id)
                self.ended[job_id] = made.now

    def low(self) -> JobSpec:
        """After a few steps the low job comes."""
        for _ in range(5):
            self.step()
        tasks = self.rng.randint(1, self.gpus)
        low = job("low", 1, tasks=tasks, at=self.made.now, priority=50, grace_ms=self.grace_ms)
        self.made.submit(low)
        self.step()
        return low

    def told(self) -> dict[str, int | str]:
        """What `explain` states about its start."""
        checks = {check.name: check.facts for check in self.made.engine.explain("low", self.made.now).checks}
        return dict(checks["starts in time"])

    def start_until(self, bound: int) -> int | None:
        """When the low job starts; None when it has not by then."""
        while not self.made.runs("low") and self.made.now <= bound + 1_000:
            self.step()
        return self.made.engine.state.book.jobs["low"].started_at if self.made.runs("low") else None


@pytest.mark.parametrize("seed", range(24))
def test_under_any_crowd_it_starts_within_the_bound(seed: int) -> None:
    crowd = Crowd(seed)
    low = crowd.low()
    bound = low.submitted_at_ms + crowd.deadline_ms + max(crowd.turn_ms, crowd.min_ms) + crowd.grace_ms
    if not crowd.made.runs("low"):
        assert crowd.told()["starts_by_ms"] == bound, "deadline + longest protection + grace"
    started = crowd.start_until(bound)
    assert started is not None and started <= bound, f"seed {seed}: bound {bound}, now {crowd.made.now}"


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("seed", range(24))
def test_what_may_not_be_stopped_only_adds_its_own_end(seed: int, kind: str) -> None:
    """What `explain` says once the deadline is over comes true: a time, or a time after the last of the named jobs has ended."""
    crowd = Crowd(seed, kind)
    low = crowd.low()
    if crowd.start_until(low.submitted_at_ms + crowd.deadline_ms) is not None:
        return
    told = crowd.told()
    if "starts_by_ms" in told:
        bound = int(told["starts_by_ms"])
    else:
        assert kind == KINDS[2] and told["after_jobs"] and not told.get("declared_to_end_by_ms")
        names = str(told["after"]).split(", ")
        while not crowd.made.runs("low") and not all(name in crowd.ended for name in names):
            crowd.step()
        bound = max(crowd.ended.get(name, 0) for name in names) + int(told["starts_within_ms"])
    started = crowd.start_until(bound)
    assert started is not None and started <= bound, f"seed {seed}: bound {bound}, now {crowd.made.now}"


def test_a_deadline_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: here nobody ever counts as starved."""
    for module in (state, cycle, reservation):
        monkeypatch.setattr(module, "is_starved", lambda *_: False)
    with pytest.raises(AssertionError, match=r"seed \d+: bound"):
        for seed in range(24):
            test_under_any_crowd_it_starts_within_the_bound(seed)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_free_gpus_that_are_not_kept_for_it_are_found(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The check above can fail: here starved jobs have no reservation."""
    monkeypatch.setattr(reservation.Reservations, "_turn", lambda *_: None)
    with pytest.raises(AssertionError, match=r"seed \d+: bound"):
        for seed in range(24):
            test_what_may_not_be_stopped_only_adds_its_own_end(seed, kind)


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


@pytest.mark.parametrize(
    ("kind", "grows"), [(FIXED, False), (Preemptibility.PREEMPTIBLE, True)], ids=["may not be stopped", "gives it back"]
)
def test_what_grows_leaves_alone_what_is_kept_for_it(kind: Preemptibility, grows: bool) -> None:
    made = World([node("n0", 4)], policy=replace(POLICY, min_runtime_ms=0), at=1_000)
    made.submit(job("one", 1, preemptibility=FIXED), job("two", 2, preemptibility=FIXED))
    made.submit(job("wide", 1, at=1, max_tasks=4, elastic=True, preemptibility=kind))
    made.settle()
    made.submit(job("low", 3, at=2, priority=50))
    made.now += DEADLINE_MS
    made.settle()
    made.finish("one")
    made.settle()
    assert (made.tasks("wide") == 2) is grows and not made.runs("low")
    made.finish("two")
    made.settle()
    assert made.runs("low") and made.tasks("wide") == 1


HOUR_MS = 3_600_000
GRACE_MS = job("any").grace_ms


def _stream(
    low: JobSpec, queues: list[QueueSpec] | None = None, gpus: int = 4, into: str = "default", **more: object
) -> World:
    """At most an hour of endless single-GPU work, in which `low` comes after half a minute; the world in which it has started, or not."""
    made = World([node("n0", gpus)], queues or [queue("default", 4)], replace(POLICY, min_runtime_ms=0), at=1_000)
    more.setdefault("preemptibility", FIXED)
    ends: dict[str, int] = {}
    count = 0
    while made.now < HOUR_MS and not made.runs("low"):
        while sum(job_id != "low" for job_id in made.specs) < 2 * gpus:
            count += 1
            made.submit(job(f"s{count:04d}", 1, into, 1, made.now, **more))
        for order in made.step().decisions:
            if isinstance(order, Start):
                ends[order.job_id] = made.now + 40_000 + len(ends) % 4 * 10_000
        made.now += STEP_MS
        if made.now > 30_000 and "low" not in made.specs:
            made.submit(replace(low, submitted_at_ms=made.now))
        for job_id in made.running():
            if ends.get(job_id, HOUR_MS) <= made.now:
                made.finish(job_id)
    return made


LOW = job("low", 1, tasks=4, priority=50)
TWO = [queue("default", 2), queue("other", 2)]


@dataclass(frozen=True)
class Case:
    say: str
    low: JobSpec
    starts: bool
    more: dict[str, object] = field(default_factory=dict)
    into: str = "default"
    queues: list[QueueSpec] | None = None
    gpus: int = 4


CASES = [
    Case("work of its own class", replace(LOW, priority=100), True),
    Case("work of a higher class", LOW, True, {"priority": 150}),
    Case("work that says how long it takes", LOW, True, {"priority": 150, "max_runtime_ms": 80_000}),
    Case("work on which an elastic job may grow", LOW, True, {"max_tasks": 3, "elastic": True}),
    Case("its queue's limit is what it waits for", LOW, True, gpus=8, queues=[queue("default", 4, limit=4)]),
    Case("its quota is what it waits for", replace(LOW, preemptibility=FIXED), True, gpus=8),
    Case(
        "its user's limit is what it waits for", replace(LOW, user="ann"), True, {"user": "ann"}, "default",
        [QueueSpec("default", quota=(("gpu", 8_000),), user_limit=(("gpu", 4_000),))], 8,
    ),
    Case("a quota of another queue stands above it", LOW, False, into="other", queues=[queue("default"), queue("other", 4)]),
    Case("within its own quota it stands above work like it", replace(LOW, min_tasks=2, max_tasks=2), True, into="other", queues=TWO),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_it_outlasts_endless_work_that_may_not_be_stopped(case: Case) -> None:
    made = _stream(case.low, case.queues, case.gpus, case.into, **case.more)
    assert made.runs("low") is case.starts
    if case.starts:
        assert made.now - made.specs["low"].submitted_at_ms <= DEADLINE_MS + 100_000, (
            "one run of what was there at the deadline"
        )


def _kept() -> World:
    """Two of four GPUs are held by work that may not be stopped, two are kept for a starved job."""
    made = World([node("n0", 4)], [queue("default", 4)], replace(POLICY, min_runtime_ms=0), at=1_000)
    made.submit(*(job(f"fixed-{i}", 1, at=1, preemptibility=FIXED) for i in range(2)))
    made.settle()
    made.submit(replace(LOW, submitted_at_ms=1))
    made.now += DEADLINE_MS
    made.settle()
    return made


def test_what_is_kept_for_it_may_be_used_by_who_can_be_asked_back() -> None:
    made = _kept()
    made.submit(job("free", 1, at=made.now), job("more", 1, at=made.now, preemptibility=FIXED))
    made.settle()
    assert made.runs("free") and not made.runs("more")
    why = made.engine.reason("more")
    assert why is not None and why.code is ReasonCode.RESERVED_FOR and why.fact("job") == "low" and why.until_ms is None
    for name in ("fixed-0", "fixed-1"):
        made.finish(name)
    made.settle()
    assert made.runs("low") and not made.runs("free")


def test_the_stated_time_names_whose_end_it_depends_on() -> None:
    made = _kept()
    told = {check.name: check for check in made.engine.explain("low", made.now).checks}["starts in time"]
    assert not told.ok and dict(told.facts) == {
        "deadline_ms": 1 + DEADLINE_MS,
        "after_jobs": 2,
        "after": "fixed-0, fixed-1",
        "starts_within_ms": POLICY.starvation_turn_ms + GRACE_MS,
    }


def test_who_starves_before_it_has_its_turn_first() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("high", 1, priority=150))
    made.settle()
    made.submit(job("first", 1, at=1, priority=50), job("second", 1, at=2, priority=50))
    made.decide()
    told = [
        dict(check.facts) for check in made.engine.explain("second", made.now).checks if check.name == "starts in time"
    ]
    turn_ms = POLICY.starvation_turn_ms + GRACE_MS
    assert told == [
        {"deadline_ms": 2 + DEADLINE_MS, "behind_starved": 1, "starts_by_ms": 2 + DEADLINE_MS + 2 * turn_ms}
    ]
