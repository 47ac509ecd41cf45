"""At rest the loop sleeps: a hundred jobs that wait for a long one cost no cycles."""

from __future__ import annotations

from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.plant import Plant


def test_waiting_jobs_cost_no_cycles(plant: Plant) -> None:
    plant.submit("long", gpus=2, work=Program(runs_ms=None))
    for n in range(100):
        plant.submit(f"waits{n}", gpus=1, work=Program(runs_ms=100))
    plant.advance(10_000)
    before = plant.loop.cycles
    plant.advance(60_000, step_ms=500)
    assert plant.loop.cycles - before <= 6
    due_ms = plant.loop.turn()
    assert due_ms is not None and due_ms > plant.cluster.now_ms, "the loop would spin"
