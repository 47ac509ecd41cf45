"""Estimates that rest on run times of which nothing was known.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Those of before count as estimates, as they were told."""
    for name in ("first_unknown", "unknown"):
        op.add_column("forecast", sa.Column(name, Big, nullable=False, server_default="0"))
