"""The access log of an endpoint: JSON lines in a file, turned over when it is large. Written by the collector alone.

A place in it is a file and an offset, `<inode>-<offset>`: times would do only if no two calls ended in one millisecond and gateways
handed theirs in in order. Whoever reads on from a place gets every line once; from one that is not there any more, what there is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 16 * 2**20
KEPT = 3
READ_BYTES = 4 * 2**20
NOWHERE = "0-0"
"""The place before a log that is not there yet."""


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:  # Any: JSON of the gateway
    """Add lines; a file that grew beyond MAX_BYTES is turned over first, and the oldest of KEPT files goes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_BYTES:
        for number in range(KEPT - 1, 0, -1):
            older = _turned(path, number)
            if older.exists():
                older.replace(_turned(path, number + 1))
        path.replace(_turned(path, 1))
        _turned(path, KEPT).unlink(missing_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def tail(path: Path, limit: int, after_ms: int = 0) -> list[dict[str, Any]]:  # Any: JSON of the gateway
    """The newest lines, at most `limit`, oldest first; those after `after_ms` only."""
    return newest(path, limit, after_ms)[0]


def newest(path: Path, limit: int, after_ms: int = 0) -> tuple[list[dict[str, Any]], str]:  # Any: as tail
    """The same, and the place behind them."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - READ_BYTES))
            whole, _, cut = file.read().rpartition(b"\n")  # the last line may be under way
            place = f"{os.fstat(file.fileno()).st_ino}-{file.tell() - len(cut)}"
    except FileNotFoundError:
        return [], NOWHERE
    lines = whole.decode("utf-8", "replace").splitlines()[1 if size > READ_BYTES else 0 :]
    found = [line for raw in lines if (line := _parsed(raw)) is not None and line.get("at_ms", 0) > after_ms]
    return found[-limit:], place


def read_on(path: Path, place: str, limit: int) -> tuple[list[dict[str, Any]], str]:  # Any: JSON of the gateway
    """The lines behind `place`, at most `limit`, and the place behind those."""
    inode, offset = _place(place)
    found: list[dict[str, Any]] = []
    with ExitStack() as open_files:
        files = _oldest_first(path, open_files)
        numbers = list(files)
        for number in numbers[numbers.index(inode) if inode in files else 0 :]:
            lines, end = _from(files[number], offset if number == inode else 0, limit - len(found))
            found += lines
            place = f"{number}-{end}"
            if len(found) >= limit:
                break
    return found, place


def remove(path: Path) -> None:
    """The endpoint is gone, its log with it."""
    for each in (path, *(_turned(path, number) for number in range(1, KEPT + 1))):
        each.unlink(missing_ok=True)


def _turned(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,20})-(\d{1,18})", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _oldest_first(path: Path, open_files: ExitStack) -> dict[int, BinaryIO]:
    """The log's files by inode. Opened newest first: one that is turned over meanwhile comes twice rather than not at all."""
    found: dict[int, BinaryIO] = {}
    for each in (path, *(_turned(path, number) for number in range(1, KEPT + 1))):
        try:
            file = open_files.enter_context(each.open("rb"))
        except FileNotFoundError:
            continue
        found[os.fstat(file.fileno()).st_ino] = file
    return dict(reversed(found.items()))


def _from(file: BinaryIO, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:  # Any: as _parsed
    """Whole lines from an offset on, and the offset behind them."""
    found: list[dict[str, Any]] = []
    file.seek(offset)
    for raw in file:
        if len(found) >= limit or not raw.endswith(b"\n"):
            break
        offset += len(raw)
        line = _parsed(raw.decode("utf-8", "replace"))
        if line is not None:
            found.append(line)
    return found, offset


def _parsed(raw: str) -> dict[str, Any] | None:  # Any: JSON of the gateway
    try:
        line = json.loads(raw)
    except ValueError:
        return None  # cut by a crash
    return line if isinstance(line, dict) else None
