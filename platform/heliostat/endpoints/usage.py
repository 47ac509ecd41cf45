"""Metering: the lines that gateways leave in their spool folders become usage by hour, times of last use, and the access log.

A gateway writes `<name>.open` and closes it by renaming it to `.jsonl`. What is closed is read whole, added up in one transaction
together with the file's name (so that a crash in between cannot count it twice), and deleted. An `.open` file that nobody has
written to for a while belongs to a gateway that died: it is taken too. A line that is no line of a gateway's is logged and passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from heliostat.endpoints import access_log, rows
from heliostat.endpoints.names import version_number
from heliostat.endpoints.render import Folders
from heliostat.store import Store
from heliostat.store.endpoint_tables import Endpoint, EndpointUsage, SpoolRead

HOUR_MS = 3_600_000
ABANDONED_MS = 30_000
FORGET_MS = 24 * HOUR_MS
MOST = 2**53
"""No count of one call is larger; a database could not keep it."""
MAX_KEY = 40
COUNTS = ("at_ms", "status", "rows", "bytes_in", "bytes_out")
Log = Callable[[str, str, dict[str, Any]], None]  # level, event name, fields; Any: JSON
Line = dict[str, Any]  # Any: JSON of the gateway


@dataclass(slots=True)
class Sum:
    """What one (hour, version, key, kind of status) adds up to."""

    requests: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    busy_us: int = 0

    def add(self, line: Line) -> None:
        self.requests += 1
        self.rows += int(line.get("rows", 0))
        self.bytes_in += int(line.get("bytes_in", 0))
        self.bytes_out += int(line.get("bytes_out", 0))
        self.busy_us += round(float(line.get("ms", 0.0)) * 1000)


Place = tuple[int, int, str, int]
"""hour, deployment number, key, hundreds of the status."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One spool file, read. smoke requests are not in it."""

    file: str
    lines: list[Line]
    sums: dict[Place, Sum] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)


class Collector:
    """Owned by one thread."""

    def __init__(self, store: Store, folders: Folders, clock_ms: Callable[[], int], log: Log) -> None:
        self._store = store
        self._folders = folders
        self._clock_ms = clock_ms
        self._log = log

    def collect(self, endpoints: Iterable[str]) -> int:
        """Take in what is closed; returns how many calls that were."""
        found = 0
        for endpoint in endpoints:
            for path in self._ready(self._folders.spool(endpoint)):
                found += self._take(endpoint, path)
        return found

    def finish(self, endpoint: str) -> None:
        """The endpoint's gateways are gone: take in what they left, also what they could not close. Then its folder and log go."""
        folder = self._folders.spool(endpoint)
        for path in sorted((*folder.glob("*.jsonl"), *folder.glob("*.open"))):
            self._take(endpoint, path)
        for path in folder.glob("*"):
            path.unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()
        access_log.remove(self._folders.log(endpoint))

    def _ready(self, folder: Path) -> list[Path]:
        now_ms = self._clock_ms()
        closed = sorted(folder.glob("*.jsonl"))
        silent = [path for path in sorted(folder.glob("*.open")) if now_ms - _written_ms(path) > ABANDONED_MS]
        return closed + silent

    def _take(self, endpoint: str, path: Path) -> int:
        name = f"{endpoint}/{path.stem}"
        lines, odd = _lines(path)
        if odd:
            self._log("warning", "usage_lines_skipped", {"file": str(path), "lines": len(odd), "first": odd[0][:200]})
        batch = add_up(name, lines)
        now_ms = self._clock_ms()

        def work(session: Session) -> bool:
            if session.get(SpoolRead, name) is not None:
                return False
            row = session.get(Endpoint, endpoint)
            if row is None:  # its last gateway wrote after its usage was closed
                return False
            session.add(SpoolRead(file=name, lines=len(batch.lines), read_ms=now_ms))
            session.execute(delete(SpoolRead).where(SpoolRead.read_ms < now_ms - FORGET_MS))
            enter(session, endpoint, row.project, batch)
            return True

        if self._store.write(work) and batch.lines:
            access_log.append(self._folders.log(endpoint), batch.lines)
        path.unlink(missing_ok=True)
        return len(batch.lines)


def add_up(file: str, lines: Iterable[Line]) -> Batch:
    """Sums by hour, version, key and kind of status. Our own smoke requests do not count."""
    batch = Batch(file, [line for line in lines if not line.get("smoke")])
    for line in batch.lines:
        at_ms, key = int(line.get("at_ms", 0)), str(line.get("key") or "")
        place = (
            at_ms // HOUR_MS * HOUR_MS,
            version_number(str(line.get("v") or "")) or 0,
            key,
            int(line.get("status", 0)) // 100,
        )
        batch.sums.setdefault(place, Sum()).add(line)
        if key:
            batch.used[key] = max(batch.used.get(key, 0), at_ms)
    return batch


def enter(session: Session, endpoint: str, project: str, batch: Batch) -> None:
    """Add a batch to what stands there."""
    for (hour_ms, number, key, status), total in batch.sums.items():
        query = select(EndpointUsage).where(
            EndpointUsage.endpoint == endpoint,
            EndpointUsage.project == project,
            EndpointUsage.hour_ms == hour_ms,
            EndpointUsage.number == number,
            EndpointUsage.key == key,
            EndpointUsage.status == status,
        )
        row = session.execute(query).scalar_one_or_none()
        if row is None:
            row = EndpointUsage(
                endpoint=endpoint, hour_ms=hour_ms, number=number, key=key, status=status, project=project,
                requests=0, rows=0, bytes_in=0, bytes_out=0, busy_us=0,
            )  # fmt: skip
            session.add(row)
        row.requests += total.requests
        row.rows += total.rows
        row.bytes_in += total.bytes_in
        row.bytes_out += total.bytes_out
        row.busy_us += total.busy_us
    for key, at_ms in batch.used.items():
        rows.key_used(session, key, at_ms)


def _lines(path: Path) -> tuple[list[Line], list[str]]:
    """The lines, and those that are none."""
    found: list[Line] = []
    odd: list[str] = []
    for raw in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            line = None  # most often the last one of a gateway that was killed while it wrote
        if isinstance(line, dict) and _counts(line):
            found.append(line)
        else:
            odd.append(raw)
    return found, odd


def _counts(line: Line) -> bool:
    """Whether everything that is added up is a number that can be."""
    ms = line.get("ms", 0.0)
    whole = all(type(line.get(name, 0)) is int and 0 <= line.get(name, 0) <= MOST for name in COUNTS)
    return whole and type(ms) in (int, float) and 0 <= ms < MOST and len(str(line.get("key") or "")) <= MAX_KEY


def _written_ms(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return 0
