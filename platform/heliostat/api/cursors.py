"""Keyset cursors: opaque to the client, bound to the filter they were made with."""

from __future__ import annotations

import base64
import binascii
import hashlib

from heliostat.api.problems import Problem
from heliostat.store.jobs import JobFilter

MAX_SEQ = 1 << 63


def encode(seq: int, chosen: JobFilter) -> str:
    return base64.urlsafe_b64encode(f"{seq}:{_mark(chosen)}".encode()).decode().rstrip("=")


def decode(cursor: str, chosen: JobFilter) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seq, mark = text.split(":")
        if mark == _mark(chosen) and 0 <= int(seq) < MAX_SEQ:
            return int(seq)
    except (ValueError, binascii.Error, UnicodeDecodeError):
        pass  # falls to the answer below
    raise Problem(
        400,
        "invalid_cursor",
        "The cursor is not one of this list.",
        "Begin again without cursor, with the same filter.",
    )


def _mark(chosen: JobFilter) -> str:
    return hashlib.sha256(repr(chosen).encode()).hexdigest()[:12]
