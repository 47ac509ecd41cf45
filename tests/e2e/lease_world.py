"""Slots, a lease board and drivers made by hand: the scheduler's side of Ray Train, for tests that give the orders themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from heliostat_scheduler.live.board_actor import LeaseBoard
from heliostat_scheduler.live.board_state import Said
from heliostat_scheduler.live.protocol import BOARD_NAME, NAMESPACE, RUN, Lease, SlotRef
from ray.util.placement_group import placement_group, placement_group_table

from tests.e2e.ray_cluster import RayCluster

TERM = 1
SECRET = "lease-secret"


@dataclass
class LeaseWorld:
    """One cluster with `slots`; `leases` holds what was last put on the board."""

    cluster: RayCluster
    board: Any
    slots: tuple[SlotRef, ...]
    leases: dict[str, Lease] = field(default_factory=dict)
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def grant(self, job: str, slots: tuple[SlotRef, ...] | None = None) -> Lease:
        """The next attempt's lease on these slots (all)."""
        held = self.slots if slots is None else slots
        old = self.leases.get(job)
        epoch, attempt = (old.epoch + 1, old.attempt + 1) if old else (1, 1)
        return self._put(Lease(job, attempt, epoch, "ray", RUN, SECRET, len(held), held))

    def order(self, job: str, order: str, deadline_s: float = 0, slots: tuple[SlotRef, ...] | None = None) -> Lease:
        """Raise the epoch with this order."""
        old = self.leases[job]
        deadline_ms = int((time.time() + deadline_s) * 1000) if deadline_s else 0
        held = old.slots if slots is None else slots
        return self._put(replace(old, epoch=old.epoch + 1, order=order, deadline_ms=deadline_ms, slots=held))

    def _put(self, lease: Lease) -> Lease:
        self.leases[lease.job] = lease
        ray.get(self.board.put.remote(TERM, lease), timeout=30)
        return lease

    def said(self, job: str) -> list[Said]:
        heard = ray.get(self.board.listen.remote("", 0, 0.0), timeout=30)
        return [said for said in heard.said if said.job == job]

    def wait_said(self, lease: Lease, what: str, driver: subprocess.Popen[bytes], limit_s: float = 120) -> Said:
        """The ack of this epoch."""
        found: list[Said] = []

        def look() -> bool:
            found[:] = [s for s in self.said(lease.job) if s.what == what and s.epoch == lease.epoch]
            return bool(found)

        wait_until(look, f"{what} of epoch {lease.epoch}", driver, limit_s)
        return found[-1]

    def start(self, lease: Lease, run_dir: Path, argv: list[str], **more: str) -> subprocess.Popen[bytes]:
        """A driver of this lease's attempt, with the environment that the front door gives it."""
        run_dir.mkdir(parents=True, exist_ok=True)
        variables = {
            "HELIOSTAT_JOB": lease.job,
            "HELIOSTAT_ATTEMPT": str(lease.attempt),
            "HELIOSTAT_LEASE_SECRET": SECRET,
            "HELIOSTAT_RUN_DIR": str(run_dir),
            **more,
        }
        runtime_env = json.dumps({"runtime_env": {"env_vars": variables}})
        environ = self.cluster.environ(**variables, RAY_JOB_CONFIG_JSON_ENV_VAR=runtime_env)
        return self._run(environ, run_dir / f"driver-{lease.attempt}.log", argv)

    def start_outside(self, folder: Path, argv: list[str]) -> subprocess.Popen[bytes]:
        """A driver that has never heard of the platform."""
        folder.mkdir(parents=True, exist_ok=True)
        return self._run(self.cluster.environ(), folder / "outside.log", argv)

    def _run(self, environ: dict[str, str], log_path: Path, argv: list[str]) -> subprocess.Popen[bytes]:
        with log_path.open("wb") as log:
            argv = [sys.executable, *argv]
            driver = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, start_new_session=True)
        self.drivers.append(driver)
        return driver

    def slot_states(self) -> list[str]:
        table = placement_group_table()
        return [table[slot.group]["state"] for slot in self.slots]

    def groups(self) -> set[str]:
        return set(placement_group_table())


@contextmanager
def lease_world(cluster: RayCluster, gpus: int, cpu_milli: int = 1000) -> Iterator[LeaseWorld]:
    """Connect to the cluster, make its slots and its board."""
    os.environ.update(cluster.env)
    ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
    try:
        options = {"name": BOARD_NAME, "lifetime": "detached", "max_restarts": -1}
        board = ray.remote(num_cpus=0)(LeaseBoard).options(**options).remote()
        ray.get(board.install.remote(TERM, ()), timeout=60)
        node = ray.get_runtime_context().get_node_id()
        bundle = {"GPU": 1.0, "CPU": cpu_milli / 1000}
        groups = [placement_group([bundle], name=f"test-slot:{i}", lifetime="detached") for i in range(gpus)]
        assert all(group.wait(30) for group in groups), "the slots were not created within 30 s"
        slots = tuple(SlotRef(f"{node[:12]}/{i}", group.id.hex(), node, i, cpu_milli) for i, group in enumerate(groups))
        world = LeaseWorld(cluster, board, slots)
        try:
            yield world
        finally:
            for driver in world.drivers:
                end(driver, signal.SIGKILL)
    finally:
        ray.shutdown()
        for name in cluster.env:
            os.environ.pop(name, None)


def wait_until(
    ready: Callable[[], bool],
    what: str,
    driver: subprocess.Popen[bytes] | None,
    limit_s: float = 120,
    every_s: float = 0.1,
) -> None:
    """Until it is so; fails when the driver ends or the time is over, naming what was awaited."""
    deadline = time.monotonic() + limit_s
    while not ready():
        if driver is not None and driver.poll() is not None and not ready():
            raise AssertionError(f"the driver ended with {driver.returncode} before: {what}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(every_s)


def end(driver: subprocess.Popen[bytes], signal_number: int) -> None:
    if driver.poll() is None:
        driver.send_signal(signal_number)
    driver.wait(30)


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
