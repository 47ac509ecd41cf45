"""Models, versions and aliases in the store: every function runs in the caller's transaction and changes rows only.

What happened and who did it is written with it: an event (for streams and histories) and an audit row. A reader of another
project gets the same answer as for a name that nobody uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from heliostat.registry.errors import RegistryError, unknown_model, unknown_version
from heliostat.registry.references import LATEST, Reference, parse_reference
from heliostat.store import audit, events
from heliostat.store.inserting import insert_row
from heliostat.store.model_tables import Model, ModelAlias, ModelVersion


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, when, and in which request."""

    user: str
    now_ms: int
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What is known of a version before it has a number. lineage: what it was made from; see `lineage`."""

    project: str
    model: str
    sha256: str
    format: str
    signature: dict[str, Any]  # Any: JSON
    size_bytes: int
    files: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    aliases: Sequence[str] = ()
    job: str = ""
    attempt: int | None = None
    variant_of: int | None = None


def add(session: Session, new: NewVersion, actor: Actor) -> ModelVersion:
    """Give it the next number, and its aliases."""
    model = session.get(Model, (new.project, new.model), with_for_update=True)
    if model is None:
        made = {"project": new.project, "name": new.model, "created_ms": actor.now_ms, "created_by": actor.user}
        insert_row(session, Model, made)
        model = session.get_one(Model, (new.project, new.model))
    if new.variant_of is not None:
        resolve(session, new.project, Reference(new.model, version=new.variant_of))
    model.last_version += 1
    row = ModelVersion(
        project=new.project,
        model=new.model,
        version=model.last_version,
        sha256=new.sha256,
        format=new.format,
        signature=new.signature,
        metrics=dict(new.metrics),
        tags=dict(new.tags),
        lineage=dict(new.lineage),
        size_bytes=new.size_bytes,
        files=new.files,
        created_ms=actor.now_ms,
        created_by=actor.user,
        job=new.job,
        attempt=new.attempt,
        variant_of=new.variant_of,
    )
    session.add(row)
    session.flush()
    told = {"model": row.model, "version": row.version, "sha256": row.sha256, "format": row.format}
    _tell(session, "model_registered", row.project, f"{row.model}:{row.version}", actor, told, job=new.job or None)
    for alias in new.aliases:
        point(session, row, alias, actor)
    return row


def resolve(session: Session, project: str, reference: str | Reference) -> ModelVersion:
    """The version that `name@alias`, `name:3` or `name` stands for now; RegistryError (404) when there is none."""
    asked = parse_reference(reference) if isinstance(reference, str) else reference
    number = asked.version
    if number is None and asked.alias != LATEST:
        row = session.get(ModelAlias, (project, asked.name, asked.alias))
        if row is None:
            raise _missing(session, project, asked)
        number = row.version
    query = select(ModelVersion).where(ModelVersion.project == project, ModelVersion.model == asked.name)
    if number is None:
        found = session.execute(query.order_by(ModelVersion.version.desc()).limit(1)).scalar_one_or_none()
    else:
        found = session.execute(query.where(ModelVersion.version == number)).scalar_one_or_none()
    if found is None:
        raise _missing(session, project, asked)
    return found


def _missing(session: Session, project: str, asked: Reference) -> RegistryError:
    find_model(session, project, asked.name)
    return unknown_version(asked.name, str(asked.version) if asked.version is not None else f"@{asked.alias}")


HAS_VERSIONS = exists().where(ModelVersion.project == Model.project, ModelVersion.model == Model.name)
"""A model whose versions were all deleted is only a counter: its numbers are not used twice."""


def find_model(session: Session, project: str, name: str) -> Model:
    query = select(Model).where(Model.project == project, Model.name == name, HAS_VERSIONS)
    row = session.execute(query).scalar_one_or_none()
    if row is None:
        raise unknown_model(name)
    return row


def models_after(session: Session, projects: tuple[str, ...] | None, after: tuple[str, str], limit: int) -> list[Model]:
    """Models by name then project, behind `after` (name, project). projects None: all."""
    query = select(Model).where(HAS_VERSIONS).order_by(Model.name, Model.project).limit(limit)
    if projects is not None:
        query = query.where(Model.project.in_(projects))
    name, project = after
    query = query.where((Model.name > name) | ((Model.name == name) & (Model.project > project)))
    return list(session.execute(query).scalars())


def page(session: Session, project: str, name: str, before: int | None, limit: int) -> list[ModelVersion]:
    """Versions of a model, newest first, numbers below `before`."""
    query = select(ModelVersion).where(ModelVersion.project == project, ModelVersion.model == name)
    if before is not None:
        query = query.where(ModelVersion.version < before)
    return list(session.execute(query.order_by(ModelVersion.version.desc()).limit(limit)).scalars())


def newest(session: Session, models: Sequence[Model]) -> dict[tuple[str, str], tuple[ModelVersion, int]]:
    """(project, name) -> its newest version and how many there are, for many models at once."""
    names = {model.name for model in models}
    counted = (
        select(ModelVersion.project, ModelVersion.model, func.max(ModelVersion.version), func.count())
        .where(ModelVersion.model.in_(names))
        .group_by(ModelVersion.project, ModelVersion.model)
    )
    counts = {(project, model): (top, number) for project, model, top, number in session.execute(counted)}
    tops = select(ModelVersion).where(
        ModelVersion.model.in_(names), ModelVersion.version.in_({top for top, _ in counts.values()})
    )
    found: dict[tuple[str, str], tuple[ModelVersion, int]] = {}
    for row in session.execute(tops).scalars():
        top, number = counts[(row.project, row.model)]
        if row.version == top:
            found[(row.project, row.model)] = (row, number)
    return found


def aliases(session: Session, project: str | None, names: Sequence[str]) -> list[ModelAlias]:
    """All aliases of these models, by name. project None: of all projects."""
    query = select(ModelAlias).where(ModelAlias.model.in_(names)).order_by(ModelAlias.alias)
    return list(session.execute(query if project is None else query.where(ModelAlias.project == project)).scalars())


def find_alias(session: Session, project: str, name: str, alias: str) -> ModelAlias | None:
    return session.get(ModelAlias, (project, name, alias))


def point(session: Session, row: ModelVersion, alias: str, actor: Actor) -> ModelAlias:
    """Let an alias point at this version; the old pointer is replaced in the same transaction."""
    found = session.get(ModelAlias, (row.project, row.model, alias), with_for_update=True)
    old = None if found is None else found.version
    if found is None:
        found = ModelAlias(
            project=row.project, model=row.model, alias=alias, version=row.version, revision=0, moved_ms=0
        )
        session.add(found)
    found.version, found.moved_ms, found.moved_by = row.version, actor.now_ms, actor.user
    found.revision += 1
    session.flush()
    told = {"model": row.model, "alias": alias, "from": old, "to": row.version}
    _tell(session, "model_alias_moved", row.project, f"{row.model}@{alias}", actor, told)
    return found


def unpoint(session: Session, found: ModelAlias, actor: Actor) -> None:
    session.execute(
        delete(ModelAlias).where(
            ModelAlias.project == found.project, ModelAlias.model == found.model, ModelAlias.alias == found.alias
        )
    )
    told = {"model": found.model, "alias": found.alias, "from": found.version, "to": None}
    _tell(session, "model_alias_removed", found.project, f"{found.model}@{found.alias}", actor, told)


def remove(session: Session, row: ModelVersion, actor: Actor) -> bool:
    """Delete a version's row; returns whether nothing else refers to its artifact. Guards are the caller's business."""
    session.execute(delete(ModelVersion).where(ModelVersion.seq == row.seq))
    told = {"model": row.model, "version": row.version, "sha256": row.sha256}
    _tell(session, "model_version_deleted", row.project, f"{row.model}:{row.version}", actor, told)
    used = select(func.count()).where(ModelVersion.sha256 == row.sha256)
    return not session.execute(used).scalar()


def _tell(
    session: Session,
    kind: str,
    project: str,
    what: str,
    actor: Actor,
    data: dict[str, Any],  # Any: JSON
    *,
    job: str | None = None,
) -> None:
    events.append(session, at_ms=actor.now_ms, kind=kind, job=job, project=project, actor=actor.user, data=data)
    audit.append(
        session,
        at_ms=actor.now_ms,
        actor=actor.user,
        project=project,
        action=kind,
        object=what,
        request_id=actor.request_id,
        data=data,
    )
