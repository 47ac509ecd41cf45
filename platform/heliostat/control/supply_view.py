"""The pools of nodes as JSON: what may be had, what is there, what is on its way and how that goes."""

from __future__ import annotations

from typing import Any

from heliostat.control.explaining import time_of
from heliostat.control.supply import Supply


def pools(supply: Supply) -> list[dict[str, Any]]:  # Any: JSON
    """Under the engine's lock. wanted: asked for now; late: they did not come, and are asked for again at `again_at`."""
    coming = {nodes.flavor: nodes for nodes in supply.coming}
    told = []
    for flavor, pool in sorted(supply.pools.items()):
        here = sum(1 for node in supply.executor.nodes.values() if node.flavor == flavor and not node.is_head)
        nodes = coming.get(flavor)
        late = nodes is not None and nodes.late
        told.append(
            {
                "flavor": flavor,
                "gpus": pool.gpus,
                "cpu_milli": pool.cpu_milli,
                "memory_bytes": pool.memory_bytes,
                "max": pool.max_nodes,
                "min": pool.min_nodes,
                "idle_s": pool.idle_ms // 1000,
                "nodes": here,
                "missing": 0 if nodes is None else nodes.nodes,
                "wanted": 0 if nodes is None or late else nodes.nodes,
                "late": late,
                "tries": 0 if nodes is None else nodes.tries,
                "asked_at": time_of(supply.fleet.asks[flavor].since_ms) if nodes is not None else None,
                "by": time_of(nodes.by_ms) if nodes is not None else None,
                "jobs": list(nodes.jobs) if nodes is not None else [],
            }
        )
    return told
