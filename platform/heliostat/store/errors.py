"""What the store can answer instead of a result."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError


class StoreError(Exception):
    """Base of the store's errors. `remedy` says what to do now."""

    remedy = ""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


class StoreUnavailable(StoreError):
    """The database cannot be read or written now: disk full, read-only, locked by somebody else, connection lost. Nothing was changed."""


class StaleJob(StoreError):
    """Somebody changed the job since it was read; what was decided from the old row is dropped."""


class UnknownJob(StoreError):
    """There is no such job."""


_TROUBLE: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free space on the disk that holds the database, then try again."),
    sqlite3.SQLITE_READONLY: (
        "the database is read-only",
        "Make the database file and its folder writable for the control plane.",
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk reports an I/O error",
        "Check the disk (dmesg); `helio doctor` names the database's path.",
    ),
    sqlite3.SQLITE_CANTOPEN: ("the database file cannot be opened", "Check that its folder exists and is writable."),
    sqlite3.SQLITE_CORRUPT: (
        "the database file is damaged",
        "Restore it from a backup; the jobs on Ray go on meanwhile.",
    ),
    sqlite3.SQLITE_NOTADB: ("the file is no database", "Point the control plane to its own database file."),
    sqlite3.SQLITE_BUSY: (
        "another process holds the database",
        "Only one control plane may use a database: find the other one.",
    ),
    sqlite3.SQLITE_LOCKED: ("the database is locked", "Try again."),
}


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """The `StoreUnavailable` that a database error means, or None when it is about the statement and not about the store."""
    if isinstance(error, DisconnectionError | InterfaceError):
        return StoreUnavailable(f"The database does not answer: {error}", "Start it again; nothing was changed.")
    if not isinstance(error, DBAPIError):
        return None
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        if code not in _TROUBLE:
            return None
        what, remedy = _TROUBLE[code]
        return StoreUnavailable(f"The store is not available: {what}. Nothing was changed.", remedy)
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return StoreUnavailable(f"The database does not answer: {origin}", "Start it again; nothing was changed.")
    return None
