"""The JSON of /api/v1/models."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from heliostat.api.models import Model as Shape


class Tensor(Shape):
    name: str
    dtype: str
    shape: list[int]
    example: list[bool | int | float | str] | None = Field(None, exclude_if=lambda example: example is None)


class Signature(Shape):
    inputs: list[Tensor]
    outputs: list[Tensor]
    allow_nan: bool


class ModelVersion(Shape):
    """One immutable version. sha256: of the artifact's manifest. job, attempt: what made it, null for a push."""

    model: str
    project: str
    version: int
    sha256: str
    format: str
    signature: Signature
    metrics: dict[str, float]
    tags: dict[str, str]
    aliases: list[str]
    size_bytes: int
    files: int
    created_at: str
    created_by: str
    job: str | None
    attempt: int | None
    variant_of: int | None


class ModelVersionPage(Shape):
    items: list[ModelVersion]
    next_cursor: str | None = None


class ModelSummary(Shape):
    """aliases: alias -> version."""

    name: str
    project: str
    versions: int
    latest: ModelVersion
    aliases: dict[str, int]
    created_at: str


class ModelPage(Shape):
    items: list[ModelSummary]
    next_cursor: str | None = None


class AliasTarget(Shape):
    """version: a number."""

    version: int = Field(ge=1, lt=2**31)


class Alias(Shape):
    model: str
    project: str
    alias: str
    version: int
    moved_at: str
    moved_by: str


class Origin(Shape):
    """The job that made a version. known: whether its row is still there (a forgotten job leaves its id)."""

    id: str
    attempt: int | None
    known: bool
    name: str
    queue: str
    user: str
    entrypoint: str


class Relative(Shape):
    version: int
    sha256: str


class Lineage(Shape):
    """Where a version comes from, and which versions were made from it. Digests that nobody told are null."""

    model: str
    project: str
    version: int
    sha256: str
    pushed_by: str | None
    job: Origin | None
    code_digest: str | None
    data_digest: str | None
    package_digest: str | None
    params: dict[str, Any]  # Any: what the user's job wrote
    ancestors: list[Relative]
    variants: list[Relative]
