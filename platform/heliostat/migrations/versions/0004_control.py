"""Drivers that outlive their attempt, cordoned nodes, and metrics by name.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Every attempt so far is gone with its driver; every node takes work."""
    op.add_column("attempt", sa.Column("gone_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))
    op.execute("UPDATE attempt SET gone_ms = ended_ms")
    op.add_column("node", sa.Column("cordon", sa.String(length=16), nullable=False, server_default=""))
    op.create_index(op.f("ix_metric_job_name_id"), "metric", ["job", "name", "id"])
