"""Who may pass the first blocked job of a pool: what can be asked back, what ends in time, what fits beside it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from heliostat_scheduler.core import JobSpec, Policy, Preempt, ReasonCode
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.admission import Admission
from heliostat_scheduler.core.reservation import Reservations

from tests.scheduler.world import FIXED, World, job, node, queue

POLICY = Policy(cooldown_ms=0, aging_step_ms=0)
MINUTE_MS = 60_000
HOLDER = job("holder", 3, preemptibility=FIXED, max_runtime_ms=10 * MINUTE_MS)
BIG = job("big", 4, at=2)
SMALL = job("small", 1, at=3, preemptibility=FIXED)


@dataclass(frozen=True)
class Case:
    say: str
    small: JobSpec
    starts: bool
    code: ReasonCode | None = None
    holder: JobSpec = HOLDER
    policy: Policy = POLICY


CASES = [
    Case("what cannot be taken back waits", SMALL, False, ReasonCode.RESERVED_FOR),
    Case("what ends in time passes", replace(SMALL, max_runtime_ms=9 * MINUTE_MS), True),
    Case(
        "what ends too late waits", replace(SMALL, max_runtime_ms=11 * MINUTE_MS), False, ReasonCode.BACKFILL_TOO_LONG
    ),
    Case("what can be taken back passes", job("small", 1, at=3), True),
    Case("a higher class is not behind it", replace(SMALL, priority=150), True),
    Case("an older job is not behind it", replace(SMALL, submitted_at_ms=1), True),
    Case("where no end is known there is no reservation", SMALL, True, holder=replace(HOLDER, max_runtime_ms=None)),
    Case("backfill without limits", SMALL, True, policy=replace(POLICY, backfill=False)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_backfill(case: Case) -> None:
    made = World([node("n0", 4)], policy=case.policy, at=1_000)
    made.submit(case.holder)
    made.settle()
    made.submit(BIG, case.small)
    made.settle()
    assert made.runs("small") is case.starts
    reason = made.engine.reason("small")
    assert (None if reason is None else reason.code) == case.code


def test_a_learned_end_makes_a_reservation_too() -> None:
    made = World([node("n0", 4)], policy=POLICY, at=1_000)
    made.submit(replace(HOLDER, max_runtime_ms=None))
    made.settle()
    made.apply(ev.Estimated("holder", remaining_ms=5 * MINUTE_MS))
    made.submit(BIG, SMALL)
    made.settle()
    reason = made.engine.reason("small")
    assert reason is not None and reason.until_ms == made.now + 5 * MINUTE_MS and reason.fact("job") == "big"


def test_what_fits_beside_the_reservation_passes() -> None:
    made = World([node("n0", 4)], policy=POLICY, at=1_000)
    made.submit(HOLDER)
    made.settle()
    made.submit(replace(BIG, shape=replace(BIG.shape, gpu_milli=3000)), SMALL)
    made.settle()
    assert made.runs("small")


@pytest.mark.parametrize("end", ["starts", "is cancelled"])
def test_the_reservation_ends_with_its_holder(end: str) -> None:
    """S12."""
    made = World([node("n0", 4)], policy=POLICY, at=1_000)
    made.submit(HOLDER)
    made.settle()
    made.submit(BIG, SMALL)
    made.settle()
    if end == "starts":
        made.finish("holder")
        made.settle()
        assert made.runs("big") and not made.runs("small")
        made.finish("big")
    else:
        made.cancel("big")
    made.settle()
    assert made.runs("small")


LENGTHS = (2 * MINUTE_MS, 5 * MINUTE_MS, 20 * MINUTE_MS)


def exact(seed: int) -> list[tuple[str, int, int]]:
    """All work is known from the start, ends exactly when it says, cannot be taken back, and takes single devices.

    (first blocked job, told start, real start)
    """
    rng = random.Random(seed)
    made = World([node("n0", 4), node("n1", 2)], [queue("default", 100)], POLICY, at=1_000)
    for number in range(16):
        gpus, tasks = rng.choice(((1, 1), (1, 3), (2, 1), (4, 1), (1, 6)))
        spec = job(
            f"j{number:02d}", gpus, tasks=tasks, at=number, preemptibility=FIXED, max_runtime_ms=rng.choice(LENGTHS)
        )
        made.submit(spec)
    told: dict[str, int] = {}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    while made.specs:
        made.settle()
        for job_id in made.running():
            if job_id not in starts:
                starts[job_id] = made.now
                ends[job_id] = made.now + (made.specs[job_id].max_runtime_ms or 0)
        for first in Reservations(made.engine.state, made.now)._first("gpu"):
            told[first.job_id] = min(first.shadow_ms, told.get(first.job_id, first.shadow_ms))
        made.now = min(ends[job_id] for job_id in made.running())
        for job_id in made.running():
            if ends[job_id] == made.now:
                made.finish(job_id)
    return [(job_id, at, starts[job_id]) for job_id, at in told.items()]


@pytest.mark.parametrize("seed", range(30))
def test_with_exact_run_times_nobody_delays_a_reservation(seed: int) -> None:
    """S13, and S12: with everybody gone at last, nothing is reserved any more."""
    found = exact(seed)
    assert found and all(started <= told for _, told, started in found), f"seed {seed}: {found}"


def test_backfill_that_delays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail."""
    monkeypatch.setattr(Admission, "_held_back", lambda *_: None)
    assert any(started > told for seed in range(30) for _, told, started in exact(seed))


PASSER = job("small", 1, at=3, saves_on_order=True)


def _passed(small: JobSpec, policy: Policy = POLICY) -> World:
    """`small` has started ahead of `big`, which is due in ten minutes, when the holder ends."""
    made = World([node("n0", 4)], policy=policy, at=1_000)
    made.submit(HOLDER)
    made.settle()
    made.submit(BIG, small)
    made.settle()
    assert made.runs("small")
    return made


def _due(made: World) -> World:
    made.now += 10 * MINUTE_MS
    made.finish("holder")
    made.settle()
    return made


def test_what_went_ahead_on_condition_is_asked_back_when_the_reservation_is_due() -> None:
    made = _passed(PASSER)
    made.now += 5 * MINUTE_MS
    made.settle()
    assert made.runs("small"), "not before it is due"
    _due(made)
    assert made.runs("big") and not made.runs("small")
    order = next(order for plan in made.plans for order in plan.decisions if isinstance(order, Preempt))
    assert order.reason.code is ReasonCode.ASKED_BACK_FOR and order.reason.fact("for") == "big"
    made.finish("big")
    made.settle()
    assert made.runs("small")


@pytest.mark.parametrize(
    "small",
    [
        pytest.param(job("small", 1, at=3), id="work that is not known to save itself"),
        pytest.param(replace(PASSER, submitted_at_ms=1), id="an older job"),
    ],
)
def test_without_condition_an_equal_keeps_what_it_has(small: JobSpec) -> None:
    made = _due(_passed(small))
    assert made.runs("small") and not made.runs("big")


def test_the_condition_survives_a_snapshot_and_ends_with_the_waiting_job() -> None:
    made = _passed(PASSER)
    made.engine = made.engine.restore(made.engine.snapshot())
    assert made.engine.state.revocable == {"big": {"small"}}
    made.cancel("big")
    made.settle()
    assert not made.engine.state.revocable and not made.engine.state.book.jobs["small"].behind


def test_turns_among_equals_go_before_the_condition() -> None:
    made = World([node("n0", 4)], policy=replace(POLICY, rotate=True), at=1_000)
    made.submit(HOLDER)
    made.settle()
    made.submit(BIG, PASSER)
    made.apply(ev.Estimated("small", rank_ms=MINUTE_MS))
    made.settle()
    _due(made)
    assert made.runs("small")
