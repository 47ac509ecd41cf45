"""A gang over three raylets, and kill -9 of everything that a training stands on: it goes on by itself from its last checkpoint.

Each death prints what it cost: steps that were run again, and seconds from the kill to the first step after it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from heliostat import local
from heliostat.local import UpOptions, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import load
from heliostat_jobs.spec import STEPS_FILE, recount_run

from tests.e2e import test_control_plane as plane
from tests.e2e.ray_cluster import RayCluster, add_node, free_ports, kill_session
from tests.e2e.test_control_plane import House, kill

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

CHECKPOINT_EVERY = 50
UNSEEN = 15
"""Steps of 20 ms that run between a checkpoint and the moment the controller has counted it (polled every 0.2 s)."""
RECIPE = f"{sys.executable} -m heliostat_jobs.recipes.digits_cnn --epochs 400 --checkpoint-every {CHECKPOINT_EVERY} --step-ms 20"


class Trio(House):
    """A head with one logical GPU and two more raylets, with two and with one."""

    nodes: list[subprocess.Popen[bytes]]

    def run(self, job: str) -> Path:
        return self.settings.runs_dir / job

    def processes(self, job: str, word: str) -> list[psutil.Process]:
        """Of this job, with this word in their title."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()) and process.environ().get("HELIOSTAT_JOB") == job:
                    found.append(process)
        return found

    def trains(self, job: str, steps: int) -> None:
        """At least so many more lines of steps."""
        begin = len(rows(self.run(job)))
        self.wait(lambda: len(rows(self.run(job))) >= begin + steps, f"{steps} more steps of {job}", 240)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    patch = pytest.MonkeyPatch()
    patch.setattr(plane, "OPTIONS", UpOptions(gpus=1, object_store_bytes=200_000_000, port=free_ports(1)[0]))
    made = Trio(load(home=tmp_path_factory.mktemp("home") / "h", environ={}))
    try:
        made.up()
        record = records.read(made.settings.ray_state_path, RayRecord)
        assert record is not None
        env = {"RAY_ADDRESS": record.gcs_address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": record.token_path}
        temp = tmp_path_factory.mktemp("nodes")
        cluster = RayCluster(record.gcs_address, "", temp, 0, temp / "log", env=env)
        with ExitStack() as stack:
            made.nodes = []
            for gpus in (2, 1):  # one after the other: two raylets that start at once take the same sockets
                made.nodes.append(stack.enter_context(add_node(cluster, num_gpus=gpus)))
                made.wait(lambda: len(up(made)) == 1 + len(made.nodes), "the next node", 180)
            time.sleep(1.5)  # what the doors know of the cluster is up to a second old
            yield made
    finally:
        local.down(made.settings)
        patch.undo()
        assert local.leftovers(made.settings) == []


@pytest.fixture(scope="module")
def gang(house: Trio) -> Iterator[str]:
    """A training of exactly two workers that goes on through all deaths."""
    job = house.submit(kind="ray", entrypoint=f"{RECIPE} --workers 2", min_gpus=2, max_gpus=2)
    yield job
    with suppress(AssertionError):
        house.call("POST", f"/jobs/{job}/cancel")
        house.ended(job)


def up(house: House) -> list[dict[str, Any]]:  # Any: JSON
    return [node for node in house.call("GET", "/cluster")["nodes"] if node["state"] == "up" and node["slots"]]


def rows(run: Path) -> list[dict[str, Any]]:  # Any: JSON
    found = []
    for line in (run / STEPS_FILE).read_text().splitlines() if (run / STEPS_FILE).is_file() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


class Death:
    """What one death costs a training."""

    def __init__(self, house: Trio, job: str, who: str) -> None:
        self.house, self.job, self.who = house, job, who
        house.trains(job, 2 * CHECKPOINT_EVERY)
        self.before = recount_run(house.run(job))
        self.at = time.time()

    def survived(self, most: int = CHECKPOINT_EVERY + UNSEEN) -> None:
        """It trains again, with at most so many steps run again, none left out and none with another batch."""
        self.house.wait(
            lambda: self.again() is not None, f"{self.job} to train again after the death of {self.who}", 300
        )
        count = recount_run(self.house.run(self.job))
        recomputed = count.recomputed - self.before.recomputed
        again = self.again()
        assert again is not None
        attempts = self.house.job(self.job)["attempts"]
        print(
            f"\ndeath of {self.who}: {recomputed} steps recomputed, training again after {again - self.at:.1f} s, attempt {attempts}"
        )
        assert (count.missing, count.changed) == (0, 0)
        assert recomputed <= most, f"{recomputed} steps, checkpoints every {CHECKPOINT_EVERY}"

    def again(self) -> float | None:
        """When the first step ran after the pause, or (it may be short where processes are kept) in another world, once ten more have."""
        steps = rows(self.house.run(self.job))
        for n in range(1, len(steps)):
            before, after = steps[n - 1], steps[n]
            anew = after["at"] - before["at"] > 1.0 or after["world_size"] != before["world_size"]
            if after["at"] > self.at and anew:
                return float(after["at"]) if len(steps) > n + 10 else None
        return None


def test_ranks_of_a_gang_over_nodes_are_contiguous_on_each(house: Trio, tmp_path: Path) -> None:
    # node_rank and local_rank are not asked: Ray counts them by address, and the three raylets share one
    log = tmp_path / "ranks.jsonl"
    script = Path(__file__).parent / "scripts" / "rank_places.py"
    job = house.submit(kind="ray", entrypoint=f"{sys.executable} {script} {log} 4", min_gpus=4, max_gpus=4)
    assert house.ended(job)["state"] == "succeeded", house.log(job)
    ranks = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda row: int(row["rank"]))
    nodes = [row["node"] for row in ranks]
    assert [row["rank"] for row in ranks] == [0, 1, 2, 3] and len(set(nodes)) == 3
    assert nodes == sorted(nodes, key=nodes.index), "a node's ranks lie together"
    both = [row["gpus"] for row in ranks if nodes.count(row["node"]) == 2]
    assert both == [[0], [1]], "by device"


def test_a_rank(house: Trio, gang: str) -> None:
    death = Death(house, gang, "a rank")
    workers = house.processes(gang, "RayTrainWorker")
    assert len(workers) == 2, [process.cmdline() for process in house.processes(gang, "")]
    workers[0].kill()
    death.survived()
    assert house.job(gang)["attempts"] == 1, "Ray Train restarts its workers itself"


def test_the_driver(house: Trio, gang: str) -> None:
    death = Death(house, gang, "the driver")
    for driver in house.processes(gang, "heliostat_jobs.recipes.digits_cnn"):
        driver.kill()
    death.survived()
    assert house.job(gang)["attempts"] == 2


def test_a_raylet(house: Trio, gang: str) -> None:
    death = Death(house, gang, "a raylet")
    held = {node["id"] for node in up(house) if not node["is_head"] and gang in [slot["job"] for slot in node["slots"]]}
    leader = next(node for node in house.nodes if raylet_of(node, held))
    os.kill(raylet_of(leader, held), signal.SIGKILL)
    death.survived()
    kill_session(leader)
    house.wait(lambda: len(up(house)) == 2, "the dead node to be noticed", 60)


def test_the_control_plane_during_a_resize(house: Trio, gang: str) -> None:
    house.call("POST", f"/jobs/{gang}/cancel")
    house.ended(gang)
    job = house.submit(kind="ray", entrypoint=f"{RECIPE} --workers 1-2", min_gpus=1, max_gpus=2)
    death = Death(house, job, "the control plane in a resize")
    urgent = house.submit(kind="command", command=["sleep", "3"], gpus=1, priority="high")
    house.wait(lambda: house.job(job)["state"] == "resizing", "the order", 20)
    kill(records.read(house.settings.control_state_path, ControlRecord))
    assert house.up().started == ("control",)
    death.survived(most=0)
    assert house.ended(urgent)["state"] == "succeeded"
    assert house.job(job)["attempts"] == 1
    house.call("POST", f"/jobs/{job}/cancel")
    assert house.ended(job)["state"] == "cancelled"


def raylet_of(leader: subprocess.Popen[bytes], nodes: set[str]) -> int:
    """The raylet of this session, when its node is one of these; 0 otherwise."""
    for process in psutil.Process(leader.pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.name() == "raylet" and any(node in " ".join(process.cmdline()) for node in nodes):
                return process.pid
    return 0
