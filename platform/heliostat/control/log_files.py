"""A job's log: the attempts' files, joined, with a marker line before each attempt after the first.

Offsets count bytes of the joined text. They stay valid while the log grows: an attempt's file is complete before the next
attempt starts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from heliostat.store.tables import Attempt

PAGE_BYTES = 1 << 20


def page(attempts: Sequence[Attempt], offset: int, limit: int = PAGE_BYTES) -> tuple[str, int]:
    """Text from `offset` on (at most `limit` bytes, never half a character), and the offset after it."""
    found = b""
    position = 0
    for size, read in _pieces(attempts):
        start = max(0, offset - position)
        if start < size and len(found) < limit:
            found += read(start, limit - len(found))
        position += size
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(found)
    return text, offset + len(found) - len(decoder.getstate()[0])


class _Text:
    def __init__(self, text: bytes) -> None:
        self._text = text

    def __call__(self, start: int, limit: int) -> bytes:
        return self._text[start : start + limit]


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, start: int, limit: int) -> bytes:
        with self._path.open("rb") as source:
            source.seek(start)
            return source.read(limit)


def _pieces(attempts: Sequence[Attempt]) -> Iterator[tuple[int, _Text | _File]]:
    for attempt in attempts:
        path = Path(attempt.log_path) if attempt.log_path else None
        size = path.stat().st_size if path is not None and path.is_file() else 0
        if attempt.n > 1:
            marker = _marker(attempt)
            yield len(marker), _Text(marker)
        if path is not None and size:
            yield size, _File(path)


def _marker(attempt: Attempt) -> bytes:
    at = datetime.fromtimestamp(attempt.started_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"[heliostat] attempt {attempt.n} of {attempt.job} started {at}\n".encode()
