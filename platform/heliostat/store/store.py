"""The store: one writer, many readers, over SQLite (default) or PostgreSQL.

    store = Store(settings.database_url)      # migrates; raises StoreError with a remedy
    with store.read() as session: ...         # a snapshot, read-only
    store.write(fn)                           # fn(session) -> result, on the writer's thread; returns after the commit
    await store.awrite(fn)                    # the same for asyncio

A function handed to `write` must not call `write` again (it is on the writer's thread already): pass the session on.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from heliostat.store import database, schema
from heliostat.store.errors import StoreError, StoreUnavailable, unavailable
from heliostat.store.writer import Writer

T = TypeVar("T")

EXECUTOR_LOCK = 0x48454C494F  # "HELIO": key of the advisory lock in PostgreSQL


class Store:
    def __init__(self, url: str, *, readers: int = 8) -> None:
        self.url = url
        if database.is_sqlite(url):
            path = database.sqlite_path(url)
            database.refuse_network_disk(path)
            path.parent.mkdir(parents=True, exist_ok=True)
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._lock_connection: Connection | None = None
        self._lock_file: IO[str] | None = None
        self._write_engine = database.writer_engine(url)
        self._read_engine = database.reader_engine(url, readers)
        try:
            schema.upgrade(self._write_engine)
        except DBAPIError as error:
            raise unavailable(error) or error from error
        self._writer = Writer(self._write_engine, self._committed)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only snapshot. Rows stay usable after the block."""
        session = Session(bind=self._read_engine, expire_on_commit=False, autoflush=False)
        try:
            yield session
        except DBAPIError as error:
            raise unavailable(error) or error from error
        finally:
            session.close()

    def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in the writer's transaction and return its result after the commit. Blocks; any thread but the writer's."""
        if self._writer.on_writer_thread():
            raise RuntimeError("store.write called from inside a write: pass the session on instead")
        return self._writer.submit(work).result()

    def submit(self, work: Callable[[Session], object]) -> None:
        """As `write`, without waiting: for what may be lost when the process ends."""
        self._writer.submit(work)

    async def awrite(self, work: Callable[[Session], T]) -> T:
        """As `write`, without blocking the event loop."""
        return await asyncio.wrap_future(self._writer.submit(work))

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` (on the writer's thread, so briefly) after each commit. Returns the function that ends it."""
        self._listeners = (*self._listeners, listener)

        def cancel() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not listener)

        return cancel

    def check(self) -> None:
        """Raise StoreUnavailable unless a read and a write transaction go through now."""
        with self.read() as session:
            session.execute(text("SELECT 1"))
        self.write(lambda session: session.execute(text("UPDATE setting SET value = value WHERE key = ''")))

    def lock_executor(self) -> None:
        """Become the only process that acts on this database, until `close` or the end of the process."""
        if database.is_sqlite(self.url):
            self._lock_sqlite(database.sqlite_path(self.url))
            return
        connection = self._read_engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": EXECUTOR_LOCK}).scalar():
            connection.close()
            raise _second_executor()
        self._lock_connection = connection

    def close(self) -> None:
        """Finish queued writes, then close everything."""
        self._writer.close()
        if self._lock_connection is not None:
            self._lock_connection.close()
        if self._lock_file is not None:
            self._lock_file.close()
        self._read_engine.dispose()
        self._write_engine.dispose()

    def _lock_sqlite(self, path: Path) -> None:
        handle = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            raise _second_executor() from error
        self._lock_file = handle

    def _committed(self) -> None:
        for listener in self._listeners:
            listener()


def _second_executor() -> StoreError:
    return StoreUnavailable(
        "Another control plane already works on this database.", "Stop it first (helio down), or use it: helio whoami"
    )
