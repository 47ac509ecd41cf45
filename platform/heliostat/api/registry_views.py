"""Rows of the registry as the API shows them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.api import registry_shapes as shapes
from heliostat.api.views import at
from heliostat.registry import Model, ModelAlias, ModelVersion, versions
from heliostat.store import jobs

MAX_ANCESTORS = 100


def version_views(session: Session, rows: Sequence[ModelVersion]) -> list[shapes.ModelVersion]:
    pointers: dict[tuple[str, str, int], list[str]] = {}
    for alias in versions.aliases(session, None, sorted({row.model for row in rows})):
        pointers.setdefault((alias.project, alias.model, alias.version), []).append(alias.alias)
    return [_version(row, pointers.get((row.project, row.model, row.version), [])) for row in rows]


def version_view(session: Session, row: ModelVersion) -> shapes.ModelVersion:
    return version_views(session, [row])[0]


def model_views(session: Session, rows: Sequence[Model]) -> list[shapes.ModelSummary]:
    newest = versions.newest(session, rows)
    tops = version_views(session, [row for row, _ in newest.values()])
    shown = {(top.project, top.model): top for top in tops}
    pointers: dict[tuple[str, str], dict[str, int]] = {}
    for alias in versions.aliases(session, None, sorted({row.name for row in rows})):
        pointers.setdefault((alias.project, alias.model), {})[alias.alias] = alias.version
    return [
        shapes.ModelSummary(
            name=row.name,
            project=row.project,
            versions=newest[(row.project, row.name)][1],
            latest=shown[(row.project, row.name)],
            aliases=pointers.get((row.project, row.name), {}),
            created_at=at(row.created_ms),
        )
        for row in rows
        if (row.project, row.name) in newest
    ]


def alias_view(row: ModelAlias) -> shapes.Alias:
    return shapes.Alias(
        model=row.model,
        project=row.project,
        alias=row.alias,
        version=row.version,
        moved_at=at(row.moved_ms),
        moved_by=row.moved_by,
    )


def lineage_view(session: Session, row: ModelVersion) -> shapes.Lineage:
    told = row.lineage
    children = select(ModelVersion).where(
        ModelVersion.project == row.project, ModelVersion.model == row.model, ModelVersion.variant_of == row.version
    )
    return shapes.Lineage(
        model=row.model,
        project=row.project,
        version=row.version,
        sha256=row.sha256,
        pushed_by=None if row.job else row.created_by,
        job=_origin(session, row) if row.job else None,
        code_digest=told.get("code_digest") or None,
        data_digest=told.get("data_digest") or None,
        package_digest=told.get("package_digest") or None,
        params=told.get("params") or {},
        ancestors=_ancestors(session, row),
        variants=[_relative(child) for child in session.execute(children.order_by(ModelVersion.version)).scalars()],
    )


def _version(row: ModelVersion, aliases: list[str]) -> shapes.ModelVersion:
    return shapes.ModelVersion(
        model=row.model,
        project=row.project,
        version=row.version,
        sha256=row.sha256,
        format=row.format,
        signature=shapes.Signature.model_validate(row.signature),
        metrics=row.metrics,
        tags=row.tags,
        aliases=aliases,
        size_bytes=row.size_bytes,
        files=row.files,
        created_at=at(row.created_ms),
        created_by=row.created_by,
        job=row.job or None,
        attempt=row.attempt,
        variant_of=row.variant_of,
    )


def _origin(session: Session, row: ModelVersion) -> shapes.Origin:
    job = jobs.find(session, row.job)
    told = row.lineage
    return shapes.Origin(
        id=row.job,
        attempt=row.attempt,
        known=job is not None,
        name=str(told.get("job_name") or ""),
        queue=str(told.get("queue") or ""),
        user=str(told.get("user") or ""),
        entrypoint=job.entrypoint or shlex.join(job.argv) if job is not None else "",
    )


def _ancestors(session: Session, row: ModelVersion) -> list[shapes.Relative]:
    """The versions it is a variant of, nearest first; one that was deleted ends the walk."""
    found: list[shapes.Relative] = []
    while row.variant_of is not None and len(found) < MAX_ANCESTORS:
        query = select(ModelVersion).where(
            ModelVersion.project == row.project, ModelVersion.model == row.model, ModelVersion.version == row.variant_of
        )
        parent = session.execute(query).scalar_one_or_none()
        if parent is None:
            break
        found.append(_relative(parent))
        row = parent
    return found


def _relative(row: ModelVersion) -> shapes.Relative:
    return shapes.Relative(version=row.version, sha256=row.sha256)
