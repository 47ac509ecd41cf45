"""The Ray head of a one-machine installation: `ray start --head --block`, leader of its own session.

With --block Ray ends all its processes when one of them dies or when it gets SIGTERM; what a kill -9 leaves behind is found by
the marks that `processes.ours` knows.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import httpx

from heliostat.local import environments, ports, processes, records
from heliostat.local.errors import LocalError
from heliostat.local.machine import Shape
from heliostat.local.records import ProcessId, RayRecord
from heliostat.settings import Settings

PURPOSES = (
    "gcs", "dashboard", "dashboard_agent", "dashboard_agent_grpc", "runtime_env_agent",
    "metrics", "node_manager", "object_manager", "ray_client", "haproxy_stats", "haproxy_metrics",
)  # fmt: skip
START_TIMEOUT_S = 120.0
STOP_PATIENCE_S = 20.0
SUPPORTED = "2.60."
KEPT_SESSIONS = 3


def start(settings: Settings, shape: Shape, remembered: dict[str, int]) -> tuple[RayRecord, subprocess.Popen[bytes]]:
    """Start the head and write its record; `wait_ready` tells when it answers."""
    require_supported_version()
    token_path = ensure_token(settings)
    temp_dir = private_temp_dir(settings)
    forget_old_sessions(temp_dir)
    chosen = ports.choose(PURPOSES, remembered)
    address = f"127.0.0.1:{chosen['gcs']}"
    argv = command(shape, chosen, temp_dir)
    env = environments.of_ray(settings, address) | environments.of_haproxy(chosen)
    child = processes.spawn(argv, env, log_path(settings), settings.home)
    identity = ProcessId.of(child.pid)
    record = RayRecord(
        mode="local",
        gcs_address=address,
        dashboard_url=f"http://127.0.0.1:{chosen['dashboard']}",
        token_path=str(token_path),
        ray_version=version("ray"),
        pid=identity.pid,
        start_time=identity.start_time,
        gpus=shape.gpus,
        cpus=shape.cpus,
        logical_gpus=shape.logical,
        reserve_cpu_milli=4000,
        object_store_bytes=shape.object_store_bytes,
        temp_dir=str(temp_dir),
        ports=chosen,
    )
    records.write(settings.ray_state_path, record)
    return record, child


def command(shape: Shape, chosen: dict[str, int], temp_dir: Path) -> list[str]:
    """The whole `ray start` line."""
    options = {
        "node-ip-address": "127.0.0.1",
        "port": chosen["gcs"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": chosen["dashboard"],
        "dashboard-agent-listen-port": chosen["dashboard_agent"],
        "dashboard-agent-grpc-port": chosen["dashboard_agent_grpc"],
        "runtime-env-agent-port": chosen["runtime_env_agent"],
        "metrics-export-port": chosen["metrics"],
        "node-manager-port": chosen["node_manager"],
        "object-manager-port": chosen["object_manager"],
        "ray-client-server-port": chosen["ray_client"],
        "include-dashboard": "true",
        "num-cpus": shape.cpus,
        "num-gpus": shape.gpus,
        "object-store-memory": shape.object_store_bytes,
        "temp-dir": temp_dir,
    }
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    return argv + [f"--{name}={value}" for name, value in options.items()]


def wait_ready(record: RayRecord, child: subprocess.Popen[bytes], log: Path) -> None:
    """Until the Jobs REST answers to our token. Raises with the end of the log when the head ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        require_alive(child, log)
        if answers(record):
            return
        time.sleep(0.2)
    raise LocalError(
        "ray_timeout",
        f"Ray did not answer on {record.dashboard_url} within {START_TIMEOUT_S:.0f} s.",
        f"Read {log}, then run: helio doctor",
    )


def require_alive(child: subprocess.Popen[bytes], log: Path) -> None:
    """Raises with the end of the log when the head has ended: on a crowded machine Ray gives up on its own raylet after 30 s."""
    if child.poll() is not None:
        raise LocalError(
            "ray_failed",
            f"Ray did not start (exit code {child.returncode}). Its last words:\n{processes.tail(log)}",
            f"Read {log}, then run: helio up",
        )


def answers(record: RayRecord) -> bool:
    """Whether the dashboard serves the Jobs API now."""
    try:
        token = Path(record.token_path).read_text(encoding="ascii").strip()
        reply = httpx.get(
            f"{record.dashboard_url}/api/version",
            headers={"Authorization": f"Bearer {token}"},
            timeout=5.0,
            trust_env=False,
        )
    except (httpx.HTTPError, OSError):
        return False
    return reply.status_code == httpx.codes.OK


def stop(settings: Settings, record: RayRecord | None) -> list[ProcessId]:
    """End the head and everything that it started. Returns what would not die."""
    word = f"{records.instance_of(settings.home)}:ray:"
    sessions = [record.pid] if record is not None and record.mode == "local" else []

    def everyone() -> list[ProcessId]:
        return processes.ours(word, sessions)

    leader = record.identity if record is not None else ProcessId(0, 0.0)
    return processes.end(leader, everyone, STOP_PATIENCE_S)


def ensure_token(settings: Settings) -> Path:
    """Ray's cluster token, made on first use: 256 random bits in a file of mode 0600."""
    path = settings.ray_token_path
    if not path.exists() or not path.read_text(encoding="ascii").strip():
        records.write_private(path, secrets.token_hex(32))
    path.chmod(0o600)
    return path


def require_supported_version() -> None:
    found = version("ray")
    if not found.startswith(SUPPORTED):
        raise LocalError(
            "ray_version",
            f"Ray {found} is installed; this version of Heliostat is tested with Ray {SUPPORTED}x only.",
            "pip install 'ray[default,serve,train,tune]==2.60.0'",
        )


def log_path(settings: Settings) -> Path:
    return settings.logs_dir / "ray.log"


def forget_old_sessions(temp_dir: Path) -> None:
    """Ray keeps the logs of every start; the newest few are enough, and what drivers wrote is in the run folders."""
    sessions = sorted(temp_dir.glob("session_2*"), key=lambda path: path.name)
    for session in sessions[:-KEPT_SESSIONS]:
        shutil.rmtree(session, ignore_errors=True)


def private_temp_dir(settings: Settings) -> Path:
    """Ray opens its temporary folder to everybody (mode 0777), so it lies in one that is ours alone."""
    folder = settings.ray_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # it may lie in /tmp, where anybody could have made it first
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise LocalError("foreign_folder", f"{folder} belongs to another user.", f"Remove {folder}, then: helio up")
    folder.chmod(0o700)
    return folder / "t"
