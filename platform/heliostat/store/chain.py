"""Hash chains: each record's hash covers the record and the hash before it, so that a changed or missing record shows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

GENESIS = "0" * 64


def link(previous: str, record: dict[str, Any]) -> str:  # Any: JSON
    """The hash of `record` after `previous` (hex)."""
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(previous.encode() + body.encode()).hexdigest()
