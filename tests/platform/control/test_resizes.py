"""Live resizes: a Train job borrows every GPU, gives some up for production, and takes them back; nothing dies, or everything does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from heliostat.control.messages import QueuesTold
from heliostat.store import queuefiles
from heliostat.store.tables import Event, LeaseSpan
from heliostat_scheduler.live.fake_cluster import Program
from sqlalchemy import select

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Crash, Plant

STEPS = 700
CHECKPOINT_EVERY = 20
STORY_MS = 48_000
GIVEN_BACK_MS = 34_000
"""Growth comes at the earliest a resize interval (30 s) after the last resize."""
QUEUES = """\
default: research
queues:
  research: {weight: 1}
  production: {quota: {gpu: 2}, priority: 200}
"""
MakePlant = Callable[..., Plant]


def begin(make_plant: MakePlant, script: Script | None = None, *, fewest: int = 1) -> Plant:
    plant = make_plant(gpus=4, cpu_milli=8_000)
    plant.advance(1_000)
    plant.store.write(lambda session: queuefiles.put(session, QUEUES, actor="ann", now_ms=plant.cluster.now_ms))
    plant.post(QueuesTold())
    plant.advance(100)
    work = script or Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, again_ms=500)
    plant.submit("train", gpus=4, work=work, min_tasks=fewest, queue="research")
    return plant


def until_running(plant: Plant) -> None:
    plant.until(lambda: len(plant.ray.executed) >= 30, "thirty steps on four GPUs")


def production(plant: Plant, runs_ms: int = 2_000) -> None:
    plant.submit("gang", gpus=2, work=Program(runs_ms=runs_ms), queue="production")


def resizes(plant: Plant) -> list[dict[str, Any]]:  # Any: JSON
    with plant.store.read() as session:
        query = select(Event).where(Event.job == "train", Event.kind == "job_moved").order_by(Event.seq)
        rows = session.execute(query).scalars().all()
    return [row.data for row in rows if row.from_state == "resizing" and row.to_state == "running"]


def sizes(plant: Plant) -> list[int]:
    return [size for job, _, size in plant.ray.sizes if job == "train"]


def recomputed(plant: Plant) -> int:
    done = Counter(step for job, step in plant.ray.executed if job == "train")
    assert set(done) == set(range(1, STEPS + 1)), "a step is missing"
    return sum(done.values()) - len(done)


def finish(plant: Plant) -> None:
    for job in ("gang", "train"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed", 300_000)  # type: ignore[misc]
    plant.advance(2_000)
    plant.check_quiet()


def test_research_borrows_all_gives_two_up_and_takes_them_back(make_plant: MakePlant) -> None:
    plant = begin(make_plant)
    until_running(plant)
    ordered = plant.cluster.now_ms
    production(plant)
    plant.until(lambda: plant.state("gang") == "running", "production to run", 1_500)
    assert plant.state("train") in ("resizing", "running") and plant.job("train").attempts == 1
    plant.until(lambda: len(resizes(plant)) == 1, "the shrink to be complete")
    plant.until(lambda: len(resizes(plant)) == 2, "research to take its GPUs back")
    assert plant.cluster.now_ms - ordered > GIVEN_BACK_MS - 4_000
    finish(plant)
    assert sizes(plant) == [4, 2, 4] and recomputed(plant) == 0
    shrink, growth = resizes(plant)
    assert (shrink["from"], shrink["to"], growth["from"], growth["to"]) == (4, 2, 2, 4)
    assert (shrink["kept"], shrink["warm"], shrink["plain_because"]) == (1, 0, ""), "as the runner said"
    assert 0 <= shrink["checkpoint_s"] <= shrink["released_s"] <= shrink["started_s"] < 2
    assert plant.states("train") == [
        "admitted", "starting", "running", "resizing", "running", "resizing", "running", "succeeded",
    ]  # fmt: skip


def test_each_slot_is_charged_for_as_long_as_it_was_held(make_plant: MakePlant) -> None:
    plant = begin(make_plant)
    until_running(plant)
    production(plant, runs_ms=5_000)
    finish(plant)
    with plant.store.read() as session:
        spans = session.execute(select(LeaseSpan)).scalars().all()
    assert all(span.to_ms is not None for span in spans)
    by_slot: dict[str, list[LeaseSpan]] = {}
    for span in sorted(spans, key=lambda span: span.from_ms):
        by_slot.setdefault(span.slot, []).append(span)
    for held in by_slot.values():
        ends = [span.to_ms for span in held]
        assert all(span.from_ms >= end for end, span in zip(ends, held[1:], strict=False) if end is not None)
    train = [span for span in spans if span.job == "train"]
    assert len(train) == 6, "four from the start, two of them again"
    assert plant.job("train").gpu_ms_held == sum(span.to_ms - span.from_ms for span in train if span.to_ms)


def test_a_script_that_never_looks_is_ended_at_the_deadline_and_goes_on_from_its_last_checkpoint(
    make_plant: MakePlant,
) -> None:
    script = Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, obeys=False)
    plant = begin(make_plant, script)
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("gang") == "running", "production to run")
    finish(plant)
    assert plant.job("train").attempts == 1
    assert 0 < recomputed(plant) <= 2 * CHECKPOINT_EVERY


def test_a_runner_that_hangs_loses_its_slots_the_hard_way(make_plant: MakePlant) -> None:
    script = Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, hangs=True)
    plant = begin(make_plant, script)
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("gang") == "running", "production to run")
    assert plant.attempts("train")[0].outcome == "resize_overdue"
    finish(plant)
    assert recomputed(plant) <= CHECKPOINT_EVERY


def test_a_driver_outside_of_fit_is_resized_at_once(make_plant: MakePlant) -> None:
    plant = begin(make_plant, Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, fit_ms=8_000))
    plant.until(lambda: plant.state("train") == "running", "the driver to run")
    production(plant)
    plant.until(lambda: plant.state("gang") == "running", "production to run", 1_500)
    assert plant.state("train") == "running" and not sizes(plant)
    finish(plant)
    assert sizes(plant)[0] == 2 and recomputed(plant) == 0


def test_a_lease_below_the_minimum_is_preempted_not_shrunk(make_plant: MakePlant) -> None:
    plant = begin(make_plant, fewest=4)
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("train") == "queued", "research to be preempted")
    finish(plant)
    assert not resizes(plant)


def test_a_slot_that_went_away_before_the_order_leaves_the_lease_as_it_was(make_plant: MakePlant) -> None:
    plant = begin(make_plant)
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("gang") == "succeeded", "production to succeed")
    assert plant.bridge is not None
    for slot in [s for s, ref in plant.cluster.slots.items() if ref.device > 1]:
        ref = plant.cluster.slots[slot]
        plant.cluster.slots[slot] = type(ref)(ref.slot, "f" * 32, ref.node, ref.device)
    plant.advance(40_000, 500)
    with plant.store.read() as session:
        refused = session.execute(select(Event).where(Event.kind == "resize_refused")).scalars().all()
    assert refused and "unknown_slot" in refused[0].data["why"]
    assert plant.state("train") == "running"
    plant.until(lambda: plant.state("train") == "succeeded", "research to go on with two", 300_000)
    assert recomputed(plant) == 0


def test_cancelled_in_the_middle_of_a_resize(make_plant: MakePlant) -> None:
    plant = begin(make_plant)
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("train") == "resizing", "the order")
    plant.ask("cancel", "train")
    for job, state in (("train", "cancelled"), ("gang", "succeeded")):
        plant.until(lambda job=job, state=state: plant.state(job) == state, f"{job} {state}")  # type: ignore[misc]
    plant.advance(2_000)
    plant.check_quiet()


def test_preempted_in_the_middle_of_a_resize(make_plant: MakePlant) -> None:
    plant = begin(make_plant, Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, obeys=False))
    until_running(plant)
    production(plant)
    plant.until(lambda: plant.state("train") == "resizing", "the order")
    plant.submit("urgent", gpus=4, work=Program(runs_ms=500), queue="research", priority=200)
    plant.advance(3_000)
    for job in ("urgent", "gang", "train"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed", 300_000)  # type: ignore[misc]
    plant.advance(2_000)
    plant.check_quiet()
    recomputed(plant)


# ---- the failure matrix -------------------------------------------------------------------------------------------------

VICTIMS = ("bridge", "board", "driver", "control", "head")
MOMENTS = (0, 50, 100, 250, 600)
"""Milliseconds after production came: before the order, under it, after `released`, after `started`."""
GROWTH_MOMENTS = (31_000, 31_800)


@pytest.mark.parametrize("at_ms", (*MOMENTS, *GROWTH_MOMENTS))
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_death_in_the_middle_of_a_resize_costs_at_most_a_checkpoint_interval(
    make_plant: MakePlant, victim: str, at_ms: int
) -> None:
    plant = begin(make_plant)
    until_running(plant)
    production(plant)
    plant.advance(at_ms, 50)
    kill(plant, victim)
    finish(plant)
    assert recomputed(plant) <= CHECKPOINT_EVERY


def kill(plant: Plant, victim: str) -> None:
    match victim:
        case "bridge":
            plant.kill_bridge()
        case "board":
            plant.cluster.kill_board()
        case "driver":
            for driver in list(plant.ray.drivers.values()):
                plant.ray.kill(driver.submission.submission_id)
        case "control":
            plant.restart_control()
        case _:
            plant.kill_head()
            plant.advance(2_500)
            plant.start_head()


@pytest.mark.parametrize("n", range(1, 30, 4))
def test_the_control_plane_dies_at_any_act_of_a_resize(make_plant: MakePlant, n: int) -> None:
    plant = begin(make_plant)
    until_running(plant)
    production(plant)
    plant.fuse.left = n
    died = 0
    end = plant.cluster.now_ms + STORY_MS
    while plant.cluster.now_ms < end:
        try:
            plant.advance(50)
        except Crash:
            died += 1
            plant.restart_control()
    assert died == 1
    finish(plant)
    assert recomputed(plant) <= CHECKPOINT_EVERY
