"""One decision from each of thousands of tiny states, beside a scheduler that tries everything (`exhaustive`). "Equal" means:

verdict   where one job waits: it gets GPUs exactly if it fits without harm or some legal choice of victims is enough.
work      after the decision nobody waits who would fit without harm; at rest nobody for whom a legal choice would be enough.
order     nobody got free GPUs that an earlier job of its queue, or the only job of a queue within its quota, could have used instead.
legal     the victims of a decision are one of the legal choices.
minimal   no part of the victims could have been spared: what is left would not be enough.
mild      a whole job is stopped only where no legal choice of surplus alone is enough.

Left out, because other tests have them: turns among equals, idleness, starvation, moves, lending limits, growth.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import pytest
from heliostat_scheduler.core import Discarded, JobSpec, Policy, Preempt, Preemptibility, QueueSpec, Resize, Start
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.decisions import Plan

from tests.scheduler.books import below_common
from tests.scheduler.exhaustive import Loss, Tiny
from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

SEEDS = 3_000
BLOCKS = 10
FREE = Preemptibility.PREEMPTIBLE
GROWING = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0, starvation_ms=0, consolidate=False)
STEADY = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0, starvation_ms=0, consolidate=False, grow=False)


def tree(rng: random.Random) -> list[QueueSpec]:
    a, b = rng.randint(0, 2), rng.randint(0, 2)
    limit = {"limit": rng.randint(1, 3)} if rng.random() < 0.3 else {}
    return rng.choice(
        (
            [queue("a", rng.choice((-1, 2, 4)), **limit)],
            [queue("a", a, **limit), queue("b", b, weight=rng.randint(1, 2))],
            [
                queue("p", a + b),
                queue("a", a, parent="p", **limit),
                queue("b", b, parent="p"),
                queue("c", rng.randint(0, 2)),
            ],
        )
    )


def draw(rng: random.Random, name: str, leaves: list[str], at: int) -> JobSpec:
    gpus, tasks = rng.choice(((1, 1), (1, 1), (1, 2), (2, 1), (0.5, 1), (1, 3)))
    return job(
        name, gpus, rng.choice(leaves), tasks, at, max_tasks=tasks + rng.choice((0, 0, 1, 2)), elastic=rng.random() < 0.6,
        priority=rng.choice((50, 100, 150)), preemptibility=rng.choice((FREE, FREE, FREE, FIXED, SEMI)),
        spread=rng.choice(("any", "any", "one_node")),
    )  # fmt: skip


def state(seed: int) -> World:
    """Some jobs run (those that could), one or two more have just come."""
    rng = random.Random(seed)
    sizes = rng.choice(((4,), (2, 2), (3, 1), (2, 1), (2, 1, 1), (1, 1)))
    queues = tree(rng)
    made = World([node(f"n{i}", gpus) for i, gpus in enumerate(sizes)], queues, GROWING, at=1_000)
    leaves = [spec.name for spec in queues if not any(other.parent == spec.name for other in queues)]
    before = rng.randint(0, 3)
    for number in range(before):
        made.submit(draw(rng, f"j{number}", leaves, number))
        made.now += 1_000
        made.settle()
    made.apply(ev.PolicyChanged(STEADY))
    made.settle()
    for number in range(rng.randint(1, min(2, 4 - before))):
        made.submit(draw(rng, f"k{number}", leaves, 10 + number))
    return made


def waiting(world: World) -> list[JobSpec]:
    """In the order of their queue."""
    specs = [world.specs[job_id] for job_id in world.specs if job_id not in world.held]
    return sorted(specs, key=lambda spec: (-spec.priority, spec.submitted_at_ms, spec.id))


class Trial:
    """One decision and everything that is said about it. `seen` counts how often each word meant something."""

    def __init__(self, seed: int, seen: Counter[str]) -> None:
        self.seed, self.seen = seed, seen
        self.world = state(seed)
        self.before = Tiny.of(self.world)
        self.waiting = waiting(self.world)
        self.plan = self.world.decide()
        self.after = Tiny.of(self.world)

    def check(self) -> None:
        self.verdict()
        self.work()
        self.order()
        others = {spec.id for spec in self.waiting if self.got(spec)}
        if len(others) == 1:
            self.victims(self.world.specs[others.pop()])
        self.rest()

    def got(self, spec: JobSpec) -> bool:
        return spec.id in self.world.held or bool(self.world.engine.state.book.jobs[spec.id].claim)

    def claim(self, word: str, holds: bool, *about: object) -> None:
        self.seen[word] += 1
        assert holds, f"seed {self.seed}: {word}: {about}: {self.plan}"

    def discarded(self, plan: Plan) -> set[str]:
        return {order.job_id for order in plan.decisions if isinstance(order, Discarded)}

    def verdict(self) -> None:
        if len(self.waiting) != 1:
            return
        spec = self.waiting[0]
        free, ways = self.before.fits(spec), any(True for _ in self.before.ways(spec))
        self.seen["fits"] += free
        self.seen["by harm"] += ways and not free
        if not self.discarded(self.plan):
            self.claim("verdict", self.got(spec) == (free or ways), spec, free, ways)

    def work(self) -> None:
        now = Tiny.of(self.world, leaving=True)
        for spec in self.waiting:
            if not self.got(spec):
                self.claim("work", not now.fits(spec), spec)

    def order(self) -> None:
        """Give back what a later job took from what was free: the earlier one must not have fitted."""
        starts = [o for o in self.plan.decisions if isinstance(o, Start)]
        for order in starts:
            later = self.world.specs[order.job_id]
            for spec in self.waiting:
                if self.got(spec) or not (self.before_in_queue(spec, later) or self.before_by_quota(spec, later)):
                    continue
                self.after.take((later.id, order.places))
                fits = self.after.fits(spec)
                self.after.take((later.id, order.places), -1)
                self.claim("order", not fits, spec, later)

    def before_in_queue(self, spec: JobSpec, later: JobSpec) -> bool:
        return spec.queue == later.queue and self.waiting.index(spec) < self.waiting.index(later)

    def before_by_quota(self, spec: JobSpec, later: JobSpec) -> bool:
        """Alone on its side and within its quota there; the other is above its own."""
        mine, theirs = below_common(self.world, spec.queue, later.queue)
        if not mine:
            return False
        alone = all(
            other is spec or mine[-1] not in below_common(self.world, other.queue, later.queue)[0]
            for other in self.waiting
        )
        tiny = self.before
        within = tiny.plan[mine[-1]] + tiny.need(spec) <= tiny.secured(mine[-1])
        return alone and within and tiny.plan[theirs[-1]] + tiny.need(later) > tiny.secured(theirs[-1])

    def victims(self, spec: JobSpec) -> None:
        lost = list(self.lost())
        if not lost:
            return
        tiny = self.before
        self.claim("legal", tiny.enough(spec, lost) and tiny.some_order_is_legal(spec, lost), spec, lost)
        for fewer in self.parts(lost):
            self.claim(
                "minimal", not (tiny.enough(spec, fewer) and tiny.some_order_is_legal(spec, fewer)), spec, lost, fewer
            )
        if any(tiny.evicts(loss) for loss in lost):
            surplus = [way for way in tiny.ways(spec) if not any(tiny.evicts(loss) for loss in way)]
            self.claim("mild", not surplus, spec, lost, surplus)

    def lost(self) -> Iterator[Loss]:
        for order in self.plan.decisions:
            if isinstance(order, Preempt):
                yield order.job_id, self.before.running[order.job_id]
            elif isinstance(order, Resize):
                gone = tuple(place for place in self.before.running[order.job_id] if place not in order.places)
                if gone:
                    yield order.job_id, gone

    def parts(self, lost: list[Loss]) -> Iterator[list[Loss]]:
        """Every choice that spares something of this one."""
        singles = [single for loss in lost for single in self.before._singles(loss)]
        for count in range(len(singles)):
            for part in combinations(singles, count):
                merged: dict[str, tuple[object, ...]] = {}
                for job_id, places in part:
                    merged[job_id] = (*merged.get(job_id, ()), *places)
                yield list(merged.items())  # type: ignore[arg-type]

    def rest(self) -> None:
        self.world.answer_all()
        undone: set[str] = set()
        for _ in range(12):
            plan = self.world.step()
            undone |= self.discarded(plan)
            if not plan.decisions:
                break
        tiny = Tiny.of(self.world)
        for spec in waiting(self.world):
            if spec.id not in undone:
                self.claim("rest", not tiny.fits(spec) and not any(True for _ in tiny.ways(spec)), spec)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_engine_equals_a_scheduler_that_tries_everything(block: int) -> None:
    seen: Counter[str] = Counter()
    seeds = range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS)
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    for seed in seeds:
        Trial(seed, seen).check()
    assert (
        min(seen[word] for word in ("verdict", "fits", "by harm", "work", "order", "legal", "minimal", "mild", "rest"))
        > 0
    ), seen
