"""Content-addressed files and folders: written once, named by their SHA-256, verified when read."""

from heliostat.artifacts.content import ArtifactMissing, Artifacts, ArtifactsFull, ArtifactsUnavailable, Staged
from heliostat.artifacts.folders import ArtifactDamaged, ArtifactFolders
from heliostat.artifacts.manifest import BadFolder, Entry, Manifest, scan

__all__ = [
    "ArtifactDamaged",
    "ArtifactFolders",
    "ArtifactMissing",
    "Artifacts",
    "ArtifactsFull",
    "ArtifactsUnavailable",
    "BadFolder",
    "Entry",
    "Manifest",
    "Staged",
    "scan",
]
