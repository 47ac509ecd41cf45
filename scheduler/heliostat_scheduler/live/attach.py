"""Look at a Ray cluster before joining it: `python -m heliostat_scheduler.live.attach` prints one line of JSON and changes nothing.

    {"dashboard_url": ..., "nodes": [{"node", "ip", "wheel", "gpus", "gpus_in_use"}]}

wheel: the version of this distribution in the Python that the node's workers use, "" where it is missing. gpus_in_use: what
somebody else holds; our own slots do not count. Connects as RAY_ADDRESS, RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH say.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat_scheduler.live import ray_private
from heliostat_scheduler.live.protocol import NAMESPACE, SLOT_PREFIX
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import NodeRow

DISTRIBUTION = "heliostat"
WHEEL_S = 60.0


def _wheel_probe() -> Callable[[str], str]:
    """A function that Ray ships by value, because the package may be missing where it runs."""

    def wheel(distribution: str) -> str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(distribution)
        except PackageNotFoundError:
            return ""

    return wheel


async def look(dashboard_url: str) -> dict[str, Any]:  # Any: JSON
    """What the one line of JSON says."""
    tables = RayTables(ray.get_runtime_context().gcs_address)
    nodes, available, groups = await asyncio.gather(tables.nodes(), tables.available(), tables.groups())
    slots = [g.nodes[0] for g in groups if g.name.startswith(SLOT_PREFIX) and g.state == "CREATED" and g.nodes]
    rows = sorted(nodes.values(), key=lambda row: row.id)
    wheels = await asyncio.gather(*(_wheel(row) for row in rows))
    return {
        "dashboard_url": dashboard_url,
        "nodes": [
            {
                "node": row.id,
                "ip": row.ip,
                "wheel": wheel,
                "gpus": int(row.resources.get("GPU", 0)),
                "gpus_in_use": max(
                    0.0, row.resources.get("GPU", 0) - available.get(row.id, {}).get("GPU", 0) - slots.count(row.id)
                ),
            }
            for row, wheel in zip(rows, wheels, strict=True)
        ],
    }


async def _wheel(row: NodeRow) -> str:
    strategy = NodeAffinitySchedulingStrategy(row.id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(_wheel_probe()).options(scheduling_strategy=strategy)
    try:
        found: str = await asyncio.wait_for(task.remote(DISTRIBUTION), WHEEL_S)
    except (RayError, TimeoutError):
        return ""
    return found


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # Ray prints; the one line is ours
    ray_private.verify(ray.__version__)
    context = ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False, logging_level="error")
    answer = asyncio.run(look(f"http://{context.dashboard_url}" if context.dashboard_url else ""))
    os.write(out, json.dumps(answer).encode() + b"\n")
    os.close(out)
    ray.shutdown()


if __name__ == "__main__":
    main()
