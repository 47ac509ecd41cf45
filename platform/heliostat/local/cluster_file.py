"""What a Ray cluster file says about Heliostat: `metadata.heliostat` with the keys `port`, `queues` and `nodes`.

Ray's launcher allows no top-level keys of others, and copies the whole file to the head as ~/ray_bootstrap_config.yaml; so
`helio up --cluster-file ~/ray_bootstrap_config.yaml` finds there what the platform engineer wrote beside the node types.
`queues` and `nodes` are the mappings of docs/queues.md and docs/autoscaling.md, put in force by the same checks as `helio queue apply`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heliostat.local.errors import LocalError

KEYS = frozenset({"port", "queues", "nodes"})


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """port: 0 when the file names none. queue_file: text of a queues.yaml, empty when the file has no queues."""

    port: int = 0
    queue_file: str = ""


def read(path: Path) -> ClusterFile:
    """Raises LocalError for a file that is no YAML mapping, or whose `metadata.heliostat` has keys that nobody reads."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _bad(path, f"cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise _bad(path, "is no cluster file: a mapping is expected")
    ours = (document.get("metadata") or {}).get("heliostat") or {}
    unknown = sorted(set(ours) - KEYS)
    if unknown:
        raise _bad(path, f"names {', '.join(unknown)} under metadata.heliostat; known are {', '.join(sorted(KEYS))}")
    return ClusterFile(
        port=_port(path, ours.get("port", 0)), queue_file=_queue_file(path, ours.get("queues"), ours.get("nodes"))
    )


def _port(path: Path, value: Any) -> int:  # Any: YAML
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise _bad(path, f"has port {value!r} under metadata.heliostat; a number up to 65535 is expected")
    return value


def _queue_file(path: Path, queues: Any, nodes: Any) -> str:  # Any: YAML
    if queues is None:
        if nodes is not None:
            raise _bad(path, "has metadata.heliostat.nodes without queues that could use them")
        return ""
    if not isinstance(queues, dict) or not queues:
        raise _bad(path, "has metadata.heliostat.queues that are no mapping from names to settings")
    return yaml.safe_dump({"queues": queues} | ({} if nodes is None else {"nodes": nodes}), sort_keys=False)


def _bad(path: Path, what: str) -> LocalError:
    return LocalError("bad_cluster_file", f"{path} {what}.", "See cluster.yaml, docs/queues.md and docs/autoscaling.md")
