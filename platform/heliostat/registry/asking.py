"""A succeeded job asks for its model to be registered: a row on the registrar's list, written with the job's end.

Which name: the job's metadata `register` (what `helio train --register` sets), else the name in its result.json. A job that
names none keeps its model in its run folder.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from heliostat.store import events
from heliostat.store.inserting import insert_row
from heliostat.store.model_tables import ModelRegistration
from heliostat.store.tables import Job

REGISTER = "register"
REGISTER_ALIAS = "register_alias"
PENDING, DONE, REFUSED = "pending", "done", "refused"


def ask(session: Session, job: Job, n: int, model: dict[str, Any] | None, now_ms: int) -> None:  # Any: JSON
    """Put the job's model on the list, once. model: `model` of its result.json."""
    wanted = str(job.job_metadata.get(REGISTER) or "")
    name = wanted or str((model or {}).get("name") or "")
    if not name or session.get(ModelRegistration, job.id) is not None:
        return
    row = {"job": job.id, "project": job.project, "attempt": n, "model": name, "asked_ms": now_ms}
    if model is not None:
        insert_row(session, ModelRegistration, {**row, "state": PENDING})
        return
    text = f"The job was to register {name}, but its run folder has no result.json that names a model."
    insert_row(
        session, ModelRegistration, {**row, "state": REFUSED, "code": "no_model", "text": text, "done_ms": now_ms}
    )
    refused(session, job.id, job.project, n, name, "no_model", text, "docs/models.md says what a job writes.", now_ms)


def refused(
    session: Session, job: str, project: str, n: int, name: str, code: str, text: str, remedy: str, now_ms: int
) -> None:
    """The event on the job that says why its model was not registered."""
    data = {"model": name, "code": code, "text": text, "remedy": remedy}
    events.append(session, at_ms=now_ms, kind="model_refused", job=job, project=project, attempt=n, data=data)
