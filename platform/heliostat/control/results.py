"""`result.json` of a run folder: what the job says about itself. Read once, when the job has ended, and never trusted blindly.

The model that it names is put on the registrar's list in the transaction of the job's end, and registered later by another thread
(`heliostat.registry.registrar`): copying and hashing may take longer than a turn of the loop.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from heliostat_jobs.spec import BadResult, read_result
from sqlalchemy.orm import Session

from heliostat.registry.asking import ask
from heliostat.store import events, jobs


def read(run_dir: Path) -> dict[str, Any] | None:  # Any: JSON
    """The job's result; None when it wrote none. What cannot be used is named in `problem` instead of being dropped."""
    try:
        result = read_result(run_dir)
    except (BadResult, OSError, UnicodeDecodeError) as error:
        return {"metrics": {}, "problem": str(error)}
    return None if result is None else asdict(result)


def finished(session: Session, job_id: str, n: int, result: dict[str, Any] | None, now_ms: int) -> None:  # Any: JSON
    """A job has succeeded: say what is wrong with its result, or ask for its model to be registered."""
    job = jobs.get(session, job_id)
    problem = None if result is None else result.get("problem")
    if problem:
        data = {"code": "bad_result", "text": f"result.json cannot be used: {problem}."}
        events.append(
            session, at_ms=now_ms, kind="result_refused", job=job_id, project=job.project, attempt=n, data=data
        )
        return
    ask(session, job, n, None if result is None else result.get("model"), now_ms)
