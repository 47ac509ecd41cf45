"""State files: which process we started, so that a later command finds it, and never anything else.

A pid alone proves nothing, because pids are reused. A record therefore carries the start time of the process, and it names a
living process of ours only while both agree. Every process that we start also carries INSTANCE in its environment, and its
children inherit that: it is how leftovers are found when their parent was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import psutil

INSTANCE = "HELIOSTAT_INSTANCE"
START_TIME_TOLERANCE_S = 1.5
"""psutil derives start times from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good: start_time is in seconds since the epoch."""

    pid: int
    start_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The living process, or None when it ended (a zombie has ended) or the pid belongs to somebody else now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) <= START_TIME_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        return self.process() is not None


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """The control plane that `up` started here."""

    pid: int
    start_time: float
    url: str
    host: str
    port: int
    version: str

    @property
    def identity(self) -> ProcessId:
        return ProcessId(self.pid, self.start_time)


@dataclass(frozen=True, slots=True)
class RayRecord:
    """The Ray cluster in use. mode: `local` (a head of ours; pid is its `ray start --block`) or `attached` (pid 0).

    gcs_address: host:port for drivers. dashboard_url: base of Jobs and Serve REST. ports: every port we chose, by purpose.
    reserve_cpu_milli: CPU kept free of leases on the head, for drivers and controllers (0: the bridge's default).
    """

    mode: str
    gcs_address: str
    dashboard_url: str
    token_path: str
    ray_version: str
    pid: int = 0
    start_time: float = 0.0
    gpus: int = 0
    cpus: int = 0
    logical_gpus: bool = False
    reserve_cpu_milli: int = 0
    object_store_bytes: int = 0
    temp_dir: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> ProcessId:
        return ProcessId(self.pid, self.start_time)

    def alive(self) -> bool:
        """Whether the head that we started still runs. Of a cluster that we joined nothing is known here: True."""
        return True if self.mode == "attached" else self.identity.alive()


Record = TypeVar("Record", ControlRecord, RayRecord)


def instance_of(home: Path) -> str:
    """The word that marks every process of this installation."""
    return hashlib.sha256(f"{os.getuid()}:{home}".encode()).hexdigest()[:16]


def read(path: Path, kind: type[Record]) -> Record | None:
    """The record in this file; None when there is none, or when it cannot be understood (then it is as good as stale)."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(kind)}
        return kind(**{key: value for key, value in body.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write(path: Path, record: ControlRecord | RayRecord) -> None:
    write_private(path, json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    Path(name).replace(path)


def as_json(record: ControlRecord | RayRecord) -> dict[str, Any]:  # Any: JSON
    return asdict(record)
