"""A Ray head of one's own for a test module: started by hand, ended by process id, never by `ray stop`.

Every port is chosen free, the temp dir is short (unix socket paths are limited to 107 bytes), the object store is small, and no
worker is started before somebody asks for one. With `token=True` the cluster demands token authentication.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_S = 90.0
PORTS = (
    "port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port",
    "metrics-export-port", "node-manager-port", "object-manager-port", "ray-client-server-port",
)  # fmt: skip


@dataclass(frozen=True)
class RayCluster:
    """address: of the GCS. dashboard: URL of the Jobs REST API. env: what a process needs to connect (address and token)."""

    address: str
    dashboard: str
    temp_dir: Path
    pid: int
    log: Path
    token: str = ""
    env: dict[str, str] = field(default_factory=dict)
    metrics_port: int = 0

    def environ(self, **more: str) -> dict[str, str]:
        """A whole environment for a subprocess that connects to this cluster."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "HELIOSTAT_"))}
        return {**clean, **self.env, **more}

    def metrics_url(self) -> str:
        """Where Prometheus would scrape the node."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def processes(self) -> list[int]:
        """Every process of the cluster's session."""
        return [pid for pid in _pids() if _session(pid) == self.pid]


@contextlib.contextmanager
def start_ray(
    num_cpus: int = 4, num_gpus: int = 0, *, token: bool = False, dashboard: bool = True, labels: str = "",
    environ: Mapping[str, str] | None = None, node_types: Mapping[str, Any] | None = None,
) -> Iterator[RayCluster]:  # fmt: skip
    """Start a head, yield it when it answers, end it and everything of its session.

    node_types: with Ray's autoscaler, whose nodes are raylets on this machine (`available_node_types` of its configuration).

    Ray gives its own raylet 30 s to come up and then gives up; on a busy machine that is no verdict, so it is tried again.
    """
    for last in (False, False, True):
        with contextlib.ExitStack() as stack:
            try:
                cluster = stack.enter_context(
                    _start_once(num_cpus, num_gpus, token, dashboard, labels, environ or {}, node_types)
                )
            except HeadEnded:
                if last:
                    raise
                continue
            yield cluster
            return


class HeadEnded(AssertionError):
    """`ray start` gave up."""


@contextlib.contextmanager
def _start_once(
    num_cpus: int, num_gpus: int, token: bool, dashboard: bool, labels: str, environ: Mapping[str, str],
    node_types: Mapping[str, Any] | None,
) -> Iterator[RayCluster]:  # fmt: skip
    temp = Path(tempfile.mkdtemp(prefix="ht-", dir="/tmp"))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    env = {
        "RAY_ADDRESS": f"127.0.0.1:{ports['port']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_prestart_worker_first_driver": "0",
        **environ,
    }
    secret = secrets.token_hex(32) if token else ""
    if token:
        path = temp / "token"
        path.write_text(secret)
        path.chmod(0o600)
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    own = {} if node_types is None else AUTOSCALED_HEAD
    log = temp / "head.log"
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", "--dashboard-host=127.0.0.1",
            "--object-store-memory=200000000", f"--temp-dir={temp / 'r'}", f"--include-dashboard={str(dashboard).lower()}",
            *(_autoscaling(temp, env["RAY_ADDRESS"], num_cpus, node_types) if node_types is not None else []),
            *([f"--labels={labels}"] if labels else []), *[f"--{name}={value}" for name, value in ports.items()]]  # fmt: skip
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "HELIOSTAT_"))}
    with log.open("wb") as out:
        head = subprocess.Popen(
            argv, env={**clean, **env, **own}, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    cluster = RayCluster(env["RAY_ADDRESS"], url, temp, head.pid, log, secret, env, ports["metrics-export-port"])
    try:
        _wait(cluster, head, ports["port"], dashboard)
        yield cluster
    finally:
        _end(cluster, head)
        shutil.rmtree(temp, ignore_errors=True)


HEAD_ID = "f" * 51 + "00000"
AUTOSCALED_HEAD = {
    "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}  # fmt: skip


def _autoscaling(temp: Path, address: str, num_cpus: int, node_types: Mapping[str, Any]) -> list[str]:
    """Ray's own provider for tests, as an external one: it has to be given every default."""
    head = {"ray.head.default": {"resources": {"CPU": num_cpus}, "node_config": {}, "min_workers": 0, "max_workers": 0}}
    kinds = {name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in node_types.items()}
    config = {
        "cluster_name": "local", "max_workers": 8, "upscaling_speed": 10.0, "idle_timeout_minutes": 0.1, "docker": {},
        "auth": {}, "head_node_type": "ray.head.default", "available_node_types": {**head, **kinds},
        "provider": {
            "type": "external", "module": "tests.e2e.autoscaled.Provider",
            "launch_multiple": True, "gcs_address": address, "head_node_id": HEAD_ID,
        },
        "file_mounts": {}, "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
        **{key: [] for key in (
            "cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
            "head_start_ray_commands", "worker_start_ray_commands",
        )},
    }  # fmt: skip
    path = temp / "autoscaling.yaml"
    path.write_text(json.dumps(config))
    return [f"--autoscaling-config={path}"]


@contextlib.contextmanager
def add_node(cluster: RayCluster, num_cpus: int = 2, num_gpus: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A second raylet on this host. Its death: kill the session that the yielded process leads (`kill_session`)."""
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={cluster.address}",
            f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", "--object-store-memory=100000000", "--disable-usage-stats"]  # fmt: skip
    with (cluster.temp_dir / "node.log").open("ab") as out:
        node = subprocess.Popen(
            argv, env=cluster.environ(), stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield node
    finally:
        kill_session(node)


def kill_session(leader: subprocess.Popen[bytes]) -> None:
    """kill -9 for the process and everything of its session."""
    deadline = time.monotonic() + 10
    while (left := [pid for pid in _pids() if _session(pid) == leader.pid]) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leader.poll()
        time.sleep(0.05)


def _wait(cluster: RayCluster, head: subprocess.Popen[bytes], port: int, dashboard: bool) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if head.poll() is not None:
            raise HeadEnded(f"the Ray head ended with {head.returncode}: {cluster.log.read_text()[-3000:]}")
        if dashboard and _answers(cluster):
            return
        if not dashboard and "Ray runtime started" in cluster.log.read_text() and _listens(port):
            return
        time.sleep(0.1)
    raise AssertionError(f"the Ray head did not answer within {START_S:.0f} s: {cluster.log.read_text()[-3000:]}")


def _answers(cluster: RayCluster) -> bool:
    try:
        reply = httpx.get(f"{cluster.dashboard}/api/version", headers=cluster.headers(), timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return reply.status_code == 200


def _end(cluster: RayCluster, head: subprocess.Popen[bytes]) -> None:
    """SIGTERM to `ray start --block` ends its children, slowly when actors live; what is left of its session gets SIGKILL."""
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(8)
    deadline = time.monotonic() + 10
    while (left := cluster.processes()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        if head.poll() is None:
            head.wait(5)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] == "Z" else int(fields[3])


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
