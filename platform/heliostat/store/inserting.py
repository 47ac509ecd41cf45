"""Insert a row without the ORM: a statement per table, compiled once. The hot path of submissions and of every event."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from sqlalchemy import Insert, Table, insert
from sqlalchemy.orm import Session

from heliostat.store.tables import Base


def insert_row(session: Session, model: type[Base], values: dict[str, Any]) -> int:  # Any: column values
    """Insert `values` (by column name; defaults fill the rest); returns the number of a numbered row, else 0."""
    done = session.connection().execute(_statement(model), values)
    key = done.inserted_primary_key
    return key[0] if key and isinstance(key[0], int) else 0


@cache
def _statement(model: type[Base]) -> Insert:
    return insert(cast("Table", model.__table__))
