"""Stored packages as files, for the executor: by project and URI."""

from __future__ import annotations

from heliostat.artifacts import ArtifactMissing, Artifacts
from heliostat.control.launch import Package
from heliostat.packages.keeping import uri_name
from heliostat.store import Store
from heliostat.store import tables as t


class PackageSource:
    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store = store
        self._artifacts = artifacts

    def find(self, project: str, uri: str) -> Package:
        """The package that this project stored under this URI. FileNotFoundError when it is gone."""
        with self._store.read() as session:
            row = session.get(t.Package, (project, uri_name(uri)))
        if row is None:
            raise FileNotFoundError(f"The package {uri} of project {project} was deleted.")
        try:
            return Package(row.digest, self._artifacts.path(row.digest))
        except ArtifactMissing as error:
            raise FileNotFoundError(str(error)) from error
