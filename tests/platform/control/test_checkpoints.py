"""When the last checkpoint was decides what an eviction costs: the engine knows it from progress and acks, also after a restart."""

from __future__ import annotations

from heliostat.control.messages import BridgeSaid
from heliostat_scheduler.core.harm import lost_ms
from heliostat_scheduler.live.fake_bridge import FakeBridge
from heliostat_scheduler.live.protocol import Progress, Ready

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def cost_ms(plant: Plant) -> int:
    return lost_ms(plant.loop.engine.state.book.jobs["train"], plant.cluster.now_ms)


def test_a_checkpoint_lowers_the_cost_of_an_eviction_and_outlives_a_restart(plant: Plant) -> None:
    plant.submit("train", gpus=1, work=Script(steps=100_000))
    plant.until(lambda: plant.state("train") == "running", "train to run")
    plant.advance(60_000, step_ms=1_000)
    before = cost_ms(plant)
    assert before > 60_000
    secret = plant.loop.executor.attempts["train"].secret
    at_ms = plant.cluster.now_ms - 5_000
    plant.cluster.report("train", secret, {"step": 9, "checkpoint_at_ms": at_ms})
    plant.settle()
    assert cost_ms(plant) == 10_000 + 5_000
    plant.restart_control()
    plant.advance(2_000)
    assert cost_ms(plant) == 10_000 + 7_000


def test_words_that_come_before_the_lease_are_not_lost(plant: Plant) -> None:
    """After a restart the board repeats what was said last, perhaps before the engine has its leases again."""
    plant.submit("train", gpus=1, work=Script(steps=100_000))
    plant.until(lambda: plant.state("train") == "running", "train to run")
    plant.advance(60_000, step_ms=1_000)
    plant.restart_control()
    plant.cluster.advance(1_000)
    plant.bridge, plant.bridge_starts_at = FakeBridge(plant.cluster), None
    ready, *others = plant.bridge.take()
    assert isinstance(ready, Ready)
    words = Progress("train", 1, {"step": 9, "checkpoint_at_ms": plant.cluster.now_ms})
    for fact in (ready, words):
        plant.post(BridgeSaid(fact))
        plant.loop.turn()
    assert "train" not in plant.loop.engine.state.book.jobs
    for other in others:
        plant.post(BridgeSaid(other))
    plant.advance(1_000)
    assert cost_ms(plant) == 10_000 + 1_000
    assert not [entry for entry in plant.logged if entry[1] == "event_refused"]
