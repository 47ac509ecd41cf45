"""A member of one project learns nothing of another's jobs: foreign ids are taken out of what the engine says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.access import Principal
from heliostat.store.tables import Job

FOREIGN = "(a job of another project)"


def foreign_jobs(session: Session, ids: Iterable[str], principal: Principal) -> set[str]:
    """Those of `ids` that the caller may not see."""
    wanted = sorted({name for name in ids if name})
    if principal.everywhere or not wanted:
        return set()
    rows = session.execute(select(Job.id, Job.project).where(Job.id.in_(wanted)))
    return {job for job, project in rows if not principal.sees(project)}


def masked(document: dict[str, Any], foreign: set[str]) -> dict[str, Any]:  # Any: JSON
    """The document without the foreign ids, wherever they stand in it."""
    if not foreign:
        return document
    pattern = re.compile(
        "|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in sorted(foreign, key=len, reverse=True))
    )
    clean: dict[str, Any] = json.loads(pattern.sub(FOREIGN, json.dumps(document)))
    return clean


def named_in(explanation: dict[str, Any]) -> set[str]:  # Any: JSON
    """The jobs that an explanation speaks of."""
    found = set(explanation.get("blockers") or ())
    if explanation.get("growth"):
        found |= named_in(explanation["growth"])
    for past in explanation.get("story") or ():
        found |= set(past.get("for") or ())
    for remedy in explanation.get("remedies") or ():
        found |= set(remedy.get("evicts") or ())
    for _, value in (explanation.get("facts") or {}).items():
        if isinstance(value, str):
            found.add(value)
    return found
