"""Estimates in the store: the first stays, the present one moves, the start is noted; and what the report makes of them."""

from __future__ import annotations

import pytest
from heliostat.forecasting import keeping, knowledge
from heliostat.forecasting.link import Eta, _moved
from heliostat.store.forecast_tables import Forecast
from heliostat.store.tables import Job
from heliostat_scheduler.core.model import JobSpec, TaskShape
from heliostat_scheduler.forecast import Estimate
from sqlalchemy import select, update

from tests.platform.control.plant import Plant
from tests.platform.forecasting.worlds import live

MINUTE = 60_000


def forecast(plant: Plant, job: str) -> Forecast:
    with plant.store.read() as session:
        return session.execute(select(Forecast).where(Forecast.job == job)).scalar_one()


def test_the_first_estimate_stays_and_the_present_one_moves(plant: Plant) -> None:
    live(plant)
    plant.store.write(lambda session: keeping.keep(session, 1_000, [["late", "default", 500, 900, 400, 800, 16, 0]]))
    plant.store.write(lambda session: keeping.keep(session, 2_000, [["late", "default", 100, None, 90, None, 8, 0]]))
    row = forecast(plant, "late")
    assert (row.first_ms, row.first_p50_ms, row.first_p90_ms, row.raw_p50_ms, row.raw_p90_ms) == (
        1_000,
        1_500,
        1_900,
        1_400,
        1_800,
    )
    assert (row.made_ms, row.p50_ms, row.p90_ms, row.samples, row.started_ms) == (2_000, 2_100, None, 8, None)


def test_the_start_is_noted_and_scored(plant: Plant) -> None:
    live(plant)
    with plant.store.read() as session:
        started = session.execute(select(Job.first_started_ms).where(Job.id == "urgent")).scalar_one()
    assert started is not None
    rows = [["urgent", "default", 40, 90, 30, 80, 16, 0], ["late", "default", 1, 2, 1, 2, 16, 0]]
    plant.store.write(lambda session: keeping.keep(session, started - 100, rows))
    plant.store.write(keeping.note_starts)
    assert forecast(plant, "urgent").started_ms == started
    assert forecast(plant, "late").started_ms is None
    with plant.store.read() as session:
        (scored,) = knowledge.scored(session)
        assert knowledge.scored(session, "elsewhere") == []
    assert (scored.queue, scored.waited_ms, scored.p50_ms, scored.p90_ms) == ("default", 100, 40, 90)


def test_an_estimate_that_was_a_guess_counts_apart_and_teaches_nothing(plant: Plant) -> None:
    live(plant)
    with plant.store.read() as session:
        started = session.execute(select(Job.first_started_ms).where(Job.id == "urgent")).scalar_one()
    assert started is not None
    plant.store.write(
        lambda session: keeping.keep(session, started - 100, [["urgent", "default", 40, 90, 30, 80, 16, 2]])
    )
    plant.store.write(
        lambda session: keeping.keep(session, started - 50, [["urgent", "default", 40, 90, 30, 80, 16, 0]])
    )
    plant.store.write(keeping.note_starts)
    row = forecast(plant, "urgent")
    assert (row.first_unknown, row.unknown) == (2, 0), "what it was told first is what counts"
    with plant.store.read() as session:
        assert knowledge.scored(session) == [] and len(knowledge.scored(session, guessed=True)) == 1


def test_lengths_are_learned_from_what_finished(plant: Plant) -> None:
    live(plant)
    plant.store.write(
        lambda session: session.execute(update(Job).where(Job.state == "succeeded").values(ran_ms=7 * MINUTE))
    )
    with plant.store.read() as session:
        lengths, recent = knowledge.lengths(session), knowledge.recent(session, plant.cluster.now_ms)
    assert lengths.rest_ms(JobSpec("x", "default", 0, TaskShape(1000)), 0, 0.5) == 7 * MINUTE
    assert [spec.id for spec in recent] == ["train", "urgent", "long", "late"]


def test_the_correction_is_learned_from_raw_estimates(plant: Plant) -> None:
    live(plant)

    def past(session) -> None:  # type: ignore[no-untyped-def]
        for index in range(40):
            session.add(
                Forecast(job=f"p{index}", queue="default", first_ms=index, first_p50_ms=index, first_p90_ms=index, raw_p50_ms=index + 9 * MINUTE,
                         raw_p90_ms=index + 9 * MINUTE, made_ms=index, samples=5, started_ms=index + 19 * MINUTE)
            )  # fmt: skip

    plant.store.write(past)
    with plant.store.read() as session:
        corrected = knowledge.correction(session).correct(Estimate("j", "default", 9 * MINUTE, 9 * MINUTE, 5))
    assert corrected.p50_ms == pytest.approx(19 * MINUTE, rel=0.01)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(None, Eta(0, 5, 9), True, id="a first estimate"),
        pytest.param(Eta(0, 10 * MINUTE, 20 * MINUTE), Eta(MINUTE, 10 * MINUTE, 20 * MINUTE), False, id="nothing new"),
        pytest.param(Eta(0, 10 * MINUTE, 20 * MINUTE), Eta(0, 12 * MINUTE, 20 * MINUTE), True, id="minutes earlier or later"),
        pytest.param(Eta(0, 600 * MINUTE, 620 * MINUTE), Eta(0, 610 * MINUTE, 620 * MINUTE), False, id="little of a long wait"),
        pytest.param(Eta(0, 10 * MINUTE, None), Eta(0, 10 * MINUTE, 20 * MINUTE), True, id="within the horizon from now on"),
    ],
)  # fmt: skip
def test_only_what_is_new_or_has_moved_is_written(before: Eta | None, now: Eta, expected: bool) -> None:
    assert _moved(before, now) is expected
