"""Content-addressed files: written once, named by their SHA-256, verified when read."""

from heliostat.artifacts.content import ArtifactMissing, Artifacts, ArtifactsUnavailable, Staged

__all__ = ["ArtifactMissing", "Artifacts", "ArtifactsUnavailable", "Staged"]
