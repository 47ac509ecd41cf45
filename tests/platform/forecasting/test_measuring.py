"""What runners report becomes goodput curves of the live engine: who scales grows, who does not does not; after restarts too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.forecasting.replaying import replay
from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant
from tests.platform.forecasting.teaching import Teacher, estimates, logged

EVERY_MS = 10_000
Rate = Callable[[int], float]


def bad(tasks: int) -> float:
    return 100.0 * (1.0, 1.04, 1.06, 1.07)[tasks - 1]


def good(tasks: int) -> float:
    return 50.0 * tasks


@pytest.fixture
def made(make_plant: Callable[..., Plant]) -> Plant:
    plant = make_plant(gpus=4, cpu_milli=8_000)
    plant.advance(1_000)
    return plant


def trains(plant: Plant, *names: str) -> None:
    for name in names:
        plant.submit(name, gpus=3, min_tasks=1, work=Script(steps=10**6, checkpoint_every=10**5, again_ms=500))
        plant.until(lambda name=name: plant.state(name) == "running", f"{name} to run")  # type: ignore[misc]


def tasks(plant: Plant, name: str) -> int:
    return len(plant.loop.engine.state.book.jobs[name].places)


def train_on(
    plant: Plant, teacher: Teacher | None, seconds: int, rates: dict[str, Rate], unit: str = "samples_per_s"
) -> None:
    """Reports every ten seconds, and a look after each."""
    for _ in range(seconds * 1000 // EVERY_MS):
        plant.advance(EVERY_MS, step_ms=1_000)
        for name, rate in rates.items():
            attempt = plant.loop.executor.attempts[name]
            if attempt.state == "running":
                size = attempt.tasks
                value = rate(size)
                if unit == "epoch":
                    value = done[name] = done.get(name, 0.0) + rate(size) * EVERY_MS / 1000 / 1_000
                plant.cluster.report(
                    name, attempt.secret, {"step": plant.cluster.now_ms, "world_size": size, unit: value}
                )
                plant.settle()
        if teacher is not None:
            teacher.look()


done: dict[str, float] = {}


def two_in_turn(plant: Plant, unit: str) -> tuple[int, int]:
    """`flat` trains on one GPU until three come free, then on what it gets; `steep` comes later. What both have in the end."""
    done.clear()
    teacher = Teacher(plant)
    plant.submit("block", gpus=3, work=Program(runs_ms=100_000))
    trains(plant, "flat")
    train_on(plant, teacher, 200, {"flat": bad}, unit)
    trains(plant, "steep")
    train_on(plant, teacher, 200, {"flat": bad, "steep": good}, unit)
    return tasks(plant, "flat"), tasks(plant, "steep")


@pytest.mark.parametrize("unit", ["samples_per_s", "epoch"])
def test_who_scales_badly_does_not_get_what_another_makes_more_of(made: Plant, unit: str) -> None:
    assert two_in_turn(made, unit) == (1, 3)


@pytest.mark.parametrize(
    ("curve", "enough"),
    [(((1, 100), (2, 101)), False), (((3, 100),), False), (((3, 100), (4, 104)), False), (((3, 100), (4, 103)), True)],
    ids=["the present size is not known", "nothing larger", "a gain", "less than a resize costs"],
)
def test_enough_is_said_where_no_larger_size_would_pay(
    made: Plant, curve: tuple[tuple[int, int], ...], enough: bool
) -> None:
    made.submit("flat", gpus=4, min_tasks=1, max_tasks=3, work=Script(steps=10**6))
    made.until(lambda: made.state("flat") == "running", "flat to run")
    made.loop.engine.apply(Estimated("flat", goodput_milli=curve), made.cluster.now_ms)
    told = made.loop.learned.believed(made.loop.engine, "flat", made.cluster.now_ms)
    assert told is not None and told["enough"] is enough


def test_without_curves_who_came_first_keeps_what_it_has(made: Plant) -> None:
    """The same story with reports that say nothing about throughput: as if nothing were learned."""
    assert two_in_turn(made, "loss") == (3, 1)
    assert not estimates(made)


def test_too_few_reports_are_not_believed(made: Plant) -> None:
    trains(made, "flat")
    teacher = Teacher(made)
    train_on(made, teacher, 60, {"flat": bad})
    assert not estimates(made)
    train_on(made, teacher, 10, {"flat": bad})
    logged(made, 1)
    (told,) = estimates(made)
    assert told.goodput_milli == ((1, 35_334), (2, 70_667), (3, 106_000)), "what was never tried is taken for free"
    assert told.done_milli == 60 * 106_000


def test_what_is_believed_of_its_pace_is_told_in_its_unit(made: Plant) -> None:
    done.clear()
    trains(made, "flat")
    train_on(made, Teacher(made), 80, {"flat": lambda size: size * 1.0}, "epoch")
    told = made.loop.learned.believed(made.loop.engine, "flat", made.cluster.now_ms)
    assert told is not None and told["unit"] == "epochs" and told["rest_s"] is None
    assert [pace["tasks"] for pace in told["goodput"]] == [1, 2, 3] and told["goodput"][2]["per_s"] == pytest.approx(
        0.003
    )


def test_restarts_lose_nothing_and_repeat_nothing(made: Plant) -> None:
    trains(made, "flat", "steep")
    train_on(made, Teacher(made), 200, {"flat": bad, "steep": good})
    logged(made, 2)
    made.advance(5_000)
    known = {job: rec.goodput for job, rec in made.loop.engine.state.book.jobs.items()}
    count = len(estimates(made))
    assert all(known.values())
    assert Teacher(made).look() == 0, "a new process"
    made.restart_control()
    made.advance(1_000)
    assert not made.loop.engine.state.book.jobs["flat"].goodput
    teacher = Teacher(made)
    assert teacher.look() == 2
    logged(made, count + 2)
    assert teacher.look() == 0 and len(estimates(made)) == count + 2
    again = {job: rec.goodput for job, rec in made.loop.engine.state.book.jobs.items()}
    assert {job: dict(curve).keys() for job, curve in again.items()} == {
        job: dict(curve).keys() for job, curve in known.items()
    }
    with made.store.read() as session:
        assert replay(session)["differs"] is None
    made.until(teacher.follows, "the mirror to be the engine")
    assert teacher.mirror.engine.digest() == made.loop.engine.digest()


def test_a_steady_job_is_told_of_once(made: Plant) -> None:
    trains(made, "steep")
    teacher = Teacher(made)
    train_on(made, teacher, 600, {"steep": good})
    made.advance(1_000)
    curves = [event for event in estimates(made) if event.goodput_milli]
    assert len(curves) == 1 and len(estimates(made)) < 15, "work done is told as it grows by a quarter"
