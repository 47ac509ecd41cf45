"""The mirror is the live engine, after every cycle and after restarts; a log that was changed is noticed."""

from __future__ import annotations

import pytest
from heliostat.forecasting.mirror import Diverged, Mirror
from heliostat.forecasting.replaying import in_another_process, replay
from heliostat.store.tables import DecisionLog
from heliostat_scheduler.live.fake_cluster import Program
from sqlalchemy import update

from tests.platform.control.plant import Plant
from tests.platform.forecasting.worlds import live


def test_a_mirror_follows_the_live_engine_also_over_a_restart(plant: Plant) -> None:
    mirror = Mirror(plant.store.read, digest=True)
    live(plant)
    assert mirror.catch_up() > 5
    assert mirror.engine.digest() == plant.loop.engine.digest()
    assert mirror.catch_up() == 0
    plant.restart_control()
    plant.advance(2_000)
    plant.submit("after", gpus=1, work=Program(runs_ms=500))
    plant.advance(500)
    mirror.catch_up()
    assert mirror.engine.digest() == plant.loop.engine.digest()


def test_a_mirror_that_starts_late_begins_at_the_newest_snapshot(plant: Plant) -> None:
    live(plant)
    plant.restart_control()
    plant.advance(2_000)
    mirror = Mirror(plant.store.read, digest=True)
    assert mirror.catch_up() < 10
    assert mirror.engine.digest() == plant.loop.engine.digest()


def tamper(plant: Plant) -> int:
    """Another state digest in the middle of the log; its cycle."""
    with plant.store.read() as session:
        cycles = [row.cycle for row in session.query(DecisionLog).order_by(DecisionLog.cycle)]
    chosen = cycles[len(cycles) // 2]
    plant.store.write(
        lambda session: session.execute(
            update(DecisionLog).where(DecisionLog.cycle == chosen).values(state_digest="0" * 64)
        )
    )
    return chosen


def test_another_state_than_the_recorded_one_is_told(plant: Plant) -> None:
    live(plant)
    chosen = tamper(plant)
    with pytest.raises(Diverged) as caught:
        Mirror(plant.store.read, digest=True).catch_up()
    assert caught.value.cycle == chosen


def test_a_replay_in_other_processes_and_hash_seeds_comes_to_the_same_bytes(plant: Plant) -> None:
    live(plant)
    plant.restart_control()
    plant.advance(2_000)
    url = plant.store.url
    told = [in_another_process(url, None, None, seed, 60) for seed in (1, 4_294_967_295)]
    assert [row["differs"] for row in told] == [None, None]
    assert told[0]["cycles"] == told[1]["cycles"] > 10
    assert told[0]["to"] == plant.loop.cycles


def test_a_replay_of_a_part_begins_at_a_snapshot_before_it(plant: Plant) -> None:
    live(plant)
    with plant.store.read() as session:
        told = replay(session, 4, 9)
    assert (told["from"], told["to"], told["cycles"], told["differs"]) == (4, 9, 6, None)
    assert told["skipped"] == 3


def test_a_replay_of_cycles_that_there_are_not_says_so(plant: Plant) -> None:
    live(plant)
    newest = plant.loop.cycles
    with plant.store.read() as session:
        for first, last in ((newest + 5, None), (9, 4)):
            told = replay(session, first, last)
            assert (told["cycles"], told["differs"]) == (0, None)
            assert told["why"].startswith("cycles ") and f"to {newest} are recorded, none from {first}" in told["why"]


def test_a_replay_names_the_first_cycle_that_differs(plant: Plant) -> None:
    live(plant)
    chosen = tamper(plant)
    with plant.store.read() as session:
        told = replay(session)
    assert (told["differs"], told["why"]) == (chosen, "the same decisions, but another state")
