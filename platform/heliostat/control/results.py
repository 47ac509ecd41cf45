"""`result.json` of a run folder: what the job says about itself. Read once, when the job has ended, and never trusted blindly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from heliostat_jobs.spec import BadResult, read_result


def read(run_dir: Path) -> dict[str, Any] | None:  # Any: JSON
    """The job's result; None when it wrote none. What cannot be used is named in `problem` instead of being dropped."""
    try:
        result = read_result(run_dir)
    except (BadResult, OSError, UnicodeDecodeError) as error:
        return {"metrics": {}, "problem": str(error)}
    return None if result is None else asdict(result)
