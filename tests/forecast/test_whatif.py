"""What a what-if says is what then happens: the edit is applied in the recorded day, and the same jobs start at the same times."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import Event, JobCancelled, JobChanged, JobSubmitted
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast import whatif
from heliostat_scheduler.forecast.future import Course

from tests.forecast.day import HOUR_MS, POLICY, Day, at_noon, evening, new_job

DAY_SEED = 1
EDITS = range(50)
AT_EACH_LANDING = 10
"""As many edits are judged by `make test`; all of them by `make e2e`."""
NOON = 12 * HOUR_MS
UNTIL = 40 * HOUR_MS


def draw(engine: Engine, rng: random.Random) -> tuple[list[Event], int]:
    """A seeded edit, and the length of the job that it submits."""
    kind = rng.choice(("quota", "job", "nodes", "policy", "cancel", "cancel", "priority"))
    jobs = sorted(engine.state.book.jobs)
    match kind:
        case "quota":
            return whatif.set_quota(engine, rng.choice(("research", "prod", "students")), rng.randrange(11)), 0
        case "job":
            spec, runs_ms = new_job(rng)
            return whatif.submit(engine, spec), runs_ms
        case "nodes":
            return whatif.add_nodes(engine, rng.randrange(1, 3), "gpu", rng.choice((2, 4))), 0
        case "policy":
            return whatif.set_policy(
                replace(POLICY, reclaim=rng.random() < 0.3, preempt=rng.random() < 0.5, backfill=False)
            ), 0
        case "cancel":
            return whatif.cancel(engine, rng.choice(jobs)), 0
        case _:
            waiting = sorted(engine.state.waiting.keys) or jobs
            spec = engine.state.book.jobs[rng.choice(waiting)].spec
            return [JobChanged(replace(spec, priority=rng.choice((50, 150, 200))))], 0


@cache
def noon_snapshot() -> bytes:
    """The form in which another process would get the engine."""
    return at_noon(DAY_SEED).drive.engine.snapshot()


@cache
def unedited() -> Course:
    day = at_noon(DAY_SEED)
    return whatif.course_of(Engine.restore(noon_snapshot()), NOON, day.rest, day.coming(), UNTIL - NOON)


@cache
def foretold(seed: int) -> tuple[list[Event], int, Course, whatif.Verdict]:
    """The edit of a seed, the length of the job that it submits, the edited future, and the difference."""
    day = at_noon(DAY_SEED)
    engine = Engine.restore(noon_snapshot())
    edit, runs_ms = draw(engine, random.Random(seed))

    def rest(spec: JobSpec, ran_ms: int) -> int:
        return runs_ms if spec.id == "new" else day.rest(spec, ran_ms)

    edited = whatif.course_of(engine, NOON, rest, day.coming(), UNTIL - NOON, edit)
    return edit, runs_ms, edited, whatif.compare(unedited(), edited, engine, edit)


def happened(edit: list[Event], runs_ms: int, day_seed: int = DAY_SEED) -> Day:
    """The day again, with the edit applied at noon."""
    day = at_noon(day_seed)
    for event in edit:
        if isinstance(event, JobSubmitted):
            day.left[event.job.id], day.specs[event.job.id] = runs_ms, event.job
    day.edit(edit)
    day.run(UNTIL)
    return day


def starts_after_noon(day: Day) -> dict[str, int]:
    """Each job's first start after noon; those that ran at noon only if they had to start again."""
    return {job: later[0] for job, at in day.starts.items() if (later := [ms for ms in at if ms >= NOON])}


def test_a_day_has_waiting_running_and_coming_jobs_at_noon() -> None:
    day = at_noon(DAY_SEED)
    assert len(day.ends) > 3 and len(day.drive.engine.state.waiting.keys) > 5 and len(day.coming()) > 20


def test_the_future_without_an_edit_is_the_rest_of_the_day() -> None:
    day = evening(DAY_SEED, UNTIL)
    assert unedited().starts == starts_after_noon(day)
    assert [(e.at_ms, e.job_id) for e in unedited().evictions] == [pair for pair in day.evicted if pair[0] >= NOON]


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= AT_EACH_LANDING else []) for seed in EDITS]
)
def test_who_starts_earlier_or_later_is_what_happens(seed: int) -> None:
    edit, runs_ms, edited, verdict = foretold(seed)
    as_it_was = starts_after_noon(evening(DAY_SEED, UNTIL))
    day = happened(edit, runs_ms)
    as_edited = starts_after_noon(day)
    told_to_end = {event.job_id for event in edit if isinstance(event, JobCancelled)}
    moved = {
        job for job in as_it_was.keys() | as_edited.keys() if as_it_was.get(job) != as_edited.get(job)
    } - told_to_end
    earlier = {job for job in moved if as_edited.get(job, UNTIL + 1) < as_it_was.get(job, UNTIL + 1)}
    assert edited.starts == as_edited
    assert {shift.job_id for shift in verdict.earlier} == earlier
    assert {shift.job_id for shift in verdict.later} == moved - earlier
    stopped = [(at_ms, job) for at_ms, job in day.evicted if at_ms >= NOON and job not in told_to_end]
    assert [(e.at_ms, e.job_id) for e in edited.evictions] == stopped


@pytest.mark.slow
def test_the_edits_are_of_all_kinds_and_most_of_them_matter() -> None:
    drawn = [foretold(seed) for seed in EDITS]
    assert len({type(edit[0]).__name__ for edit, _, _, _ in drawn}) == 6
    assert sum(bool(verdict.shifts) for _, _, _, verdict in drawn) >= 30


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(lambda e: whatif.set_quota(e, "nobody", 3), "no queue nobody", id="a quota of an unknown queue"),
        pytest.param(lambda e: whatif.cancel(e, "nothing"), "neither waits nor runs", id="the end of an unknown job"),
        pytest.param(lambda e: whatif.add_nodes(e, 0, "gpu", 8), "at least one node", id="no node"),
    ],
)
def test_an_impossible_edit_says_why(edit, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(whatif.BadEdit, match=words):
        edit(at_noon(DAY_SEED).drive.engine)
