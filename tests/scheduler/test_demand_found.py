"""A program that declared nothing says what it needs: its lease is void, and it waits at its old place for what it asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat_scheduler.core import IllegalEvent, JobSpec, ReasonCode, TaskShape
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import World, job, node, queue

ASKED = job("quiet", 2, tasks=1)


def running(*queues: str) -> World:
    made = World([node("n", 2, cpu_milli=8_000)], [queue(name, -1) for name in queues or ("default",)])
    made.submit(job("quiet", 0, shape=TaskShape(cpu_milli=1_000)))
    made.step()
    assert made.runs("quiet")
    made.now = 5_000
    return made


def found(made: World, spec: JobSpec, epoch: int | None = None) -> None:
    made.apply(ev.DemandFound("quiet", made.epoch("quiet") if epoch is None else epoch, spec))
    made.gone("quiet")
    made.specs["quiet"] = spec


def test_it_waits_for_what_it_asked_for_with_a_new_epoch() -> None:
    made = running()
    epoch = made.epoch("quiet")
    found(made, ASKED)
    rec = made.engine.state.book.jobs["quiet"]
    assert (made.engine.phase("quiet"), made.epoch("quiet"), rec.spec, rec.places) == ("waiting", epoch + 1, ASKED, ())
    made.step()
    assert len(made.held["quiet"]) == 1 and made.engine.phase("quiet") == "running"


def test_it_keeps_its_place_in_the_queue() -> None:
    made = running()
    made.submit(job("later", 2, at=1_000))
    found(made, ASKED)
    made.step()
    assert made.running() == ["quiet"]
    why = made.engine.reason("later")
    assert why is not None and why.code is ReasonCode.INSUFFICIENT_FREE


def test_of_an_older_lease_nothing_is_heard() -> None:
    made = running()
    before = made.engine.digest()
    with pytest.raises(IllegalEvent, match="DemandFound"):
        found(made, ASKED, epoch=made.epoch("quiet") - 1)
    assert made.engine.digest() == before


def test_a_demand_moves_nobody_to_another_queue() -> None:
    made = running("default", "other")
    with pytest.raises(IllegalEvent, match="DemandFound: job quiet is running in queue default"):
        found(made, replace(ASKED, queue="other"))


def test_whoever_waits_has_no_lease_to_ask_from() -> None:
    made = running()
    found(made, ASKED)
    with pytest.raises(IllegalEvent, match="DemandFound"):
        found(made, ASKED)


def test_a_demand_that_nobody_could_have_is_told_as_such() -> None:
    made = running()
    found(made, replace(ASKED, min_tasks=3, max_tasks=3))
    made.step()
    why = made.engine.reason("quiet")
    assert why is not None and why.code is ReasonCode.NEVER_FITS and not made.held


def test_whoever_is_being_cancelled_asks_for_nothing() -> None:
    made = running()
    made.cancel("quiet")
    with pytest.raises(IllegalEvent, match="DemandFound"):
        found(made, ASKED)
