"""Endpoints: the stable URL, what is served there, keys, usage.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _endpoint()
    _deployment()
    _key()
    _usage()


def _endpoint() -> None:
    op.create_table(
        "endpoint",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("weights", Json, nullable=False),
        sa.Column("weights_before", Json, nullable=False),
        sa.Column("settings", Json, nullable=False),
        sa.Column("last_number", Big, nullable=False),
        sa.Column("version", Big, nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("removing_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_endpoint")),
    )
    op.create_index(op.f("ix_endpoint_project"), "endpoint", ["project"], unique=False)


def _deployment() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", Big, autoincrement=True, nullable=False),
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("number", Big, nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("model_version", Big, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("signature", Json, nullable=False),
        sa.Column("replicas_min", Big, nullable=False),
        sa.Column("replicas_max", Big, nullable=False),
        sa.Column("gpu_milli", Big, nullable=False),
        sa.Column("cpu_milli", Big, nullable=False),
        sa.Column("options", Json, nullable=False),
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("state_since_ms", Big, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("plan", Json, nullable=False),
        sa.Column("wish", Big, nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
        sa.UniqueConstraint("endpoint", "number", name=op.f("uq_deployment_endpoint_number")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_deployment_project_model_model_version"), "deployment", ["project", "model", "model_version"]
    )
    op.create_index(op.f("ix_deployment_state"), "deployment", ["state"], unique=False)


def _key() -> None:
    op.create_table(
        "endpoint_key",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("rate_per_s", sa.Float(), nullable=False),
        sa.Column("burst", Big, nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_ms", Big, nullable=True),
        sa.Column("revoked_ms", Big, nullable=True),
        sa.Column("last_used_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoint_key")),
        sa.UniqueConstraint("sha256", name=op.f("uq_endpoint_key_sha256")),
    )
    op.create_index(op.f("ix_endpoint_key_endpoint"), "endpoint_key", ["endpoint"], unique=False)


def _usage() -> None:
    op.create_table(
        "endpoint_usage",
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("hour_ms", Big, autoincrement=False, nullable=False),
        sa.Column("number", Big, autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("status", Big, autoincrement=False, nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("requests", Big, nullable=False),
        sa.Column("rows", Big, nullable=False),
        sa.Column("bytes_in", Big, nullable=False),
        sa.Column("bytes_out", Big, nullable=False),
        sa.Column("busy_us", Big, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "hour_ms", "number", "key", "status", name=op.f("pk_endpoint_usage")),
    )
    op.create_table(
        "spool_read",
        sa.Column("file", sa.String(length=300), nullable=False),
        sa.Column("lines", Big, nullable=False),
        sa.Column("read_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("file", name=op.f("pk_spool_read")),
    )
