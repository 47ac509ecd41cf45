"""The tables of the model registry: rows only, as in `store.tables`.

A version never changes once it is written; what moves is an alias. Numbers are counted per model and never used twice, also
not after a version was deleted. `ModelRegistration` is the to-do list of models that finished jobs left behind: written with
the job's end, worked off by the registrar, so that each is registered once whatever happens in between.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from heliostat.store.tables import Base


class Model(Base):
    __tablename__ = "model"

    project: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")
    last_version: Mapped[int] = mapped_column(default=0)


class ModelVersion(Base):
    """One immutable version. sha256: of the artifact's canonical manifest. job: what made it, empty for a push."""

    __tablename__ = "model_version"
    __table_args__ = (
        UniqueConstraint("project", "model", "version"),
        Index(None, "sha256"),
        Index(None, "job"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    format: Mapped[str] = mapped_column(String(20))
    signature: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    tags: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    lineage: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    size_bytes: Mapped[int]
    files: Mapped[int]
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")
    job: Mapped[str] = mapped_column(String(200), default="")
    attempt: Mapped[int | None]
    variant_of: Mapped[int | None]


class ModelAlias(Base):
    """A pointer that moves. revision rises with every move."""

    __tablename__ = "model_alias"

    project: Mapped[str] = mapped_column(String(63), primary_key=True)
    model: Mapped[str] = mapped_column(String(100), primary_key=True)
    alias: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int]
    revision: Mapped[int] = mapped_column(default=1)
    moved_ms: Mapped[int]
    moved_by: Mapped[str] = mapped_column(default="")


class ModelRegistration(Base):
    """What became of the model of a finished job. state: pending, done, refused."""

    __tablename__ = "model_registration"
    __table_args__ = (Index(None, "state"),)

    job: Mapped[str] = mapped_column(String(200), primary_key=True)
    project: Mapped[str] = mapped_column(String(63))
    attempt: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    model: Mapped[str] = mapped_column(default="")
    version: Mapped[int | None]
    code: Mapped[str] = mapped_column(default="")
    text: Mapped[str] = mapped_column(default="")
    asked_ms: Mapped[int]
    done_ms: Mapped[int | None]
