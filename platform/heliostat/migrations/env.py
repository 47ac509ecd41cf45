"""Alembic's entry point: migrates the connection that `heliostat.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from heliostat.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
