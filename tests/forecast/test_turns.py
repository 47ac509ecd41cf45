"""Futures rank jobs like the live engine: by what is expected of them, which changes while they run."""

from __future__ import annotations

from dataclasses import replace

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.events import Estimated, JobCancelled, JobStarted, JobSubmitted, NodeUp
from heliostat_scheduler.core.model import JobSpec, NodeSpec, SlotSpec, TaskShape
from heliostat_scheduler.estimate.expectation import Expectations
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.forecast import Arrival, Course, Future, begun_jobs
from heliostat_scheduler.forecast.turns import Turns

MINUTE = 60_000
HOUR = 60 * MINUTE
NODE = NodeSpec("n", "gpu", (SlotSpec("s", 0),), cpu_milli=8_000, memory_bytes=1 << 34)


def job(job_id: str, template: str, at: int = 0) -> JobSpec:
    return JobSpec(job_id, "default", at, TaskShape(1000), 1, 1, template=template)


def learned(short_s: float = 300, long_s: float = 36_000) -> Expectations:
    """Ten short ones and ten long ones have finished."""
    expected = Expectations(RunHistory())
    for index in range(20):
        name, ran_s = f"old{index}", long_s if index % 2 else short_s
        expected.arrived(name, "default", 1000, "u/long" if index % 2 else "u/short")
        expected.started(name, 0)
        expected.finished(name, ran_s)
    return expected


def world(runs: str = "u/long", waits: str = "u/long") -> tuple[Engine, Expectations]:
    """One GPU, held by a job; another one waits."""
    engine, expected = Engine(), learned()
    engine.apply(NodeUp(NODE), 0)
    for name, template in (("runs", runs), ("waits", waits)):
        engine.apply(JobSubmitted(job(name, template)), 0)
        expected.arrived(name, "default", 1000, template)
        rest_ms = 10 * HOUR if template == "u/long" else 5 * MINUTE
        engine.apply(Estimated(name, remaining_ms=rest_ms, rank_ms=rest_ms), 0)
        if name == "runs":
            engine.decide(0)
            engine.apply(JobStarted("runs", 1), 0)
            expected.started("runs", 0)
    return engine, expected


def course(expected: Expectations | None, waits: str, comes: str) -> Course:
    engine, _ = world(waits=waits)
    coming = [Arrival(HOUR, job("comes", comes, HOUR), 5 * MINUTE)]
    return Future(engine, 0, lambda spec, _ran: 2 * HOUR, coming, expected=expected).run(20 * HOUR)


def test_who_comes_is_ranked_by_its_neighbours() -> None:
    told = course(world(waits="u/long")[1], "u/long", "u/short")
    assert told.starts["comes"] < told.starts["waits"]
    told = course(world(runs="u/short", waits="u/short")[1], "u/short", "u/long")
    assert told.starts["waits"] < told.starts["comes"]


def test_who_has_run_for_long_gives_way() -> None:
    """A short job that turned out long is asked to give way to one that is expected to be done soon."""
    engine, expected = world("u/short", "u/short")
    arrivals = [Arrival(at * HOUR, job(f"~{at}", "u/short", at * HOUR), MINUTE) for at in range(1, 9)]
    lengths = {"runs": 9 * HOUR, "waits": 4 * MINUTE}
    told = Future(engine, 0, lambda spec, _ran: lengths[spec.id], arrivals, expected=expected).run(10 * HOUR)
    assert told.starts["waits"] < 9 * HOUR and told.evictions[0].job_id == "runs"


def test_what_a_job_ran_before_it_was_stopped_counts_and_it_starts_again_at_its_restart_cost() -> None:
    engine, expected = Engine(), learned()
    engine.apply(NodeUp(NODE), 0)
    asked: dict[str, int] = {}

    def rest(spec: JobSpec, ran_ms: int) -> int:
        asked[spec.id] = ran_ms
        return HOUR

    for name in ("again", "stopped", "fresh"):
        engine.apply(JobSubmitted(replace(job(name, "u/long"), restart_cost_ms=7 * MINUTE)), 0)
        expected.arrived(name, "default", 1000, "u/long")
    for name, ran_h in (("again", 3), ("stopped", 2)):
        expected.history.has_run(name, 3600.0 * ran_h, 0)
    engine.decide(0)
    engine.apply(JobStarted("again", 1), 0)
    expected.started("again", 0)
    begun = [(spec.id, ran_ms) for spec, ran_ms in begun_jobs(engine, HOUR, expected)]
    assert begun == [("again", 4 * HOUR), ("stopped", 2 * HOUR)]
    assert [(spec.id, ran_ms) for spec, ran_ms in begun_jobs(engine, HOUR)] == [("again", HOUR)]
    told = Future(engine, HOUR, rest, expected=expected).run(20 * HOUR)
    assert asked == {"again": 4 * HOUR, "stopped": 2 * HOUR, "fresh": 0}
    spans = {name: told.ends[name] - told.starts.get(name, HOUR) for name in asked}
    assert spans == {"again": HOUR, "stopped": HOUR + 7 * MINUTE, "fresh": HOUR}


def test_the_expectations_that_a_future_was_given_stay_as_they_are() -> None:
    expected = world()[1]
    before = (sorted(expected.jobs()), dict(expected.told), expected.history.rest_s(["runs", "waits"], 60.0))
    course(expected, "u/long", "u/short")
    assert (sorted(expected.jobs()), dict(expected.told), expected.history.rest_s(["runs", "waits"], 60.0)) == before


def test_the_engine_says_who_is_there() -> None:
    """The expectations are a moment older: one job has gone since, one has come, one has started."""
    engine, expected = world()
    engine.apply(JobCancelled("waits"), 0)
    engine.apply(JobSubmitted(job("new", "u/short")), 0)
    turns = Turns(expected, engine, MINUTE)
    assert {event.job_id for event in turns.moved(MINUTE)} <= {"runs", "new"}
    late = learned()
    told = {event.job_id: event.rank_ms for event in Turns(late, engine, MINUTE).moved(2 * HOUR)}
    assert told["runs"] is not None and told["runs"] > (told["new"] or 0)
