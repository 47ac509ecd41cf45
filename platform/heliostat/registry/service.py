"""The registry: artifacts and rows together. One object per process.

A push puts the artifact in first and the row second; a deletion takes the row first and the artifact second. Between the two of
a push another deletion of the same content could come: both therefore hold one lock while they look whether the artifact is
whole and whether it is referred to. The slow part, writing the files, happens outside of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from heliostat_jobs.spec import MODEL_NAME, BadResult, ModelCard, check_alias, check_metrics, check_tags
from sqlalchemy.orm import Session

from heliostat.artifacts import ArtifactFolders, Manifest
from heliostat.registry import versions
from heliostat.registry.archives import ModelLimits
from heliostat.registry.cards import read_card
from heliostat.registry.errors import RegistryError
from heliostat.registry.references import Reference
from heliostat.registry.versions import Actor, NewVersion
from heliostat.store import Store
from heliostat.store.model_tables import ModelAlias, ModelVersion

T = TypeVar("T")
UseCheck = Callable[[Session, str, str, int], list[str]]
"""(session, project, model, version) -> what uses this version, in words (`endpoint digits`)."""
AliasCheck = Callable[[ModelAlias | None], None]
"""Raises to refuse a move; gets the present pointer."""
_REFERENCES = threading.Lock()
"""Held while it is decided whether an artifact is referred to: all registries of this process share their store."""


@dataclass(frozen=True, slots=True)
class About:
    """What is told of a new version beside its folder."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    variant_of: int | None = None
    job: str = ""
    attempt: int | None = None

    def check(self) -> None:
        try:
            check_metrics(self.metrics)
            check_tags(self.tags)
            for alias in self.aliases:
                check_alias(alias)
        except BadResult as error:
            text = str(error)
            raise RegistryError("bad_model", text[0].upper() + text[1:] + ".", "Correct it and push again.") from error


class Registry:
    def __init__(
        self, store: Store, folders: ArtifactFolders, limits: ModelLimits, uses: Sequence[UseCheck] = ()
    ) -> None:
        self.store = store
        self.folders = folders
        self.limits = limits
        self._uses = tuple(uses)

    def push(
        self, project: str, name: str, staged: Path, about: About, actor: Actor, *, allow_pickle: bool = False,
        also: Callable[[Session, ModelVersion], T] | None = None,
    ) -> tuple[ModelVersion, T | None]:  # fmt: skip
        """Make a staged folder the next version of a model. `also` runs in the transaction that writes it."""
        if not MODEL_NAME.fullmatch(name):
            text = f"'{name[:200]}' is no name of a model: letters, digits, '.', '_' and '-', at most 100."
            raise RegistryError("bad_model", text, "Change the name.")
        about.check()
        card = read_card(staged, allow_pickle=allow_pickle)
        manifest = self.folders.keep(staged)
        return self._enter(_new(project, name, card, manifest, about), actor, also)

    def _enter(
        self, new: NewVersion, actor: Actor, also: Callable[[Session, ModelVersion], T] | None
    ) -> tuple[ModelVersion, T | None]:
        def work(session: Session) -> tuple[ModelVersion, T | None]:
            row = versions.add(session, new, actor)
            return row, None if also is None else also(session, row)

        with _REFERENCES:
            if not self.folders.has(new.sha256):
                text = "The artifact was deleted by somebody while it was being pushed."
                raise RegistryError("artifact_gone", text, "Push it again.", 409)
            return self.store.write(work)

    def delete(self, project: str, reference: Reference, actor: Actor) -> ModelVersion:
        """Delete one version, unless an alias points at it or something uses it. Its artifact goes with the last version that has it."""

        def work(session: Session) -> tuple[ModelVersion, bool]:
            row = versions.resolve(session, project, reference)
            self._check_unused(session, row)
            return row, versions.remove(session, row, actor)

        with _REFERENCES:
            row, unreferred = self.store.write(work)
            if unreferred:
                self.folders.drop(row.sha256)
        return row

    def delete_model(self, project: str, name: str, actor: Actor) -> list[ModelVersion]:
        """Delete every version of a model and its aliases, unless something uses one of them."""

        def work(session: Session) -> tuple[list[ModelVersion], set[str]]:
            versions.find_model(session, project, name)
            rows = versions.page(session, project, name, None, 1_000_000)
            for row in rows:
                self._check_unused(session, row, aliased=False)
            for alias in versions.aliases(session, project, [name]):
                versions.unpoint(session, alias, actor)
            return rows, {row.sha256 for row in rows if versions.remove(session, row, actor)}

        with _REFERENCES:
            rows, unreferred = self.store.write(work)
            for digest in unreferred:
                self.folders.drop(digest)
        return rows

    def _check_unused(self, session: Session, row: ModelVersion, *, aliased: bool = True) -> None:
        names = versions.aliases(session, row.project, [row.model]) if aliased else []
        aliases = [alias.alias for alias in names if alias.version == row.version]
        served = [use for uses in self._uses for use in uses(session, row.project, row.model, row.version)]
        if not aliases and not served:
            return
        users = [*(f"alias @{alias}" for alias in aliases), *served]
        first = [f"helio model alias {row.model} {alias} N moves the alias." for alias in aliases[:1]]
        first += [f"helio endpoint rm {use} takes it away there, once it has no traffic." for use in served[:1]]
        text = f"{row.model}:{row.version} is in use: {', '.join(users)}."
        raise RegistryError("model_in_use", text, " ".join(first), 409)

    def move_alias(
        self, project: str, name: str, alias: str, reference: Reference, actor: Actor, check: AliasCheck
    ) -> ModelAlias:
        """Point an alias at a version, in one transaction. `check` sees the present pointer and may refuse."""
        _check_alias(alias)

        def work(session: Session) -> ModelAlias:
            row = versions.resolve(session, project, reference)
            found = versions.find_alias(session, project, name, alias)
            check(found)
            if found is not None and found.version == row.version:
                return found
            return versions.point(session, row, alias, actor)

        return self.store.write(work)

    def drop_alias(self, project: str, name: str, alias: str, actor: Actor, check: AliasCheck) -> None:
        def work(session: Session) -> None:
            versions.find_model(session, project, name)
            found = versions.find_alias(session, project, name, alias)
            if found is None:
                text = f"Model {name} has no alias @{alias}."
                raise RegistryError("unknown_version", text, f"helio model show {name} lists them.", 404)
            check(found)
            versions.unpoint(session, found, actor)

        self.store.write(work)


def _check_alias(alias: str) -> None:
    try:
        check_alias(alias)
    except BadResult as error:
        raise RegistryError(
            "bad_alias", f"{error}.", "Choose another name; @latest always means the newest."
        ) from error


def _new(project: str, name: str, card: ModelCard, manifest: Manifest, about: About) -> NewVersion:
    return NewVersion(
        project=project,
        model=name,
        sha256=manifest.digest,
        format=card.format,
        signature=card.signature.to_json(),
        size_bytes=manifest.size,
        files=len(manifest.files),
        metrics=about.metrics,
        tags=about.tags,
        lineage=about.lineage,
        aliases=about.aliases,
        job=about.job,
        attempt=about.attempt,
        variant_of=about.variant_of,
    )
