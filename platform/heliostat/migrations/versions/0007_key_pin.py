"""Keys that may name a version without traffic.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """No key of before may."""
    op.add_column("endpoint_key", sa.Column("pin", sa.Boolean(), nullable=False, server_default=sa.false()))
