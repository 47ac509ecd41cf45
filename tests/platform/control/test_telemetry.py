"""Utilization by slot: what is read is charged, what is not read is unknown."""

from __future__ import annotations

from heliostat.control.messages import SlotsRead
from heliostat.control.telemetry import by_slot
from heliostat_scheduler.live.fake_cluster import Program
from heliostat_scheduler.live.protocol import NodeJoined, SlotRef

from tests.platform.control.plant import Plant

NODE = NodeJoined("n1", "10.0.0.1", "gpu", tuple(SlotRef(f"n1/{d}", "g", "n1", d) for d in (0, 1, 2)), 0, 0)


def test_readings_are_found_by_node_and_device() -> None:
    gpus = [{"index": 0, "utilizationGpu": 93}, {"index": 1, "utilizationGpu": None}]
    body = {
        "data": {"summary": [{"raylet": {"nodeId": "n1"}, "gpus": gpus}, {"raylet": {"nodeId": "n2"}, "gpus": gpus}]}
    }
    assert by_slot(body, [NODE]) == {"n1/0": 930}


def test_logical_gpus_have_no_reading() -> None:
    assert by_slot({"data": {"summary": [{"raylet": {"nodeId": "n1"}, "gpus": []}]}}, [NODE]) == {}


def test_what_was_read_is_charged_to_the_holder(plant: Plant) -> None:
    plant.submit("c1", work=Program(runs_ms=2_000))
    plant.until(lambda: plant.state("c1") == "running", "c1 to run")
    held = plant.loop.executor.attempts["c1"].slots[0].slot
    plant.post(SlotsRead({held: 500}, 1_000))
    plant.until(lambda: plant.state("c1") == "succeeded", "c1 to succeed")
    assert plant.job("c1").gpu_ms_used == 500


def test_without_a_reading_the_use_is_unknown(plant: Plant) -> None:
    plant.submit("c1", work=Program(runs_ms=300))
    plant.until(lambda: plant.state("c1") == "succeeded", "c1 to succeed")
    assert plant.job("c1").gpu_ms_used is None
