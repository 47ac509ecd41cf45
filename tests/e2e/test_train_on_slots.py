"""Unmodified Ray Train programs in the slots of a lease: start, orders, hard kill, resume. Two logical GPUs, no platform."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from heliostat_jobs.spec import STEPS_FILE, read_result, recount_run
from heliostat_scheduler.live.protocol import PREEMPT, RELEASED, REVOKED, RUN, STARTED

from tests.e2e.lease_world import LeaseWorld, cpu_seconds, end, lease_world, lines, wait_until
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=6, num_gpus=2), pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parent / "scripts"
CHECKPOINT_EVERY = 50
UNSEEN = 60
"""Steps that may run between a checkpoint and the moment the controller counted it (0.2 s), plus the driver's own death."""
DIGITS = ["-m", "heliostat_jobs.recipes.digits_cnn", "--workers", "2", "--checkpoint-every", str(CHECKPOINT_EVERY)]


@pytest.fixture(scope="module")
def world(ray_cluster: RayCluster) -> Iterator[LeaseWorld]:
    with lease_world(ray_cluster, gpus=2) as made:
        yield made


@pytest.fixture(scope="module")
def stray(world: LeaseWorld) -> Any:
    """An actor past the platform that wants a GPU all the time."""

    class Stray:
        def started(self) -> bool:
            return True

    return ray.remote(num_cpus=0, num_gpus=1)(Stray).remote()


def has_started(actor: Any) -> bool:
    ready, _ = ray.wait([actor.started.remote()], timeout=0.5)
    return bool(ready)


def test_orders_and_resume(world: LeaseWorld, stray: Any, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", tmp_path / "run" / STEPS_FILE
    groups = world.groups()

    lease = world.grant("job-digits")
    driver = world.start(lease, run, [*DIGITS, "--epochs", "50"])
    started = world.wait_said(lease, STARTED, driver)
    assert [(rank["rank"], rank["slot"], rank["gpus"]) for rank in started.facts["ranks"]] == [
        (0, world.slots[0].slot, ["0"]),
        (1, world.slots[1].slot, ["1"]),
    ]
    wait_until(lambda: lines(steps) > 2 * CHECKPOINT_EVERY, "a hundred steps", driver)

    ordered_at = time.time()
    lease = world.order("job-digits", PREEMPT, deadline_s=60)
    released = world.wait_said(lease, RELEASED, driver)
    assert (released.facts["how"], released.facts["forced"]) == ("saved", False)
    assert released.facts["at_ms"] / 1000 - ordered_at < 5
    assert recount_run(run).recomputed == 0
    standing = lines(steps)
    controller = train_controller_pid()
    before = cpu_seconds(controller)
    time.sleep(2)  # a pause without workers costs next to nothing
    assert cpu_seconds(controller) - before < 0.3
    assert lines(steps) == standing and not has_started(stray)

    told_at = time.monotonic()
    end(driver, signal.SIGTERM)
    assert (driver.returncode, time.monotonic() - told_at < 3) == (143, True)
    lease = world.grant("job-digits")
    driver = world.start(lease, run, [*DIGITS, "--epochs", "50"])
    started = world.wait_said(lease, STARTED, driver)
    wait_until(lambda: lines(steps) > standing + 2 * CHECKPOINT_EVERY, "the second attempt's steps", driver)
    first_part = recount_run(run)
    assert (first_part.recomputed, first_part.missing) == (0, 0)

    world.order("job-digits", REVOKED)
    for rank in started.facts["ranks"]:
        with_suppressed_kill(rank["pid"])
    wait_until(lambda: not any(alive(rank["pid"]) for rank in started.facts["ranks"]), "the workers' end", driver)
    assert driver.poll() is None, "a revoked lease is not the program's failure"
    end(driver, signal.SIGKILL)

    lease = world.grant("job-digits")
    driver = world.start(lease, run, [*DIGITS, "--epochs", "50"])
    world.wait_said(lease, STARTED, driver)
    assert driver.wait(240) == 0, (run / f"driver-{lease.attempt}.log").read_text()[-3000:]
    count, result = recount_run(run), read_result(run)
    assert count.distinct == 50 * 29 and count.missing == 0 and count.changed == 0
    assert 0 <= count.recomputed <= CHECKPOINT_EVERY + UNSEEN
    assert result is not None and result.metrics["accuracy"] >= 0.95
    assert result.model is not None
    assert (run / result.model.path / "model.safetensors").stat().st_size > 100_000
    assert world.slot_states() == ["CREATED"] * 2 and world.groups() == groups
    assert not has_started(stray)


@pytest.mark.slow
def test_a_script_that_ignores_the_mark_is_ended_at_the_deadline_and_resumes_in_place(
    world: LeaseWorld, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "epochs.jsonl"
    lease = world.grant("job-plain")
    driver = world.start(lease, run, [str(SCRIPTS / "plain_torch.py"), str(log)])
    world.wait_said(lease, STARTED, driver)
    wait_until(lambda: lines(log) >= 22, "a checkpoint and two more epochs", driver)

    lease = world.order("job-plain", PREEMPT, deadline_s=1.0)
    released = world.wait_said(lease, RELEASED, driver)
    assert released.facts["how"] == "deadline"
    epochs_before = lines(log)

    lease = world.order("job-plain", RUN)
    world.wait_said(lease, STARTED, driver)
    assert driver.wait(240) == 0, (run / "driver-1.log").read_text()[-3000:]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(row["world_size"], row["device"]) for row in rows} == {(2, "cpu")}
    assert sorted({row["epoch"] for row in rows}) == list(range(60))
    assert rows[epochs_before]["epoch"] % 20 == 0, "it went on from its last periodic checkpoint"
    assert (run / "train" / "job-plain").is_dir(), "an unnamed run keeps its checkpoints under the job's name"
    assert world.slot_states() == ["CREATED"] * 2


@pytest.mark.slow
def test_a_range_of_workers_follows_the_lease_without_losing_a_step(world: LeaseWorld, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", tmp_path / "run" / STEPS_FILE
    groups = world.groups()
    lease = world.grant("job-elastic", world.slots[:1])
    argv = ["-m", "heliostat_jobs.recipes.digits_cnn", "--workers", "1-2", "--epochs", "30", "--step-ms", "80"]
    driver = world.start(lease, run, argv)
    for slots, how in ((world.slots, "grows"), (world.slots[1:], "saved")):
        world.wait_said(lease, STARTED, driver)
        ran = lines(steps)
        wait_until(lambda ran=ran: lines(steps) > ran + 60, "sixty steps", driver)  # type: ignore[misc]
        lease = world.order("job-elastic", RUN, deadline_s=60, slots=slots)
        assert world.wait_said(lease, RELEASED, driver).facts["how"] == how
    assert driver.wait(240) == 0, (run / "driver-1.log").read_text()[-3000:]
    count = recount_run(run)
    assert (count.distinct, count.recomputed, count.missing, count.changed) == (30 * 29, 0, 0, 0)
    sizes = [json.loads(line)["world_size"] for line in steps.read_text().splitlines()]
    assert [size for n, size in enumerate(sizes) if n == 0 or sizes[n - 1] != size] == [1, 2, 1]
    assert world.slot_states() == ["CREATED"] * 2 and world.groups() == groups


EXPECTED = {
    "cpu task": "7",
    "cpu actor": "pong",
    "a task with two gpus": "NeverFits",
    "a detached gpu actor": "NotYetSupported",
    "two gpus inside a task": "NeverFits",
    "slot resource": "ReservedResource",
    "gpu group": "NotYetSupported",
    "a trial with two gpus": "NeverFits",
    "too many workers": "WorkerCountMismatch",
    "too small a range": "WorkerCountMismatch",
    "two gpus for a worker": "NotYetSupported",
}


def test_refusals_reach_the_program(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-refused")
    driver = world.start(lease, tmp_path, [str(SCRIPTS / "refused.py")])
    assert driver.wait(240) == 0, (tmp_path / "driver-1.log").read_text()[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "driver-1.log").read_text().splitlines() if line.startswith("{")]
    assert {row["case"]: row.get("error", row.get("ok")) for row in rows} == EXPECTED


def test_undeclared_gpus_name_the_line_to_add(world: LeaseWorld, tmp_path: Path) -> None:
    lease = world.grant("job-undeclared", slots=())
    driver = world.start(lease, tmp_path, [str(SCRIPTS / "plain_torch.py"), str(tmp_path / "log")])
    assert driver.wait(240) != 0
    text = (tmp_path / "driver-1.log").read_text()
    assert "UndeclaredGPU" in text and """--metadata-json '{"min_gpus": "2", "max_gpus": "2"}'""" in text


def train_controller_pid() -> int:
    found = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    pids = [int(line.split()[0]) for line in found if "ray::SlotController" in line]
    assert len(pids) == 1, pids
    return pids[0]


def with_suppressed_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
