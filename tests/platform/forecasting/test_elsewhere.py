"""A job that would start sooner in another queue, though not at once, is told so; and what is told then happens."""

from __future__ import annotations

import pytest
from heliostat.forecasting import questions
from heliostat.forecasting.elsewhere import sooner_elsewhere
from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.decisions import Start
from heliostat_scheduler.core.events import JobChanged, JobFinished, JobRestored, JobSubmitted
from heliostat_scheduler.core.model import JobSpec, Policy, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.forecast import Correction, Lengths, Ran
from heliostat_scheduler.forecast.whatif import EXACT_BELOW
from heliostat_scheduler.simulator.drive import uniform_nodes

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
ENDS = {"long": 60 * MINUTE, "short": 4 * MINUTE}


def job(job_id: str, queue: str) -> JobSpec:
    return JobSpec(job_id, queue, 0, TaskShape(1000), 1, 1)


def rest(spec: JobSpec, _ran_ms: int) -> int:
    return ENDS.get(spec.id, 30 * MINUTE)


def world() -> tuple[Engine, JobSpec]:
    """A GPU of `research` is busy for an hour, the one of `burst`, which lends nothing, for four minutes."""
    queues = (
        QueueSpec("research", quota=(("gpu", 1000),)),
        QueueSpec("burst", quota=(("gpu", 1000),), lending_limit=(("gpu", 0),)),
    )
    engine = Engine(Policy(), queues)
    for event in uniform_nodes(1, 2):
        engine.apply(event, 0)
    for device, (name, queue) in enumerate((("long", "research"), ("short", "burst"))):
        places = (TaskPlace("n00000", (f"n00000/{device}",)),)
        engine.apply(JobRestored(job(name, queue), 1, 1, places, True, 0), 0)
    me = job("me", "research")
    engine.apply(JobSubmitted(me), 0)
    engine.decide(0)
    return engine, me


def test_the_queue_where_it_starts_sooner_is_told_with_the_time() -> None:
    engine, me = world()
    before = engine.digest()
    told = sooner_elsewhere(engine, me, rest, 0, DAY, None, lambda: False)
    assert engine.digest() == before, "nothing live is touched"
    assert told is not None and (told.command, told.at_ms, told.evicts) == (
        "helio edit me --queue burst",
        4 * MINUTE,
        (),
    )


def test_what_is_told_happens() -> None:
    engine, _ = world()
    engine.apply(JobChanged(job("me", "burst")), 0)
    assert not engine.decide(3 * MINUTE).decisions
    engine.apply(JobFinished("short", 1, "succeeded"), 4 * MINUTE)
    assert [(type(order), order.job_id) for order in engine.decide(4 * MINUTE).decisions] == [(Start, "me")]


@pytest.mark.parametrize(
    ("ends", "enough"),
    [
        pytest.param(
            {"long": 60 * MINUTE, "short": 50 * MINUTE}, False, id="ten minutes of an hour are not worth a move"
        ),
        pytest.param({"long": 80_000, "short": 25_000}, False, id="less than a minute neither"),
        pytest.param(ENDS, True, id="no time to look"),
    ],
)
def test_nothing_is_told(ends: dict[str, int], enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENDS, "long", ends["long"])
    monkeypatch.setitem(ENDS, "short", ends["short"])
    engine, me = world()
    assert sooner_elsewhere(engine, me, rest, 0, DAY, None, lambda: enough) is None


@pytest.mark.parametrize(
    ("waiting", "sooner", "told", "open"),
    [
        pytest.param(0, False, True, False, id="few wait: told at once"),
        pytest.param(EXACT_BELOW, False, False, True, id="many wait: the rest comes first"),
        pytest.param(EXACT_BELOW, True, True, False, id="many wait: told to whoever asks on"),
    ],
)
def test_an_explanation_does_not_wait_for_it_when_many_wait(waiting: int, sooner: bool, told: bool, open: bool) -> None:
    engine, me = world()
    for index in range(waiting):
        engine.apply(JobSubmitted(job(f"z{index:03}", "research")), 0)
    engine.decide(0)
    finished = [Ran("research", "", 1000, 60 * MINUTE) for _ in range(9)] + [Ran("burst", "", 1000, 4 * MINUTE)] * 9
    known = questions.Known(Lengths(finished), (), Correction(), ("gpu",))
    why = questions.explain(engine, known, {"job_id": me.id, "sooner": sooner}, 0)
    assert why["open"] is open
    assert any(remedy["action"] == "change_queue" for remedy in why["remedies"]) is told, why["remedies"]


def test_nothing_is_promised_while_nothing_is_known_of_run_times() -> None:
    engine, me = world()
    known = questions.Known(Lengths(()), (), Correction(), ("gpu",))
    why = questions.explain(engine, known, {"job_id": me.id, "sooner": True}, 0)
    assert why["open"] is False and all(remedy["action"] != "change_queue" for remedy in why["remedies"])
