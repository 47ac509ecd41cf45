"""The environments of the processes that we start, built from this process's own.

`RAY_AUTH_MODE` is set explicitly everywhere: unset, Ray guesses it from files in the home folder. Our own HELIOSTAT_ settings
(a token may be among them) never reach Ray, because every job inherits what Ray's processes have.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from heliostat.local.machine import haproxy_available
from heliostat.local.records import INSTANCE, RayRecord, instance_of
from heliostat.settings import Settings, environment

DROPPED = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "RAY_JOB_HEADERS", "RAY_TMPDIR")
JOB_STOP_WAIT_S = 15
"""Between SIGTERM and SIGKILL when Ray stops a driver: time for a last checkpoint."""


def of_ray(settings: Settings, gcs_address: str) -> dict[str, str]:
    """For `ray start`, and so for everything that runs on the cluster."""
    env = _clean()
    env |= {
        INSTANCE: f"{instance_of(settings.home)}:ray:{secrets.token_hex(4)}",
        "RAY_ADDRESS": gcs_address,  # else Train's helpers find a second cluster of this machine and refuse
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_WAIT_S),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # a node with slots is never idle, so `down` would wait in vain
        "RAY_worker_niceness": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        **token(settings.ray_token_path),
    }
    if haproxy_available():
        env["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    return env


def of_haproxy(ports: dict[str, int]) -> dict[str, str]:
    """Serve's HAProxy listens on two more ports, by default the same on every cluster of a machine."""
    return {
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["haproxy_stats"]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["haproxy_metrics"]),
    }


def of_control(settings: Settings) -> dict[str, str]:
    """For the control plane. It gets its home and finds everything else there."""
    env = _clean()
    env |= {
        INSTANCE: f"{instance_of(settings.home)}:control:{secrets.token_hex(4)}",
        "HELIOSTAT_HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }
    return env


def of_bridge(settings: Settings, ray: RayRecord) -> dict[str, str]:
    """For the bridge: the only process of ours that holds a Ray driver connection."""
    env = of_control(settings)
    env |= {"RAY_ADDRESS": ray.gcs_address, "RAY_USAGE_STATS_ENABLED": "0", **token(Path(ray.token_path))}
    return env


def token(path: Path) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def _clean() -> dict[str, str]:
    env = {
        key: value for key, value in environment().items() if not key.startswith("HELIOSTAT_") and key not in DROPPED
    }
    binaries = str(Path(sys.executable).parent)
    env["PATH"] = f"{binaries}:{env.get('PATH', '/usr/bin:/bin')}"  # `python` of a job is the one with Ray in it
    return env
