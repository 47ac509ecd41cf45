"""The control plane as a process: start it, see that it answers, end it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from heliostat.local import environments, ports, processes, records
from heliostat.local.errors import LocalError
from heliostat.local.records import ControlRecord, ProcessId
from heliostat.settings import Settings

START_TIMEOUT_S = 60.0
STOP_PATIENCE_S = 20.0


def start(settings: Settings, host: str, port: int) -> subprocess.Popen[bytes]:
    """Start the process. It writes its own record once it listens."""
    ports.require_free(host, port)
    argv = [sys.executable, "-m", "heliostat.control.main", "--host", host, "--port", str(port)]
    return processes.spawn(argv, environments.of_control(settings), log_path(settings), settings.home)


def wait_ready(settings: Settings, child: subprocess.Popen[bytes]) -> ControlRecord:
    """Until it answers, with or without Ray. Raises with the end of its log when it ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    log = log_path(settings)
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise LocalError(
                "control_failed",
                f"The control plane did not start (exit code {child.returncode}). Its last words:\n{processes.tail(log)}",
                f"Read {log}, then run: helio doctor",
            )
        record = records.read(settings.control_state_path, ControlRecord)
        if record is not None and record.pid == child.pid and get(record, "/healthz") is not None:
            return record
        time.sleep(0.1)
    raise LocalError(
        "control_timeout",
        f"The control plane did not answer within {START_TIMEOUT_S:.0f} s.",
        f"Read {log}, then run: helio doctor",
    )


def wait_connected(record: ControlRecord, patience_s: float, hopeless: Callable[[], bool]) -> bool:
    """Until the control plane says that the bridge is connected and the nodes have joined, or nothing can come of it."""
    processes.wait_until(lambda: hopeless() or get(record, "/readyz") is not None, patience_s)
    return get(record, "/readyz") is not None


def get(record: ControlRecord, path: str, token: str = "") -> dict[str, Any] | None:  # Any: JSON
    """The JSON of a page (a public one needs no token), or None when it does not answer with success."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        reply = httpx.get(f"{record.url}{path}", headers=headers, timeout=5.0, trust_env=False)
        body = reply.json() if reply.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def running(settings: Settings) -> ControlRecord | None:
    """The record of a living control plane of ours, or None."""
    record = records.read(settings.control_state_path, ControlRecord)
    return record if record is not None and record.identity.alive() else None


def stop(settings: Settings) -> list[ProcessId]:
    """End the control plane, the bridge with it. Returns what would not die."""
    record = records.read(settings.control_state_path, ControlRecord)
    word = f"{records.instance_of(settings.home)}:control:"
    leader = record.identity if record is not None else ProcessId(0, 0.0)
    left = processes.end(leader, lambda: processes.ours(word), STOP_PATIENCE_S)
    settings.control_state_path.unlink(missing_ok=True)
    return left


def log_path(settings: Settings) -> Path:
    return settings.logs_dir / "control.log"
