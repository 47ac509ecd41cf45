"""Usage files: one JSON line per call, for the control plane to collect. They are the access log and the meter in one.

A replica writes `<replica>-<n>.open` and closes it by renaming it to `.jsonl`: whoever finds a `.jsonl` may read, count and delete
it. A file that stays `.open` long after its last line belongs to a replica that died; it is complete up to its last newline. What
was said in the last half second before a kill -9 is lost.

Calls without a valid key get a bounded number of lines, so that nobody can fill a disk without a key; all are in the metrics.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO

logger = logging.getLogger("ray.serve")
ROTATE_S = 2.0
ROTATE_BYTES = 4 << 20
MOST_LINES = 200_000
"""Kept in memory while the disk does not take them."""
MOST_UNKNOWN = 50
"""Lines without a key, per flush."""
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/")


@dataclass(slots=True)
class Call:
    """What is known of a call when it is over."""

    at_ms: int
    key: str
    version: str
    status: int
    code: str
    ms: float
    bytes_in: int
    bytes_out: int
    route: str
    request_id: str
    rows: int
    smoke: bool

    def line(self) -> str:
        return (
            f'{{"at_ms":{self.at_ms},"key":{_text(self.key)},"v":"{self.version}","status":{self.status},"code":"{self.code}",'
            f'"ms":{self.ms:.3f},"bytes_in":{self.bytes_in},"bytes_out":{self.bytes_out},"route":"{self.route}",'
            f'"request_id":{_text(self.request_id)},"rows":{self.rows}{SMOKE if self.smoke else ""}}}\n'
        )


SMOKE = ',"smoke":true'


class Spool:
    """`add` from the event loop, `flush` from a thread: a list is swapped, nothing waits."""

    def __init__(self, folder: str, replica: str) -> None:
        self.folder = folder
        self._replica = replica
        self._calls: list[Call] = []
        self._unwritten: list[str] = []
        self._unknown = 0
        self._file: IO[str] | None = None
        self._path = Path()
        self._number = 0
        self._opened_s = 0.0
        self._failing = False
        self.dropped = 0

    def add(self, call: Call) -> None:
        if not self.folder:
            return
        if not call.key:
            self._unknown += 1
            if self._unknown > MOST_UNKNOWN:
                return
        self._calls.append(call)

    def flush(self, now_s: float) -> None:
        calls, self._calls = self._calls, []
        self._unknown = 0
        if not self.folder:
            return
        self._unwritten.extend(call.line() for call in calls)
        try:
            self._write(now_s)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        self.flush(self._opened_s + ROTATE_S)

    def _write(self, now_s: float) -> None:
        if self._unwritten:
            file = self._file or self._open(now_s)
            file.write("".join(self._unwritten))
            file.flush()
            self._unwritten = []
        if self._file is not None and (now_s - self._opened_s >= ROTATE_S or self._file.tell() >= ROTATE_BYTES):
            self._file.close()
            self._file = None
            self._path.rename(self._path.with_suffix(".jsonl"))
        if self._failing:
            logger.warning("Usage file of %s is written again; %d lines were dropped.", self.folder, self.dropped)
            self._failing = False

    def _open(self, now_s: float) -> IO[str]:
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        self._number += 1
        self._path = Path(self.folder) / f"{self._replica}-{self._number}.open"
        self._file = self._path.open("a", encoding="utf-8")
        self._opened_s = now_s
        return self._file

    def _failed(self, error: OSError) -> None:
        """The disk is full or gone: keep a bounded number of lines and go on answering."""
        self._file = None
        excess = len(self._unwritten) - MOST_LINES
        if excess > 0:
            del self._unwritten[:excess]
            self.dropped += excess
        if not self._failing:
            logger.error("Usage file in %s cannot be written: %s. Calls are kept in memory.", self.folder, error)
            self._failing = True


def _text(value: str) -> str:
    return f'"{value}"' if PLAIN.issuperset(value) else json.dumps(value)
