"""`up` and `down`: bring back whatever is missing, leave nothing behind.

`up` is idempotent. It looks at each part (home, Ray head, control plane) and starts only what does not run; after a kill -9 of
any of them it is the way back. `down` ends all of it and deletes nothing: the next `up` finds every job where it was, and
those that were running resume from their checkpoints.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heliostat.local import attach, control_plane, ports, processes, ray_head, records
from heliostat.local.errors import LocalError
from heliostat.local.machine import shape
from heliostat.local.progress import Progress, Step, silent
from heliostat.local.records import ControlRecord, ProcessId, RayRecord
from heliostat.settings import Settings

CONNECT_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class UpOptions:
    """gpus: logical GPUs (None: those that are there). address: `host:port` of a running cluster to join instead.

    dashboard: that cluster's dashboard URL. ray_token_path: its token file. object_store_bytes: None for the default.
    """

    gpus: int | None = None
    address: str = ""
    dashboard: str = ""
    ray_token_path: str = ""
    object_store_bytes: int | None = None
    host: str = ""
    port: int = 0
    i_have_a_firewall: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What is up now. started: the parts that this call started (`ray`, `control`); empty when all ran already."""

    control: ControlRecord
    ray: RayRecord
    started: tuple[str, ...]
    connected: bool
    token_path: str

    @property
    def next_command(self) -> str:
        return "helio submit --name hello -- echo hello"


def up(settings: Settings, options: UpOptions | None = None, progress: Progress = silent) -> Running:
    """Everything runs when this returns. Raises LocalError, and leaves running what ran before."""
    wanted = options or UpOptions()
    host, port = wanted.host or settings.host, wanted.port or settings.port
    _refuse_exposed(host, wanted)
    _make_home(settings, progress)
    with _only_one(settings):
        ray, ray_child = _ensure_ray(settings, wanted, progress)
        control, control_child = _ensure_control(settings, host, port, progress)
        if ray_child is not None:
            ray_head.wait_ready(ray, ray_child, ray_head.log_path(settings))
            progress(Step("ray", "done", f"Ray {ray.ray_version} at {ray.gcs_address}"))
        if control is None:
            assert control_child is not None
            control = control_plane.wait_ready(settings, control_child)
            progress(Step("control", "done", f"control plane at {control.url}"))
        progress(Step("bridge", "start", "connecting the control plane to Ray"))
        connected = control_plane.wait_connected(
            control, CONNECT_TIMEOUT_S, lambda: ray_child is not None and ray_child.poll() is not None
        )
        if ray_child is not None:
            ray_head.require_alive(ray_child, ray_head.log_path(settings))
        text = "connected" if connected else "not connected yet; see: helio doctor"
        progress(Step("bridge", "done" if connected else "late", text))
    started = tuple(name for name, child in (("ray", ray_child), ("control", control_child)) if child is not None)
    return Running(control, ray, started, connected, str(settings.admin_token_path))


def down(settings: Settings, progress: Progress = silent) -> None:
    """End every process of this installation. A cluster that was only joined goes on."""
    if not settings.home.is_dir():
        orphans = leftovers(settings)  # somebody removed the folder while we ran
        _require_none(processes.kill(orphans))
        text = f"ended {len(orphans)} processes" if orphans else "nothing was ever started"
        progress(Step("home", "skip", f"{text} from {settings.home}, which is not there"))
        return
    with _only_one(settings):
        progress(Step("control", "start", "ending the control plane"))
        left = control_plane.stop(settings)
        record = records.read(settings.ray_state_path, RayRecord)
        if record is None or record.mode == "local":
            progress(Step("ray", "start", "ending Ray"))
            left += ray_head.stop(settings, record)
        _require_none([process for process in left if process.alive()])
        if record is not None and record.mode == "attached":
            settings.ray_state_path.unlink(missing_ok=True)
        progress(Step("sweep", "done", "no process of ours is left; every job and its history are kept"))


def leftovers(settings: Settings) -> list[ProcessId]:
    """Every living process of this installation."""
    record = records.read(settings.ray_state_path, RayRecord)
    sessions = [record.pid] if record is not None and record.mode == "local" else []
    return processes.ours(f"{records.instance_of(settings.home)}:", sessions)


def _require_none(left: list[ProcessId]) -> None:
    if left:
        pids = " ".join(str(process.pid) for process in left)
        raise LocalError("still_running", f"These processes would not end: {pids}.", f"kill -9 {pids}")


def _ensure_ray(
    settings: Settings, wanted: UpOptions, progress: Progress
) -> tuple[RayRecord, subprocess.Popen[bytes] | None]:
    record = records.read(settings.ray_state_path, RayRecord)
    if wanted.address:
        return _join(settings, wanted, record, progress), None
    if record is not None and record.mode == "attached":
        progress(Step("ray", "skip", f"joined the cluster at {record.gcs_address}"))
        return record, None
    if record is not None and record.alive():
        _refuse_other_shape(wanted, record)
        progress(Step("ray", "skip", f"Ray {record.ray_version} runs at {record.gcs_address}"))
        return record, None
    if record is not None:
        _require_none(ray_head.stop(settings, record))
    gpus = wanted.gpus if wanted.gpus is not None or record is None else record.gpus
    size = wanted.object_store_bytes or (record.object_store_bytes if record is not None else None)
    form = shape(gpus, size)
    progress(Step("ray", "start", f"starting Ray: {form.sentence()}"))
    return ray_head.start(settings, form, record.ports if record is not None else {})


def _join(settings: Settings, wanted: UpOptions, record: RayRecord | None, progress: Progress) -> RayRecord:
    if record is not None and record.mode == "local" and record.alive():
        raise LocalError("ray_runs", f"A Ray head of ours runs at {record.gcs_address}.", "helio down, then try again")
    progress(Step("ray", "start", f"joining the cluster at {wanted.address}"))
    joined = attach.inspect(settings, wanted.address, wanted.dashboard, wanted.ray_token_path)
    records.write(settings.ray_state_path, joined)
    progress(Step("ray", "done", f"joined Ray {joined.ray_version} at {joined.gcs_address}"))
    return joined


def _ensure_control(
    settings: Settings, host: str, port: int, progress: Progress
) -> tuple[ControlRecord | None, subprocess.Popen[bytes] | None]:
    record = control_plane.running(settings)
    if record is not None and control_plane.get(record, "/healthz") is not None:
        progress(Step("control", "skip", f"control plane runs at {record.url}"))
        return record, None
    _require_none(control_plane.stop(settings))
    progress(Step("control", "start", "starting the control plane"))
    return None, control_plane.start(settings, host, port)


def _make_home(settings: Settings, progress: Progress) -> None:
    fresh = not settings.home.exists()
    for folder in (settings.home, settings.state_dir, settings.logs_dir, settings.runs_dir, settings.artifacts_dir):
        _make_folder(folder)
    if fresh:
        progress(Step("home", "done", f"made {settings.home}"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(
            "home_unusable",
            f"The folder {folder} cannot be made: {error.strerror}.",
            "Name a folder that you may write to with HELIOSTAT_HOME.",
        ) from error


def _refuse_exposed(host: str, wanted: UpOptions) -> None:
    """Ray listens on every interface whatever it is told, so a public address needs a firewall; see the threat model."""
    if wanted.i_have_a_firewall:
        return
    public = [] if wanted.address else ports.public_addresses()
    if public:
        raise LocalError(
            "public_host",
            f"This machine has a public address ({', '.join(public)}), and Ray opens ports on all interfaces.",
            "Put a firewall in front of it, then: helio up --i-have-a-firewall",
        )
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise LocalError(
            "exposed_port",
            f"The control plane would listen on {host} without TLS.",
            "Listen on 127.0.0.1 behind a TLS proxy, or: helio up --i-have-a-firewall",
        )


def _refuse_other_shape(wanted: UpOptions, record: RayRecord) -> None:
    if wanted.gpus is not None and wanted.gpus != record.gpus:
        raise LocalError(
            "other_shape",
            f"Ray already runs with {record.gpus} GPUs; --gpus {wanted.gpus} needs a new head.",
            f"helio down, then: helio up --gpus {wanted.gpus}",
        )


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Two `up` or `down` at once take turns."""
    _make_folder(settings.state_dir)
    with (settings.state_dir / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
