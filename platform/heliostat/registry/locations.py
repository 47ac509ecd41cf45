"""Where the artifact of a version lies."""

from __future__ import annotations

from heliostat.artifacts import ArtifactFolders
from heliostat.store.model_tables import ModelVersion


def artifact_uri(version: ModelVersion, folders: ArtifactFolders) -> str:
    """A URI for `pyarrow.fs.FileSystem.from_uri`: the folder with manifest.json, whose SHA-256 is `version.sha256`."""
    return folders.uri(version.sha256)
