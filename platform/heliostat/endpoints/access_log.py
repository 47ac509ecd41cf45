"""The access log of an endpoint: JSON lines in a file, turned over when it is large. Written by the collector alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 2**20
KEPT = 3
READ_BYTES = 4 * 2**20


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
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - READ_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = text.splitlines()[1 if size > READ_BYTES else 0 :]
    found = [line for raw in lines if (line := _parsed(raw)) is not None and line.get("at_ms", 0) > after_ms]
    return found[-limit:]


def remove(path: Path) -> None:
    """The endpoint is gone, its log with it."""
    for each in (path, *(_turned(path, number) for number in range(1, KEPT + 1))):
        each.unlink(missing_ok=True)


def _turned(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _parsed(raw: str) -> dict[str, Any] | None:  # Any: JSON of the gateway
    try:
        line = json.loads(raw)
    except ValueError:
        return None  # cut by a crash
    return line if isinstance(line, dict) else None
