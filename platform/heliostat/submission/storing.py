"""Enter an accepted submission into the store: one transaction with job, event and audit row, or nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from heliostat.access import Principal, project_exists
from heliostat.store import audit, events, jobs
from heliostat.store.tables import Job, Package
from heliostat.submission.deciding import Accepted, unknown_project
from heliostat.submission.request import Refused


def enter(session: Session, accepted: Accepted, principal: Principal, *, request_id: str, chosen_id: bool) -> Job:
    """Insert the job; Refused when its packages, the jobs it waits for or its id are not as they must be."""
    values = accepted.values
    job_id, project, now = str(values["id"]), str(values["project"]), int(values["submitted_ms"])
    if chosen_id and jobs.known(session, job_id):
        raise Refused(
            "job_exists",
            f"The id {job_id} was used before.",
            "Choose another id, or leave it out.",
            status=409,
            field="id",
        )
    if not project_exists(session, project):
        raise unknown_project(project)
    _check_packages(session, project, accepted.packages, principal)
    check_dependencies(session, principal, accepted.after)
    jobs.add(session, dict(values))
    events.append(
        session,
        at_ms=now,
        kind="job_submitted",
        job=job_id,
        project=project,
        actor=principal.user,
        to_state=str(values["state"]),
        data=_told(values),
    )
    audit.append(
        session,
        at_ms=now,
        actor=principal.user,
        project=project,
        action="job_submitted",
        object=job_id,
        request_id=request_id,
    )
    return jobs.as_added(values)


def _told(values: dict[str, Any]) -> dict[str, Any]:  # Any: column values, JSON
    return {key: values[key] for key in ("queue", "priority", "kind", "min_tasks", "max_tasks", "gpu_milli", "name")}


def _check_packages(session: Session, project: str, names: tuple[str, ...], principal: Principal) -> None:
    """Every package is in the project. One that its uploader left in his home project comes along: Ray's client uploads before
    it says which project the job is for."""
    for name in names:
        if session.get(Package, (project, name)) is not None:
            continue
        uploaded = session.get(Package, (principal.home, name)) if principal.sees(project) else None
        if uploaded is not None:
            values = {column.key: getattr(uploaded, column.key) for column in Package.__table__.columns}
            session.execute(insert(Package).values({**values, "project": project}))
        else:
            raise Refused(
                "unknown_package",
                f"Project {project} has no package {name}.",
                "Upload it first (ray job submit --working-dir does), with a token of the same project.",
                field="working_dir",
            )


def check_dependencies(session: Session, principal: Principal, after: tuple[str, ...]) -> None:
    for name in after:
        project = session.execute(select(Job.project).where(Job.id == name)).scalar()
        if project is None or not principal.sees(project):
            raise Refused(
                "unknown_job", f"There is no job {name} to wait for.", "Check `after`.", status=404, field="after"
            )
