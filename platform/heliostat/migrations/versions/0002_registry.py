"""The model registry: models, versions, aliases, and the models of finished jobs that are still to be registered.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _model()
    _version()
    _alias()
    _registration()


def _model() -> None:
    op.create_table(
        "model",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("last_version", Big, nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_model")),
    )


def _version() -> None:
    op.create_table(
        "model_version",
        sa.Column("seq", Big, autoincrement=True, nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", Big, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=20), nullable=False),
        sa.Column("signature", Json, nullable=False),
        sa.Column("metrics", Json, nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("lineage", Json, nullable=False),
        sa.Column("size_bytes", Big, nullable=False),
        sa.Column("files", Big, nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("attempt", Big, nullable=True),
        sa.Column("variant_of", Big, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_model_version")),
        sa.UniqueConstraint("project", "model", "version", name=op.f("uq_model_version_project_model_version")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_model_version_sha256"), "model_version", ["sha256"])
    op.create_index(op.f("ix_model_version_job"), "model_version", ["job"])


def _alias() -> None:
    op.create_table(
        "model_alias",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("version", Big, nullable=False),
        sa.Column("revision", Big, nullable=False),
        sa.Column("moved_ms", Big, nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model", "alias", name=op.f("pk_model_alias")),
    )


def _registration() -> None:
    op.create_table(
        "model_registration",
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("attempt", Big, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", Big, nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("asked_ms", Big, nullable=False),
        sa.Column("done_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_model_registration")),
    )
    op.create_index(op.f("ix_model_registration_state"), "model_registration", ["state"])
