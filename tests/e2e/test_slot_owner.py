"""A driver that came through Ray's Jobs API owns the slots of its attempt: `<job>-a<attempt>` is its submission id.

Also here, because it ends the cluster: a bridge whose Ray is gone ends by itself, so that its parent can start another.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from heliostat_scheduler.live import protocol as p

from tests.contracts.bridge_conformance import ask, end, lease_of
from tests.e2e.bridge_process import RealRig
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=6, num_gpus=1, token=True)]

DRIVER = """
import ray, sys, time
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Strategy
ray.init(log_to_driver=False)
@ray.remote(num_cpus=0, num_gpus=1)
class Worker:
    def sit(self):
        time.sleep(5)
        return ray.get_gpu_ids()
group = PlacementGroup(ray.PlacementGroupID(bytes.fromhex(sys.argv[1])))
print(ray.get(Worker.options(scheduling_strategy=Strategy(group, 0)).remote().sit.remote()))
"""


@pytest.fixture(scope="module")
def rig(ray_cluster: RayCluster) -> Iterator[RealRig]:
    rig = RealRig(ray_cluster)
    yield rig
    rig.driver.process.kill()
    if rig.bridge.process is not None and rig.bridge.process.poll() is None:
        rig.bridge.close()


def submit(cluster: RayCluster, submission_id: str, group: str) -> str:
    """Run the driver above to its end; its final status."""
    path = cluster.temp_dir / "driver.py"
    path.write_text(DRIVER)
    body = {"entrypoint": f"{sys.executable} {path} {group}", "submission_id": submission_id}
    with httpx.Client(base_url=cluster.dashboard, headers=cluster.headers(), timeout=60, trust_env=False) as http:
        http.post("/api/jobs/", json=body).raise_for_status()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            status = str(http.get(f"/api/jobs/{submission_id}").json()["status"])
            if status in ("SUCCEEDED", "FAILED", "STOPPED"):
                return status
            time.sleep(0.3)
    raise AssertionError(f"{submission_id} did not end within 120 s")


def test_the_attempts_driver_may_use_its_slot_and_an_older_one_may_not(rig: RealRig, ray_cluster: RayCluster) -> None:
    slot = rig.slots()[0]
    ask(rig, p.PutLease, lease=lease_of(rig, "job-x", [slot], attempt=2))
    assert submit(ray_cluster, "job-x-a2", slot.group) == "SUCCEEDED"
    assert not [fact for fact in rig.facts() if isinstance(fact, p.Intruder)]
    assert submit(ray_cluster, "job-x-a1", slot.group) == "FAILED"
    assert rig.until(p.Intruder).owner_job == "job-x"
    end(rig, "job-x", 1)


def test_a_bridge_whose_ray_is_gone_ends(rig: RealRig, ray_cluster: RayCluster) -> None:
    for pid in ray_cluster.processes():
        with suppress(ProcessLookupError):  # killing its parent may have ended it already
            os.kill(pid, signal.SIGKILL)
    assert rig.bridge.process is not None
    assert rig.bridge.process.wait(60) != 0
