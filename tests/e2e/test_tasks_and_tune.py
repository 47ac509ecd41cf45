"""Unmodified Ray programs besides Train, all GPU work in the lease's slots: tasks, actors, Data, fit() in a remote function, Tune.

Under Tune a shrunk lease pauses the worst trial, growth resumes it, and the next attempt goes on with the search.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from heliostat_scheduler.live.protocol import CHECKPOINTED, DEMAND, NAMESPACE, PREEMPT, RELEASED, RUN, STARTED
from heliostat_scheduler.live.ray_private import RayTables
from ray.util.placement_group import placement_group_table
from ray.util.state import list_actors, list_tasks

from tests.e2e.lease_world import LeaseWorld, end, lease_world, lines, wait_until
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=9, num_gpus=3), pytest.mark.timeout(400)]

SCRIPTS = Path(__file__).parent / "scripts"
WORK, SEARCH, STEPS = str(SCRIPTS / "gpu_work.py"), str(SCRIPTS / "search.py"), "40"


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
    driver = world.start(lease, tmp_path, [WORK, "tasks", "data"])
    assert driver.wait(200) == 0, (tmp_path / "driver-1.log").read_text()[-4000:]
    said = answers(tmp_path / "driver-1.log")
    assert sorted(said["tasks"]) == [[[1], "1"], [[1], "1"], [[2], "2"], [[2], "2"]]
    assert said["nested"] in ([[1], "1"], [[2], "2"])
    assert said["halves"] == [[1], [1], [2], [2]]
    assert said["data"]["sum"] == 64 * 63
    assert set(said["data"]["gpus"]) <= {1, 2}
    assert gpu_groups() == {slot.group for slot in world.slots[1:]}
    assert world.groups() == groups


@pytest.mark.slow
def test_a_program_that_declared_nothing_asks_and_waits(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-asks", slots=())
    driver = world.start(lease, tmp_path, [WORK, "fit"], HELIOSTAT_DISCOVER="1")
    asked = world.wait_said(lease, DEMAND, driver)
    assert (asked.facts["min_gpus"], asked.facts["max_gpus"]) == (2, 2)
    world.order("job-asks", RUN, slots=world.slots[1:])
    assert driver.wait(100) == 0, (tmp_path / "driver-1.log").read_text()[-4000:]
    assert answers(tmp_path / "driver-1.log")["fit"]["size"] == 2
    assert gpu_groups() == {slot.group for slot in world.slots[1:]}


@pytest.mark.slow
def test_the_same_scripts_past_the_platform_stay_pending(world: LeaseWorld, tmp_path: Path) -> None:
    groups = world.groups()
    work = world.start_outside(tmp_path, [WORK, "tasks"])
    search = world.start_outside(tmp_path / "search", [SEARCH, "function", str(tmp_path / "steps.jsonl"), STEPS])
    trainer = world.start_outside(tmp_path / "trainer", [SEARCH, "trainer", str(tmp_path / "more.jsonl"), STEPS])
    stage = world.start_outside(tmp_path / "data", [WORK, "data"])
    remote = world.start_outside(tmp_path / "fit", [WORK, "fit"])
    drivers = {"tasks": work, "Tune": search, "a trainer in a trial": trainer, "Data": stage, "fit() in a task": remote}
    job = ray.get_runtime_context().get_job_id()

    def tasks_wait() -> bool:
        found = list_tasks(filters=[("name", "=", "gpu_task"), ("state", "=", "PENDING_NODE_ASSIGNMENT")], detail=True)
        return len([row for row in found if row["job_id"] != job]) >= 4

    def groups_wait(count: int) -> bool:
        """Two searches (of one trial each at least) and the trainer of fit() wait for groups."""
        states = [row["state"] for group, row in placement_group_table().items() if group not in groups]
        return states.count("PENDING") >= count

    def stage_waits() -> bool:
        found = list_actors(filters=[("state", "=", "PENDING_CREATION")], detail=True)
        return any("MapBatches" in row["class_name"] or "MapWorker" in row["class_name"] for row in found)

    wait_until(tasks_wait, "the stranger's tasks to wait", work)
    wait_until(lambda: groups_wait(3), "the strangers' trials and workers to wait", search)
    wait_until(stage_waits, "the stranger's stage of Data to wait", stage)
    time.sleep(5)
    assert {name: driver.poll() for name, driver in drivers.items()} == dict.fromkeys(drivers), "they all wait"
    told = {folder: answers(tmp_path / folder / "outside.log") for folder in (".", "data", "fit")}
    assert told == {".": {}, "data": {}, "fit": {}}
    assert not rows(tmp_path / "steps.jsonl") and not rows(tmp_path / "more.jsonl")
    for driver in drivers.values():
        end(driver, signal.SIGKILL)


def test_a_job_without_gpus_is_told_the_line_to_add(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-undeclared", slots=())
    driver = world.start(lease, tmp_path, [WORK, "tasks"])
    assert driver.wait(60) != 0
    text = (tmp_path / "driver-1.log").read_text()
    assert "UndeclaredGPU" in text and """--metadata-json '{"min_gpus": "1", "max_gpus": "1"}'""" in text


def rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def results(driver: subprocess.Popen[bytes], log: Path, limit_s: float = 150) -> list[dict[str, Any]]:
    assert driver.wait(limit_s) == 0, log.read_text()[-5000:]
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"results"')]
    return [row for line in found for row in line["results"]]


def no_step_twice(log: Path, key: str, steps: int) -> None:
    seen = Counter((row[key], row["step"]) for row in rows(log))
    assert [step for step, times in seen.items() if times > 1] == []
    assert Counter(name for name, _ in seen) == dict.fromkeys({row[key] for row in rows(log)}, steps)


def test_trials_follow_the_lease_and_the_next_attempt_goes_on(world: LeaseWorld, tmp_path: Path) -> None:
    run, log, groups = tmp_path / "run", tmp_path / "steps.jsonl", world.groups()
    lease = world.grant("job-search", world.slots[:2])
    driver = world.start(lease, run, [SEARCH, "function", str(log), STEPS])
    world.wait_said(lease, STARTED, driver)
    wait_until(lambda: {row["lr"] for row in rows(log)} == {0.1, 0.2}, "two trials at work", driver)
    wait_until(lambda: lines(log) > 12, "a few steps", driver)

    worse = next(row["gpus"][0] for row in reversed(rows(log)) if row["lr"] == 0.1)
    lease = world.order("job-search", RUN, deadline_s=30, slots=(world.slots[worse],))
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    wait_until(lambda: (rows(log)[-1]["lr"], rows(log)[-1]["gpus"]) == (0.2, [worse]), "the better trial there", driver)
    at = lines(log)
    wait_until(lambda: lines(log) > at + 6, "the better trial to go on", driver)
    assert {(row["lr"], tuple(row["gpus"])) for row in rows(log)[at:]} == {(0.2, (worse,))}

    lease = world.order("job-search", RUN, deadline_s=30, slots=world.slots[:2])
    wait_until(lambda: 0.1 in {row["lr"] for row in rows(log)[at:]}, "the paused trial to resume", driver)

    lease = world.order("job-search", PREEMPT, deadline_s=30)
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    assert world.wait_said(lease, CHECKPOINTED, driver).facts["checkpoint"]
    at = lines(log)
    end(driver, signal.SIGTERM)

    lease = world.grant("job-search", world.slots[:2])
    driver = world.start(lease, run, [SEARCH, "function", str(log), STEPS])
    found = results(driver, run / "driver-2.log")
    assert [(row["lr"], row["iterations"], row["error"]) for row in found] == [(lr, 40, None) for lr in (0.1, 0.2, 0.3)]
    assert lines(log) == 120 > at
    no_step_twice(log, "lr", 40)
    assert world.slot_states() == ["CREATED"] * 3
    assert {group for group in world.groups() if group not in groups} == set(), "no group was made for a trial"


def test_rays_table_of_processes_says_who_lives(world: LeaseWorld) -> None:
    """What claims end by: a task's or actor's process, and a driver's."""
    context = ray.get_runtime_context()

    @ray.remote(num_cpus=0)
    class Process:
        def id(self) -> str:
            return str(ray.get_runtime_context().get_worker_id())

    async def living() -> set[str]:
        return await RayTables(context.gcs_address).living_workers(ids.values())

    actors = [Process.remote(), Process.remote()]  # type: ignore[attr-defined]
    kept, killed = ray.get([actor.id.remote() for actor in actors])
    ids = {"driver": context.get_worker_id(), "kept": kept, "killed": killed, "unknown": "ab" * 28}
    assert asyncio.run(living()) == {ids["driver"], kept, killed}
    ray.kill(actors[1])
    wait_until(lambda: asyncio.run(living()) == {ids["driver"], kept}, "the killed process to be known as dead", None)


@pytest.mark.slow
def test_a_search_without_a_tuner_goes_on_in_the_next_attempt(world: LeaseWorld, tmp_path: Path) -> None:
    """`tune.run` of a trainable class that saves when asked; its processes pass from trial to trial."""
    log = tmp_path / "steps.jsonl"
    lease = world.grant("job-run", world.slots[:2])
    driver = world.start(lease, tmp_path, [SEARCH, "run", str(log), "20"])
    wait_until(lambda: {row["lr"] for row in rows(log)} == {0.1, 0.2}, "two trials at work", driver)
    wait_until(lambda: lines(log) > 12, "a few steps", driver)
    lease = world.order("job-run", RUN, deadline_s=30, slots=world.slots[1:2])
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    at = lines(log)
    wait_until(lambda: lines(log) > at + 3, "the better trial to go on", driver)
    lease = world.order("job-run", PREEMPT, deadline_s=30)
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    end(driver, signal.SIGTERM)

    lease = world.grant("job-run", world.slots[:2])
    driver = world.start(lease, tmp_path, [SEARCH, "run", str(log), "20"])
    found = results(driver, tmp_path / "driver-2.log")
    assert [(row["lr"], row["iterations"], row["error"]) for row in found] == [(lr, 20, None) for lr in (0.1, 0.2, 0.3)]
    no_step_twice(log, "lr", 20)


@pytest.mark.slow
def test_a_search_whose_broker_dies_ends_as_a_crash(world: LeaseWorld, tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    lease = world.grant("job-broker", world.slots[:1])
    driver = world.start(lease, tmp_path, [SEARCH, "function", str(log), STEPS])
    wait_until(lambda: lines(log) > 2, "a few steps", driver)
    ray.kill(ray.get_actor("heliostat-slots:job-broker:1", namespace=NAMESPACE))
    assert driver.wait(60) == 137
    text = (tmp_path / "driver-1.log").read_text()
    assert "BrokerLost" in text and "slots of job job-broker has died" in text


@pytest.mark.slow
def test_a_trainer_inside_a_trial_takes_its_workers_from_the_same_lease(world: LeaseWorld, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "steps.jsonl"
    lease = world.grant("job-trainers", world.slots[:2])
    driver = world.start(lease, run, [SEARCH, "trainer", str(log), "60"])
    wait_until(
        lambda: [row["lr"] for row in rows(log)].count(0.2) > 15, "the second trainer at work and ranked", driver
    )
    assert {tuple(row["gpus"]) for row in rows(log)} == {(0,), (1,)}

    lease = world.order("job-trainers", RUN, deadline_s=30, slots=world.slots[:1])
    world.wait_said(lease, RELEASED, driver)
    at = lines(log)
    wait_until(lambda: lines(log) > at + 6, "the better trial to go on", driver)
    assert {(row["lr"], tuple(row["gpus"])) for row in rows(log)[at + 1 :]} == {(0.2, (0,))}

    world.order("job-trainers", RUN, deadline_s=30, slots=world.slots[:2])
    found = results(driver, run / "driver-1.log")
    assert [(row["lr"], row["error"]) for row in found] == [(0.1, None), (0.2, None)]
    no_step_twice(log, "lr", 60)


@pytest.mark.slow
def test_schedulers_of_tune_work_as_they_are(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-schedulers", world.slots[:1])
    driver = world.start(lease, tmp_path, [SEARCH, "asha,pbt", str(tmp_path / "steps.jsonl"), "6"])
    found = results(driver, tmp_path / "driver-1.log")
    assert [(row["kind"], row["error"]) for row in found] == [("asha", None)] * 2 + [("pbt", None)] * 2
    assert {kind: max(row["iterations"] for row in found if row["kind"] == kind) for kind in ("asha", "pbt")} == {
        "asha": 6,
        "pbt": 6,
    }
    assert {gpu for row in rows(tmp_path / "steps.jsonl") for gpu in row["gpus"]} == {0}
