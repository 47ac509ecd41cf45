"""`result.json` of a run folder: what the job says about itself. Read once, when the job has ended, and never trusted blindly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20


def read(run_dir: Path) -> dict[str, Any] | None:  # Any: JSON
    """The job's result; None when it wrote none. What cannot be used is named in `problem` instead of being dropped."""
    path = run_dir / "result.json"
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        return {"problem": f"result.json is larger than {MAX_BYTES} bytes and was not read"}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"problem": f"result.json cannot be read: {error}"}
    if not isinstance(body, dict):
        return {"problem": "result.json must hold an object"}
    return body
