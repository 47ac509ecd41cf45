"""Usage belongs to a project: an endpoint's name may be taken by another one later.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = ("endpoint", "project", "hour_ms", "number", "key", "status")
SUMS = ("requests", "rows", "bytes_in", "bytes_out", "busy_us")


def upgrade() -> None:
    """SQLite cannot change a primary key in place, so the table is made anew in both databases."""
    op.rename_table("endpoint_usage", "endpoint_usage_before")
    if op.get_bind().dialect.name == "postgresql":  # there the key's index keeps its name
        op.execute("ALTER INDEX pk_endpoint_usage RENAME TO pk_endpoint_usage_before")
    op.create_table(
        "endpoint_usage",
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("hour_ms", Big, autoincrement=False, nullable=False),
        sa.Column("number", Big, autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("status", Big, autoincrement=False, nullable=False),
        *(sa.Column(name, Big, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint(*KEY, name=op.f("pk_endpoint_usage")),
    )
    columns = ", ".join((*KEY, *SUMS))
    op.execute(f"INSERT INTO endpoint_usage ({columns}) SELECT {columns} FROM endpoint_usage_before")
    op.drop_table("endpoint_usage_before")
