"""Ray's autoscaler and a whole control plane: a waiting job brings a node, an idle one leaves, a dying one leaves no demand.

Ray's own provider for tests starts each node as raylets on this machine. One cluster, in order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from heliostat import connect, local
from heliostat.local import UpOptions
from heliostat.settings import load
from heliostat_scheduler.live.protocol import WANTED_PREFIX

from tests.e2e.ray_cluster import RayCluster, start_ray
from tests.e2e.ray_driver import RayDriver
from tests.e2e.test_control_plane import OPTIONS, House

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

BUDGET = 2
QUEUES = f"""\
queues:
  default: {{quota: unlimited}}
nodes:
  auto: {{gpus: 2, cpus: 4, max: {BUDGET}, idle: 8s, join: 3m}}
"""
NODE = {"resources": {"CPU": 4, "GPU": 2, "object_store_memory": 80_000_000},
        "labels": {"heliostat/flavor": "auto"}, "max_workers": 6}  # fmt: skip
HOLD = ["/bin/sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.2; done']


class Site(House):
    """The installation on the autoscaled cluster."""

    def __init__(self, cluster: RayCluster, home: Path) -> None:
        super().__init__(load(home=home, environ={}))
        self.cluster = cluster
        self.driver = RayDriver(cluster)
        self._lock = threading.Lock()
        self._head: list[int] = []
        self.peaks: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)

    def up(self) -> local.Running:
        path = self.settings.ray_token_path
        path.parent.mkdir(parents=True)
        path.write_text(self.cluster.token)
        path.chmod(0o600)
        options = UpOptions(address=self.cluster.address, dashboard=self.cluster.dashboard, port=OPTIONS.port)
        running = local.up(self.settings, options)
        self._head = raylets(self.cluster)
        token = self.settings.admin_token_path.read_text().strip()
        connect(running.control.url, token=token).apply_queues(QUEUES)
        self._watch.start()
        return running

    def close(self) -> None:
        local.down(self.settings)
        self._stop.set()
        if self._watch.ident is not None:
            self._watch.join(10)
        self.driver.close()

    def _sample(self) -> None:
        """(demand that Ray sees, nodes that are there), four times a second."""
        while not self._stop.wait(0.25):
            self.peaks.append((self.demand(), len(self.raylets())))

    def demand(self) -> int:
        with self._lock:
            groups = self.driver("groups").items()
        return sum(name.startswith(WANTED_PREFIX) and state in ("PENDING", "RESCHEDULING") for name, state in groups)

    def raylets(self) -> list[int]:
        """Of the autoscaler's nodes."""
        return [pid for pid in raylets(self.cluster) if pid not in self._head]

    def nodes(self) -> list[dict[str, Any]]:  # Any: JSON
        """The autoscaler's nodes that are up."""
        shown = self.call("GET", "/cluster")["nodes"]
        return [node for node in shown if node["flavor"] == "auto" and node["state"] not in ("lost", "down")]

    def pool(self) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = self.call("GET", "/cluster")["pools"][0]
        return found

    def hold(self, gate: Path, **more: Any) -> str:  # Any: JSON
        """A job that ends when the file `gate` is there."""
        return self.submit(kind="command", command=[*HOLD, str(gate)], flavor="auto", **more)

    def code(self, job: str) -> str:
        return str(self.call("GET", f"/jobs/{job}/explanation")["code"])


def raylets(cluster: RayCluster) -> list[int]:
    found = []
    for pid in cluster.processes():
        with suppress(psutil.Error):
            if psutil.Process(pid).name() == "raylet":
                found.append(pid)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with start_ray(num_cpus=4, token=True, node_types={"auto": NODE}) as cluster:
        made = Site(cluster, tmp_path_factory.mktemp("home") / "h")
        try:
            made.up()
            yield made
        finally:
            made.close()


def test_a_waiting_job_brings_a_node_which_leaves_when_it_is_idle(site: Site, tmp_path: Path) -> None:
    began = time.monotonic()
    job = site.hold(tmp_path / "gate", gpus=2)
    site.wait(lambda: site.code(job) == "NodeJoining", "the job to say that a node is on its way")
    site.wait(lambda: site.job(job)["state"] == "running", "the job to run")
    ran = time.monotonic() - began
    (node,) = site.nodes()
    assert node["labels"]["heliostat/flavor"] == "auto"
    assert ([slot["job"] for slot in node["slots"]], site.demand()) == ([job, job], 0)
    (tmp_path / "gate").touch()
    assert site.ended(job)["state"] == "succeeded"
    (idle,) = site.nodes()
    assert len(idle["slots"]) == 2, "its GPUs are in slots, so for Ray it is never idle"
    ended = time.monotonic()
    site.wait(lambda: not site.nodes(), "the idle node to leave")
    site.wait(lambda: not site.raylets(), "its raylet to end")
    print(
        f"\nnode joined and job ran {ran:.1f} s after the submission; node gone {time.monotonic() - ended:.1f} s after the job"
    )


def test_demand_never_exceeds_the_budget(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs = [site.hold(gate, gpus=2) for _ in range(BUDGET + 2)]
    site.wait(
        lambda: sum(site.job(job)["state"] == "running" for job in jobs) == BUDGET, "as many as there may be nodes"
    )
    left = [job for job in jobs if site.job(job)["state"] != "running"]
    site.wait(lambda: "nodes that flavor auto may have are there" in site.call("GET", f"/jobs/{left[0]}/explanation")["sentence"],
              "the others to say why")  # fmt: skip
    assert (site.demand(), len(site.raylets())) == (0, BUDGET)
    gate.touch()
    for job in jobs:
        assert site.ended(job)["state"] == "succeeded"
    site.wait(lambda: not site.raylets(), "the idle nodes to leave")
    assert max(demand for demand, _ in site.peaks) == BUDGET, "both were asked for at once"
    assert max(nodes for _, nodes in site.peaks) == BUDGET


def test_a_node_that_dies_while_joining_leaves_no_demand(site: Site, tmp_path: Path) -> None:
    job = site.hold(tmp_path / "gate", gpus=2)
    site.wait(lambda: bool(site.raylets()), "a node to be started")
    for raylet in site.raylets():
        os.kill(raylet, signal.SIGKILL)
    site.call("POST", f"/jobs/{job}/cancel")
    site.wait(lambda: site.demand() == 0 and site.pool()["missing"] == 0, "the demand to be withdrawn", 10)
    time.sleep(12)  # several rounds of Ray's autoscaler
    assert (site.demand(), site.raylets(), site.pool()["nodes"]) == (0, [], 0)


def test_a_job_whose_node_died_while_joining_gets_another(site: Site, tmp_path: Path) -> None:
    job = site.hold(tmp_path / "gate", gpus=2)
    site.wait(lambda: bool(site.raylets()), "a node to be started")
    for raylet in site.raylets():
        os.kill(raylet, signal.SIGKILL)
    site.wait(lambda: site.job(job)["state"] == "running", "the job to run on another")
    assert len(site.nodes()) == 1
    (tmp_path / "gate").touch()
    assert site.ended(job)["state"] == "succeeded"
    assert max(nodes + demand for demand, nodes in site.peaks) <= BUDGET + 1, (
        "one may be seen twice in the moment it joins"
    )
