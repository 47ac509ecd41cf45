"""The real bridge over a real Ray passes the suite that the fake passes too. With token authentication."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from heliostat_scheduler.live import protocol as p

from tests.contracts.bridge_conformance import BridgeConformance
from tests.e2e.bridge_process import RealRig
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=8, num_gpus=2, token=True, dashboard=False)]


@pytest.fixture(scope="module")
def rig(ray_cluster: RayCluster) -> Iterator[RealRig]:
    rig = RealRig(ray_cluster)
    yield rig
    rig.close()


class TestRealBridge(BridgeConformance):
    pass


def test_a_look_before_attaching_knows_wheel_and_gpus(rig: RealRig, ray_cluster: RayCluster) -> None:
    argv = [sys.executable, "-m", "heliostat_scheduler.live.attach"]
    done = subprocess.run(argv, env=ray_cluster.environ(), capture_output=True, text=True, timeout=120, check=True)
    (node,) = json.loads(done.stdout)["nodes"]
    assert (node["node"], node["gpus"], node["gpus_in_use"]) == (rig.node(), 2, 0)
    assert node["wheel"] == version("heliostat")


def test_bye_leaves_the_cluster_as_it_was(rig: RealRig) -> None:
    """Last: no slot, no board and no process of ours is left, and the GPUs are anybody's."""
    rig.send(p.Bye(1, rig.term, remove_slots=True))
    assert rig.bridge.process is not None
    assert rig.bridge.process.wait(20) == 0
    assert "CREATED" not in rig.driver("groups").values()
    rig.driver("actor", name="anybody", gpus=2)
    assert rig.driver("who", name="anybody") is not None
    rig.bridge.start()
    assert "2 GPU" in next(f for f in reversed(rig.facts()) if isinstance(f, p.Ready)).strangers[0]
    rig.until(p.SlotTrouble, ok=False)
    rig.vacate("anybody")
    rig.until(p.SlotTrouble, ok=True)
