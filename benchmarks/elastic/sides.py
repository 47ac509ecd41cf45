"""One run of each side through the same sizes: on slots with orders, and stock Ray Train with its coordinator."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from heliostat_scheduler.live.protocol import RELEASED, RUN
from ray.util.state import list_actors

from benchmarks.elastic.steps import Change, StepWatch, change
from tests.e2e.lease_world import end, lease_world, wait_until
from tests.e2e.ray_cluster import start_ray

START, SIZES, SLOTS = 2, (4, 1, 2), 4
DWELL_S = 5.0
LIMIT_S = 150.0
DEADLINE_S = 60.0
STOCK_DEFAULT_S = 60.0
WORKER_CLASS = "RayTrainWorker"
SCRIPT = ["-m", "benchmarks.elastic.script"]


def ours(warm: bool) -> list[Change]:
    """Orders through the lease board; `released` is what the runner acked."""
    with (
        tempfile.TemporaryDirectory(prefix="he-") as folder,
        start_ray(num_cpus=2 * SLOTS + 2, num_gpus=SLOTS) as cluster,
        lease_world(cluster, gpus=SLOTS) as world,
    ):
        run = Path(folder)
        lease = world.grant("bench", world.slots[:START])
        driver = world.start(lease, run, [*SCRIPT, folder], HELIOSTAT_WARM_HANDOVER="1" if warm else "0")

        def order(size: int) -> Callable[[], float]:
            lease = world.order("bench", RUN, deadline_s=DEADLINE_S, slots=world.slots[:size])
            return lambda: float(world.wait_said(lease, RELEASED, driver, LIMIT_S).facts["at_ms"]) / 1000

        return _drive("warm" if warm else "plain", run, driver, order)


def stock(monitor_s: float = 2.0) -> list[Change]:
    """Demand through the AutoscalingCoordinator: a requester of higher priority holds what the run may not have."""
    with (
        tempfile.TemporaryDirectory(prefix="he-") as folder,
        start_ray(num_cpus=SLOTS) as cluster,
        lease_world(cluster, gpus=0) as world,
    ):
        run = Path(folder)
        hold = _Holder()
        hold(SLOTS - START)
        driver = world.start_outside(run, [*SCRIPT, folder, "--stock", "--monitor-s", str(monitor_s)])

        def order(size: int) -> Callable[[], float]:
            old = _workers()
            assert old, "the run that is to be resized has workers"
            hold(SLOTS - size)

            def released() -> float:
                wait_until(
                    lambda: not any(map(_runs, old)), "the end of the old workers", driver, LIMIT_S, every_s=0.02
                )
                return time.time()

            return released

        return _drive("stock" if monitor_s < STOCK_DEFAULT_S else "stock60", run, driver, order)


def _workers() -> list[int]:
    """Process ids of stock Ray Train's workers."""
    found = list_actors(filters=[("state", "=", "ALIVE"), ("class_name", "=", WORKER_CLASS)], detail=True)
    return [int(row["pid"]) for row in found]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


class _Priority:
    value = 1000  # above every request of Ray's own


class _Holder:
    """Asks the coordinator for CPUs that nobody uses; Ray Train leaves them alone."""

    def __init__(self) -> None:
        name = "AutoscalingCoordinator"
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )

        self._actor: Any = get_or_create_autoscaling_coordinator()  # Any: an actor handle
        self._name = f"{name}-bench"

    def __call__(self, cpus: int) -> None:
        ray.get(
            self._actor.request_resources.remote(
                requester_id=self._name, resources=[{"CPU": 1}] * cpus, expire_after_s=600, priority=_Priority()
            ),
            timeout=30,
        )


RUNS: dict[str, Callable[[], list[Change]]] = {
    "plain": lambda: ours(warm=False),
    "warm": lambda: ours(warm=True),
    "stock": stock,
    "stock60": lambda: stock(STOCK_DEFAULT_S),
}


def _drive(
    side: str, run: Path, driver: subprocess.Popen[bytes], order: Callable[[int], Callable[[], float]]
) -> list[Change]:
    watch = StepWatch(run / "steps.jsonl")
    found: list[Change] = []
    try:
        _at_work(watch, START, driver)
        for n, size in enumerate(SIZES):
            time.sleep(DWELL_S + 0.7 * n)
            at_s = time.time()
            released = order(size)
            released_at_s = released()
            _at_work(watch, size, driver)
            found.append(change(side, list(watch.steps), size, at_s, released_at_s))
            print(found[-1].as_json(), flush=True)
    finally:
        watch.close()
        end(driver, signal.SIGKILL)
    return found


def _at_work(watch: StepWatch, size: int, driver: subprocess.Popen[bytes]) -> None:
    wait_until(
        lambda: bool(watch.steps) and watch.steps[-1].world_size == size, f"{size} workers at work", driver, LIMIT_S
    )
