"""Unmodified GPU work without Ray Train at the top: tasks, actors, Ray Data, fit() in a remote function. All of it in the lease's slots."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import list_actors, list_tasks

from tests.e2e.lease_world import LeaseWorld, end, lease_world, wait_until
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=6, num_gpus=3), pytest.mark.timeout(300)]

SCRIPT = str(Path(__file__).parent / "scripts" / "gpu_work.py")


@pytest.fixture(scope="module")
def world(ray_cluster: RayCluster) -> Iterator[LeaseWorld]:
    with lease_world(ray_cluster, gpus=3) as made:
        yield made


def answers(log: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"case"')]
    return {row["case"]: row["answer"] for row in rows}


def gpu_groups() -> set[str]:
    """Placement groups that Ray's tables name for any task or actor that asked for a GPU; `none` for those outside of one."""
    found = set()
    for row in [*list_tasks(detail=True, limit=5000), *list_actors(detail=True, limit=1000)]:
        asked = row["required_resources"] or {}
        named = {name.rpartition("_")[2] for name in asked if name.startswith("GPU_group_")}
        found |= named
        if not named and asked.get("GPU"):
            found.add(row["placement_group_id"] or "none")
    return found


def test_everything_with_a_gpu_runs_in_the_lease(world: LeaseWorld, tmp_path: Path) -> None:
    groups = world.groups()
    lease = world.grant("job-work", world.slots[1:])
    driver = world.start(lease, tmp_path, [SCRIPT, "tasks", "data", "fit"])
    assert driver.wait(200) == 0, (tmp_path / "driver-1.log").read_text()[-4000:]
    said = answers(tmp_path / "driver-1.log")
    assert sorted(said["tasks"]) == [[[1], "1"], [[1], "1"], [[2], "2"], [[2], "2"]]
    assert said["nested"] in ([[1], "1"], [[2], "2"])
    assert said["halves"] == [[1], [1], [2], [2]]
    assert said["data"]["sum"] == 64 * 63
    assert set(said["data"]["gpus"]) <= {1, 2}
    assert said["fit"]["size"] == 2
    assert gpu_groups() == {slot.group for slot in world.slots[1:]}
    assert world.groups() == groups


def test_the_same_script_past_the_platform_stays_pending(world: LeaseWorld, tmp_path: Path) -> None:
    driver = world.start_outside(tmp_path, [SCRIPT, "tasks"])
    job = ray.get_runtime_context().get_job_id()

    def pending() -> bool:
        rows = list_tasks(filters=[("name", "=", "gpu_task"), ("state", "=", "PENDING_NODE_ASSIGNMENT")], detail=True)
        return len([row for row in rows if row["job_id"] != job]) >= 4

    wait_until(pending, "the stranger's tasks to wait", driver)
    assert answers(tmp_path / "outside.log") == {}
    end(driver, signal.SIGKILL)


def test_a_job_without_gpus_is_told_the_line_to_add(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-undeclared", slots=())
    driver = world.start(lease, tmp_path, [SCRIPT, "tasks"])
    assert driver.wait(60) != 0
    text = (tmp_path / "driver-1.log").read_text()
    assert "UndeclaredGPU" in text and """--metadata-json '{"min_gpus": "1", "max_gpus": "1"}'""" in text
