"""Estimates of when waiting jobs start, and what came of them.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "forecast",
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("first_ms", Big, nullable=False),
        sa.Column("first_p50_ms", Big),
        sa.Column("first_p90_ms", Big),
        sa.Column("raw_p50_ms", Big),
        sa.Column("raw_p90_ms", Big),
        sa.Column("made_ms", Big, nullable=False),
        sa.Column("p50_ms", Big),
        sa.Column("p90_ms", Big),
        sa.Column("samples", Big, nullable=False),
        sa.Column("started_ms", Big),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_forecast")),
    )
    op.create_index(op.f("ix_forecast_started_ms"), "forecast", ["started_ms"])
    op.create_index(op.f("ix_lease_span_to_ms_from_ms"), "lease_span", ["to_ms", "from_ms"])
