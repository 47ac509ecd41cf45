"""S17: the same things in another order of arrival, or under other names, lead to the same decisions, whatever the seed of the story."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from heliostat_scheduler.core import Discarded, JobSpec, Policy, Preempt, Preemptibility, TaskPlace
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.decisions import Decision

from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

POLICY = Policy(cooldown_ms=2_000, resize_interval_ms=1_000, aging_step_ms=0)
ROUNDS, JOBS = 12, 5
FREE = Preemptibility.PREEMPTIBLE


def draw(rng: random.Random, number: int) -> JobSpec:
    gpus, tasks = rng.choice(((1, 1), (1, 2), (0.5, 1), (2, 1), (1, 3)))
    return job(
        f"j{number:03d}", gpus, rng.choice("abc"), tasks, number, max_tasks=tasks + rng.choice((0, 2)), elastic=rng.random() < 0.5,
        priority=rng.choice((50, 100, 150)), preemptibility=rng.choice((FREE, FREE, FREE, FIXED, SEMI)),
    )  # fmt: skip


class Story:
    """Jobs come in crowds, run for a while and end. names: what each job is called here. crowd: the order in which a crowd is told."""

    def __init__(self, seed: int, names: Callable[[str], str], crowd: Callable[[list[JobSpec]], list[JobSpec]]) -> None:
        self.rng = random.Random(seed)
        self.names, self.crowd = names, crowd
        queues = [queue("p", 4), queue("a", 2, parent="p"), queue("b", 2, parent="p", weight=2), queue("c", 3)]
        self.world = World([node("n0", 3), node("n1", 4), node("n2", 2)], queues, POLICY, at=1_000)
        self.lines: list[str] = []

    def tell(self) -> list[str]:
        called: dict[str, str] = {}
        for round_ in range(ROUNDS):
            crowd = [draw(self.rng, round_ * JOBS + i) for i in range(JOBS)]
            called |= {self.names(spec.id): spec.id for spec in crowd}
            self.world.submit(*(replace(spec, id=self.names(spec.id)) for spec in self.crowd(crowd)))
            for spec in crowd:
                if self.rng.random() < 0.4:
                    curve = tuple((size, round(1000 * size**0.8)) for size in range(1, 6))
                    self.world.apply(
                        ev.Estimated(self.names(spec.id), goodput_milli=curve, rank_ms=self.rng.choice((1_000, 90_000)))
                    )
            for _ in range(3):
                orders = self.world.step().decisions
                self.lines += sorted(line(order, called) for order in orders)
                self.world.now += 1_500
            for name in sorted(self.world.held, key=lambda name: called[name])[:2]:
                self.lines.append(f"{called[name]} ends")
                self.world.finish(name)
        return self.lines


def line(order: Decision, called: dict[str, str]) -> str:
    """Without the order of names in lists of blockers, which goes by name where sizes are equal."""
    places = tuple(getattr(order, "places", ()))
    facts = {key: called.get(str(value), value) for key, value in order.reason.facts}
    who = called.get(order.job_id, order.job_id)
    kind = "" if isinstance(order, (Preempt, Discarded)) else " ".join(spell(place) for place in places)
    return f"{type(order).__name__} {who} {kind} {order.reason.code} {sorted(facts.items(), key=str)}"


def spell(place: TaskPlace) -> str:
    return "+".join(place.slots) or place.node


def as_they_are(name: str) -> str:
    return name


def backwards(name: str) -> str:
    return f"j{999 - int(name[1:]):03d}"


def scattered(name: str) -> str:
    return f"j{int(name[1:]) * 389 % 1009:04d}"


@pytest.mark.parametrize("seed", range(30))
def test_order_of_arrival_and_names_do_not_matter(seed: int) -> None:
    plain = Story(seed, as_they_are, list).tell()
    assert len(plain) > 20
    assert Story(seed, as_they_are, lambda crowd: crowd[::-1]).tell() == plain
    assert Story(seed, backwards, list).tell() == plain
    assert Story(seed, scattered, lambda crowd: crowd[2:] + crowd[:2]).tell() == plain


def test_an_engine_that_goes_by_names_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above can fail."""
    from heliostat_scheduler.core import state

    monkeypatch.setattr(state.State, "order_key", by_name)
    plain = Story(0, as_they_are, list).tell()
    assert Story(0, backwards, list).tell() != plain


def by_name(self: object, rec: object, _now_ms: int) -> object:
    from heliostat_scheduler.core.waiting import OrderKey

    spec = rec.spec  # type: ignore[attr-defined]
    return OrderKey(-spec.priority, 0, 0, 0, spec.id)
