"""Measured utilization moves GPUs, and only that does: somebody waits in the same queue, with the same class, over its quota."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.control.messages import QueuesTold, SlotsRead
from heliostat.store import queuefiles
from heliostat.store.tables import Metric
from heliostat_scheduler.core.model import Policy
from sqlalchemy import select

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant

WINDOW_MS = 10_000
POLICY = Policy()
LONG_MS = POLICY.idle_warmup_ms + POLICY.idle_after_ms + 10 * WINDOW_MS
QUEUES = "default: research\nqueues:\n  research: {quota: {gpu: 1}}\n"


def begin(make_plant: Callable[..., Plant]) -> Plant:
    """A training of one to four workers holds all four GPUs."""
    plant = make_plant(gpus=4, cpu_milli=8_000)
    plant.advance(1_000)
    plant.store.write(lambda session: queuefiles.put(session, QUEUES, actor="ann", now_ms=plant.cluster.now_ms))
    plant.post(QueuesTold())
    plant.submit("busy", gpus=4, work=Script(steps=10**6, checkpoint_every=1_000), min_tasks=1, queue="research")
    plant.until(lambda: plant.state("busy") == "running", "the training to run")
    return plant


def watch(plant: Plant, activity: int | None, *, progress: bool = False, during_ms: int = LONG_MS) -> None:
    """Telemetry windows with this activity (permille) on every GPU; None: no reading at all."""
    for window in range(during_ms // WINDOW_MS):
        attempt = plant.loop.executor.attempts["busy"]
        if progress:
            plant.cluster.report("busy", attempt.secret, {"step": window, "samples_per_s": 900.0})
        if activity is not None:
            plant.post(SlotsRead(dict.fromkeys(plant.cluster.slots, activity), WINDOW_MS))
        plant.advance(WINDOW_MS, WINDOW_MS // 2)


def held(plant: Plant) -> int:
    return len(plant.loop.executor.attempts["busy"].slots)


OUTCOMES = [
    pytest.param(0, False, True, 2, id="idle and no progress: it gives GPUs to who waits"),
    pytest.param(950, False, True, 4, id="busy: untouched"),
    pytest.param(0, True, True, 4, id="no activity but progress: untouched"),
    pytest.param(0, False, False, 4, id="nobody waits: untouched"),
    pytest.param(None, False, True, 4, id="no telemetry: untouched"),
]


@pytest.mark.parametrize(("activity", "progress", "waits", "left"), OUTCOMES)
def test_five_runs_five_outcomes(
    make_plant: Callable[..., Plant], activity: int | None, progress: bool, waits: bool, left: int
) -> None:
    plant = begin(make_plant)
    if waits:
        plant.submit("waiting", gpus=2, work=Script(runs_ms=10**7), queue="research")
        plant.advance(1_000)
        assert plant.state("waiting") == "queued"
    watch(plant, activity, progress=progress)
    assert held(plant) == left, plant.story()
    assert plant.job("busy").attempts == 1
    if waits:
        assert (plant.state("waiting") == "running") is (left < 4)


def test_what_was_measured_is_in_the_jobs_history(make_plant: Callable[..., Plant]) -> None:
    plant = begin(make_plant)
    watch(plant, 400, during_ms=2 * WINDOW_MS)
    with plant.store.read() as session:
        rows = session.execute(select(Metric).where(Metric.job == "busy")).scalars().all()
    mean = [row.value for row in rows if row.name == "gpu_utilization"]
    assert mean == [0.4, 0.4]
    assert sorted({row.name for row in rows}) == [
        "gpu_utilization",
        *(f"gpu_utilization/{slot}" for slot in sorted(plant.cluster.slots)),
    ]
