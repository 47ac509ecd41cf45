"""Join a Ray cluster that runs already: check it before anything is written.

The checks that need a Ray driver (is our wheel on every node, does somebody use the GPUs) run in a child process, because this
package never imports ray. It prints one JSON object; see heliostat_scheduler.live.attach.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from heliostat.local import environments, ray_head
from heliostat.local.errors import LocalError
from heliostat.local.records import RayRecord
from heliostat.settings import Settings

PROBE = "heliostat_scheduler.live.attach"
PROBE_TIMEOUT_S = 150.0
CONNECT_S = 10.0


def inspect(settings: Settings, address: str, dashboard: str, token_path: str) -> RayRecord:
    """The record of the cluster at `address`, or a LocalError that says what it lacks."""
    ray_head.require_supported_version()
    token = Path(token_path) if token_path else settings.ray_token_path
    if not token.is_file():
        raise LocalError(
            "no_ray_token",
            f"There is no Ray token at {token}.",
            "Give the cluster's token file: helio up --address HOST:PORT --ray-token-file PATH",
        )
    _require_listener(address)
    draft = RayRecord("attached", address, dashboard.rstrip("/"), str(token), version("ray"))
    found = _probe(settings, draft)
    record = RayRecord("attached", address, dashboard.rstrip("/") or found["dashboard_url"], str(token), version("ray"))
    _check_version(record)
    _check_nodes(found["nodes"])
    return record


def _require_listener(address: str) -> None:
    """A driver would try for minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise LocalError(
            "unreachable",
            f"Nobody answers at {address}: {error}.",
            "Give the cluster's GCS address: --address HOST:6379",
        ) from error


def _probe(settings: Settings, draft: RayRecord) -> dict[str, Any]:  # Any: JSON
    env = environments.of_bridge(settings, draft)
    try:
        result = subprocess.run(
            [sys.executable, "-m", PROBE], env=env, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LocalError(
            "unreachable",
            f"The cluster at {draft.gcs_address} did not answer within {PROBE_TIMEOUT_S:.0f} s.",
            "Check the address, and that this machine runs a Ray node (ray start --address ... --num-cpus 0).",
        ) from error
    if result.returncode:
        last = "\n".join(result.stderr.splitlines()[-5:])
        raise LocalError(
            "unreachable",
            f"The cluster at {draft.gcs_address} could not be joined:\n{last}",
            "Check the address and the token; this machine must run a Ray node (ray start --address ... --num-cpus 0).",
        )
    body: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])  # Any: JSON
    return body


def _check_version(record: RayRecord) -> None:
    token = Path(record.token_path).read_text(encoding="ascii").strip()
    try:
        reply = httpx.get(
            f"{record.dashboard_url}/api/version",
            headers={"Authorization": f"Bearer {token}"},
            timeout=10.0,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise LocalError(
            "no_dashboard", f"The dashboard at {record.dashboard_url} does not answer: {error}.", "Give --dashboard URL"
        ) from error
    if reply.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise LocalError(
            "bad_ray_token", "The cluster refuses this token.", "Give the right one: --ray-token-file PATH"
        )
    found = str(reply.json().get("ray_version", "?")) if reply.is_success else "?"
    if found != record.ray_version:
        raise LocalError(
            "ray_version",
            f"The cluster runs Ray {found}, this machine has {record.ray_version}.",
            f"Install the same version on both: pip install 'ray[default]=={record.ray_version}'",
        )


def _check_nodes(nodes: list[dict[str, Any]]) -> None:  # Any: JSON
    """Every node has this wheel and no GPU in use: else jobs would start without it, or on somebody's GPU."""
    ours = version("heliostat")
    lacking = [node["node"] for node in nodes if node["wheel"] != ours]
    if lacking:
        raise LocalError(
            "wheel_missing",
            f"Heliostat {ours} is not installed on {len(lacking)} of {len(nodes)} nodes: {', '.join(lacking[:5])}.",
            f"On each of them, in Ray's Python: pip install heliostat=={ours}",
        )
    busy = [node["node"] for node in nodes if node["gpus_in_use"]]
    if busy:
        raise LocalError(
            "gpus_in_use",
            f"GPUs are in use already on {', '.join(busy[:5])}.",
            "End what uses them (ray list actors --filter state=ALIVE), then try again.",
        )
