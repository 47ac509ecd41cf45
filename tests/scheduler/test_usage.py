"""Decayed use: equal to a sum by hand, it moves shares among queues and turns among users; weights hold in the long run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from heliostat_scheduler.core import Engine, Policy, Preempt, QueueSpec, entitlement
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.ordering import Merge
from heliostat_scheduler.core.usage import KEEP, SHIFT, TICKS

from tests.scheduler.world import World, job, node, queue

HOUR_MS = 3_600_000
TICK_MS = 1_000
POLICY = Policy(cooldown_ms=0, aging_step_ms=0, usage_half_life_ms=TICKS * TICK_MS)


def test_usage_is_the_decayed_integral_whenever_somebody_looked() -> None:
    """S20: against a sum over single milliseconds."""
    rng = random.Random(7)
    made = World([node("n0", 4)], [queue("p"), queue("a", 2, parent="p"), queue("b", 2, parent="p")], POLICY, at=500)
    by_hand = {"p": 0, "a": 0, "b": 0}
    for step in range(120):
        before = {name: made.queue_used().get(name, 0) for name in by_hand}
        start, made.now = made.now, made.now + rng.randrange(1, 700)
        for at in range(start, made.now):
            for name, used in before.items():
                by_hand[name] += used
                if (at + 1) % TICK_MS == 0:
                    by_hand[name] = by_hand[name] * KEEP >> SHIFT
        if step % 3 == 0:
            made.submit(job(f"j{step}", rng.choice((1, 0.5)), rng.choice("ab"), at=made.now))
        elif made.held and step % 3 == 1:
            made.finish(rng.choice(sorted(made.held)))
        made.step()
    usage = {name: made.engine.state.book.tree.by_name[name].usage.get("gpu", 0) for name in by_hand}
    assert all(abs(usage[name] - by_hand[name]) <= 1 for name in by_hand) and usage["p"] > 0


def test_a_half_life_halves_it() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("x"))
    made.settle()
    made.now += 60_000
    made.finish("x")
    before = made.engine.state.book.tree.by_name["default"].usage["gpu"]
    made.now += TICKS * TICK_MS
    made.decide()
    after = made.engine.state.book.tree.by_name["default"].usage["gpu"]
    assert after == pytest.approx(before / 2, rel=1e-3)


def test_a_refused_event_leaves_no_trace_in_the_use() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("x"))
    made.settle()
    before = made.engine.snapshot()
    with pytest.raises(ev.IllegalEvent):
        made.engine.apply(ev.JobCancelled("ghost"), made.now + 5_000)
    assert made.engine.snapshot() == before


def test_it_survives_a_snapshot_and_a_fork() -> None:
    made = World([node("n0", 2)], [queue("a", 1), queue("b", 1)], POLICY, at=1_000)
    made.submit(job("x", 1, "a", user="ann"), job("y", 1, "b", user="bob"))
    made.settle()
    made.now += HOUR_MS
    made.decide()
    for twin in (Engine.restore(made.engine.snapshot()), made.engine.fork()):
        assert twin.digest() == made.engine.digest()
        assert twin.state.user_steps == made.engine.state.user_steps != {}


def test_who_used_less_of_the_queue_goes_first() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("heavy-1", user="ann", at=1))
    made.settle()
    made.now += HOUR_MS // 4
    made.submit(job("heavy-2", user="ann", at=2), job("light", user="bob", at=3))
    made.finish("heavy-1")
    made.settle()
    assert made.running() == ["light"]


def test_users_of_equal_use_go_in_the_order_of_arrival() -> None:
    made = World([node("n0", 1)], policy=POLICY, at=1_000)
    made.submit(job("first", user="ann", at=1), job("second", user="bob", at=2))
    made.settle()
    assert made.running() == ["first"]


def test_idle_work_within_its_quota_is_charged_twice() -> None:
    policy = Policy(idle_warmup_ms=0, suspect_after_ms=1_000, idle_after_ms=2_000)
    made = World([node("n0", 2)], [queue("a", 1), queue("b", 1)], policy, at=1_000)
    made.submit(job("x", 1, "a"), job("y", 1, "b"))
    made.settle()
    for _ in range(100):
        made.now += 1_000
        made.apply(ev.Utilized("x", 1_000, 0, False))
        made.apply(ev.Utilized("y", 1_000, 900, True))
    made.decide()
    used = {row.name: made.engine.state.book.tree.by_name[row.name].usage["gpu"] for row in made.engine.queue_usage()}
    assert used["a"] / used["b"] == pytest.approx(2, rel=0.05)


def weighted(*weights: int) -> list[QueueSpec]:
    return [queue("abc"[rank], weight=weight) for rank, weight in enumerate(weights)]


TREES = {
    "1:1": weighted(1, 1),
    "2:1": weighted(2, 1),
    "3:2": weighted(3, 2),
    "1:1:1": weighted(1, 1, 1),
    "1:1, one divided 1:1": [queue("p"), queue("q"), queue("a", parent="p"), queue("b", parent="p")],
    "2:1, one divided 3:2": [
        queue("p", weight=2), queue("q"), queue("a", parent="p", weight=3), queue("b", parent="p", weight=2),
    ],
}  # fmt: skip
FLAT = replace(POLICY, usage_half_life_ms=TICKS * 100)


@pytest.mark.parametrize("gpus", [1, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("tree", TREES)
def test_endless_work_shares_by_weight_however_many_gpus_there_are(tree: str, gpus: int) -> None:
    """S21: at every moment within the GPU-time of one job, and nobody is ended for it."""
    for seed in range(2):
        for long_run in share_for_ever(TREES[tree], gpus, seed):
            assert long_run.off() <= long_run.longest, f"seed {seed}: {long_run.served} after {long_run.made.now} ms"
        assert not evicted(long_run.made), f"seed {seed}"


@pytest.mark.parametrize(
    ("tree", "gpus", "sizes", "jobs"),
    [("1:1", 3, (2,), 1), ("1:1:1", 5, (2,), 1), ("1:1", 5, (1, 2), 3), ("2:1", 8, (1, 2), 3), ("3:2", 7, (1, 2), 3)],
)
def test_gangs_share_by_weight_too(tree: str, gpus: int, sizes: tuple[int, ...], jobs: int) -> None:
    """Of one size within one job's GPU-time; of mixed sizes, where a gang may borrow what nobody else can use, within three."""
    for long_run in share_for_ever(TREES[tree], gpus, 3, sizes=sizes):
        assert long_run.off() <= jobs * long_run.longest, f"{long_run.served} after {long_run.made.now} ms"


@pytest.mark.parametrize("seed", range(3, 11))
def test_what_divides_evenly_is_divided_evenly(seed: int) -> None:
    for long_run in share_for_ever(TREES["2:1"], 6, seed):
        assert long_run.off() <= long_run.longest


def test_where_use_pulls_at_the_weights_as_well_it_swings_by_one_more_job() -> None:
    for long_run in share_for_ever(TREES["2:1"], 6, 3, replace(FLAT, usage_strength_milli=1000)):
        assert long_run.off() <= 2 * long_run.longest


def test_queues_that_do_not_share_by_weight_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail."""
    monkeypatch.setattr(entitlement, "_fill", lambda *_: 0)
    monkeypatch.setattr(Merge, "_key", lambda _, node, __: (False, False, False, 0, 0, 0, node.rank))
    assert max(long_run.off() - long_run.longest for long_run in share_for_ever(TREES["2:1"], 6, 3)) > 0


def test_remainders_taken_from_their_holders_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look for evictions can fail."""
    monkeypatch.setattr(entitlement, "_above", lambda *_: 0)
    assert evicted([*share_for_ever(TREES["1:1"], 3, 3)][-1].made)


@pytest.mark.parametrize("tree", TREES)
def test_shares_rest_while_nobody_leaves(tree: str) -> None:
    """However long everybody holds what he has: use goes on, and no share moves."""
    for gpus in (3, 5, 8):
        made = [*share_for_ever(TREES[tree], gpus, 5, steps=30)][-1].made
        made.settle()
        before = {row.name: row.entitled for row in made.engine.queue_usage()}
        for _ in range(20):
            made.now += TICKS * 40
            assert not made.decide().decisions
            assert {row.name: row.entitled for row in made.engine.queue_usage()} == before


@pytest.mark.parametrize(("debt", "next_up"), [(0, "a2"), (1, "b2")])
def test_what_is_held_idly_counts_against_the_next_remainder(debt: int, next_up: str) -> None:
    policy = Policy(idle_warmup_ms=0, suspect_after_ms=1_000, idle_after_ms=2_000, idle_debt=debt)
    made = World([node("n0", 3)], [queue("a", 1), queue("b", 1)], policy, at=1_000)
    made.submit(job("a1", 1, "a"), job("b1", 1, "b"))
    made.settle()
    for _ in range(100):
        made.now += 1_000
        made.apply(ev.Utilized("a1", 1_000, 0, False))
        made.apply(ev.Utilized("b1", 1_000, 900, True))
    made.submit(job("a2", 1, "a", at=1), job("b2", 1, "b", at=2))
    made.settle()
    assert set(made.running()) == {"a1", "b1", next_up}


def evicted(made: World) -> list[str]:
    return [order.job_id for plan in made.plans for order in plan.decisions if isinstance(order, Preempt)]


@dataclass
class LongRun:
    """GPU-milliseconds by queue, what part of all each should have, and those of the longest job."""

    made: World
    served: dict[str, int]
    due: dict[str, float]
    longest: int = 0

    def off(self) -> float:
        total = sum(self.served.values())
        return max(abs(served - self.due[name] * total) for name, served in self.served.items())


def dues(queues: list[QueueSpec]) -> dict[str, float]:
    """The part of everything that each leaf should have by weight."""
    found = {"": 1.0}
    for spec in queues:
        siblings = sum(other.weight for other in queues if other.parent == spec.parent)
        found[spec.name] = found[spec.parent] * spec.weight / siblings
    return {name: part for name, part in found.items() if name and all(spec.parent != name for spec in queues)}


def share_for_ever(
    queues: list[QueueSpec],
    gpus: int,
    seed: int,
    policy: Policy = FLAT,
    sizes: tuple[int, ...] = (1,),
    steps: int = 200,
) -> Iterator[LongRun]:
    """Every leaf always has more work than there is room; after each end of a job, what came of it so far."""
    made = World([node("n0", gpus)], queues, policy, at=1_000)
    run = LongRun(made, dict.fromkeys(dues(queues), 0), dues(queues))
    rng, ends, count = random.Random(seed), dict[str, int](), 0
    for _ in range(steps):
        for name in run.served:
            while sum(spec.queue == name for spec in made.specs.values()) < gpus + 4:
                count += 1
                made.submit(job(f"{name}{count:04d}", 1, name, rng.choice(sizes), at=made.now))
        made.settle()
        for job_id in made.running():
            if job_id not in ends:
                length = rng.randrange(500, 2_000)
                run.longest = max(run.longest, length * made.specs[job_id].min_tasks)
                ends[job_id] = made.now + length
        due = min(ends[job_id] for job_id in made.running())
        for job_id in made.running():
            run.served[made.specs[job_id].queue] += (due - made.now) * made.specs[job_id].min_tasks
        made.now = due
        for job_id in [job_id for job_id in made.running() if ends[job_id] == due]:
            made.finish(job_id)
        yield run
