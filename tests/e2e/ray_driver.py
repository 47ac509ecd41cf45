"""A Ray driver in a process of its own that tests can order about: `RayDriver(cluster)`.

A process cannot connect to one cluster with one token and later to another, so tests never connect themselves. Each order is one
line of JSON, answered by one: make actors, tasks and groups (as a job of ours, or as a stranger), ask who is alive, speak to the
lease board as a runner does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.e2e.ray_cluster import RayCluster

ANSWER_S = 60.0


class RayDriver:
    """The test's side. Every method of `_Driver` below can be called by its name."""

    def __init__(self, cluster: RayCluster, **env: str) -> None:
        argv = [sys.executable, "-m", "tests.e2e.ray_driver"]
        self.process = subprocess.Popen(
            argv, env=cluster.environ(**env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, op: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the driver ended with {self.process.wait()} during {op}")
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer["kind"], answer["error"])
        return answer["value"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class DriverError(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class _Driver:
    """The driver's side."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        ray.init(address="auto", namespace="strangers", log_to_driver=False, logging_level="error")
        self._actors: dict[str, Any] = {}
        self._refs: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._clients: dict[tuple[str, str], Any] = {}

    def actor(
        self,
        name: str,
        *,
        group: str = "",
        gpus: float = 0,
        by_name: dict[str, float] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Ask for an actor: in a group, with plain GPUs, or naming resources. Does not wait for it."""

        class Sitter:
            def who(self) -> tuple[int, list[int]]:
                return os.getpid(), [int(index) for index in ray.get_gpu_ids()]

        ray = self._ray
        options: dict[str, Any] = {"name": name, "num_cpus": 0, "num_gpus": gpus, "resources": by_name or {}}
        if group:
            options["scheduling_strategy"] = self._strategy(group)
        if env:
            options["runtime_env"] = {"env_vars": env}
        self._actors[name] = ray.remote(Sitter).options(**options).remote()

    def who(self, name: str, timeout_s: float = 30.0) -> Any:
        """(pid, GPU indices) of an actor, once it runs; None if it does not within the time, or is dead."""
        try:
            return self._ray.get(self._actors[name].who.remote(), timeout=timeout_s)
        except (self._ray.exceptions.GetTimeoutError, self._ray.exceptions.RayActorError):
            return None

    def task(self, name: str, seconds: float, *, group: str) -> None:
        """A plain task that sits in a group."""

        def sit() -> None:
            import time

            time.sleep(seconds)

        strategy = self._strategy(group)
        remote = self._ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(sit)
        self._refs[name] = remote.options(scheduling_strategy=strategy).remote()

    def group(self, name: str, bundles: list[dict[str, float]]) -> str:
        """Ask for a placement group; its id."""
        from ray.util.placement_group import placement_group

        self._groups[name] = placement_group(bundles, name=name)
        return str(self._groups[name].id.hex())

    def groups(self) -> dict[str, str]:
        """State by name of every placement group; of several with one name, that of the one that is there."""
        from ray.util import placement_group_table

        rows = sorted(placement_group_table().values(), key=lambda row: row["state"] != "REMOVED")
        return {row["name"]: row["state"] for row in rows}

    def kill(self, name: str) -> None:
        self._ray.kill(self._actors[name])

    def kill_named(self, name: str, namespace: str) -> int:
        """kill -9 of a named actor's process; its pid."""
        from heliostat_scheduler.live.tables import HOLDER_PREFIX

        found = [row for row in self._rows() if row["name"] == name and row["namespace"] == namespace]
        assert found, f"no {name} among {[r['name'] for r in self._rows()]} ({HOLDER_PREFIX})"
        os.kill(found[0]["pid"], 9)
        return int(found[0]["pid"])

    def nodes(self) -> list[dict[str, Any]]:
        return [{"id": n["NodeID"], "alive": n["Alive"], "resources": n["Resources"]} for n in self._ray.nodes()]

    def lease(self, job: str, secret: str) -> dict[str, Any]:
        from dataclasses import asdict

        return asdict(self._client(job, secret).get())

    def wait(self, job: str, secret: str, known_epoch: int, timeout_s: float) -> dict[str, Any]:
        from dataclasses import asdict

        return asdict(self._client(job, secret).wait(known_epoch, timeout_s))

    def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> None:
        self._client(job, secret).ack(epoch, what, facts)

    def report(self, job: str, secret: str, facts: dict[str, Any]) -> None:
        self._client(job, secret).report(facts)

    def _client(self, job: str, secret: str) -> Any:
        from heliostat_scheduler.live.board import LeaseClient

        return self._clients.setdefault((job, secret), LeaseClient(job, secret))

    def _strategy(self, group: str) -> Any:
        from ray.util.placement_group import PlacementGroup
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(PlacementGroup(self._ray.PlacementGroupID(bytes.fromhex(group))), 0)

    def _rows(self) -> list[dict[str, Any]]:
        import asyncio

        from heliostat_scheduler.live.ray_private import RayTables

        async def look() -> list[dict[str, Any]]:
            tables = RayTables(self._ray.get_runtime_context().gcs_address)
            return [{"name": a.name, "namespace": a.namespace, "pid": a.pid} for a in await tables.actors()]

        return asyncio.run(look())


def _main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    driver = _Driver()
    for line in sys.stdin:
        order = json.loads(line)
        op = order.pop("op")
        try:
            answer = {"value": getattr(driver, op)(**order)}
        except Exception as error:  # noqa: BLE001 - the test is told
            answer = {"error": str(error), "kind": type(error).__name__}
        out.write(json.dumps(answer) + "\n")
    os._exit(0)


if __name__ == "__main__":
    _main()
