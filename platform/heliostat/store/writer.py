"""The single writer: one thread, one connection, group commit.

Each function handed in runs in its own SAVEPOINT on the writer's connection, so that one that raises takes only its own changes
back. Functions that are waiting when a transaction is open join it, for at most 10 ms; then one commit (one fsync) serves them
all, and only then do their callers get an answer. There is no artificial delay: the group forms while the disk is busy with
the previous one. When the store itself fails (disk full, read-only), the whole group is undone and every caller of it gets
`StoreUnavailable`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from heliostat.store.errors import StoreUnavailable, unavailable

T = TypeVar("T")
Work = Callable[[Session], Any]  # Any: whatever the caller's function returns
Outcome = tuple["Future[Any]", Any, BaseException | None]

GROUP_S = 0.010
"""How long a transaction takes in further functions, seconds."""


class Writer:
    def __init__(self, engine: Engine, on_commit: Callable[[], None]) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._inbox: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Session], T]) -> Future[T]:
        """Queue `work`; the future is done after the commit."""
        future: Future[T] = Future()
        if self._closed.is_set():
            raise StoreUnavailable("The store is closed.", "Start the control plane again: helio up")
        self._inbox.put((work, future))
        return future

    def on_writer_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        if not self._closed.is_set():
            self._closed.set()
            self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._inbox.get()) is not None:
            self._group(item)
        with contextlib.suppress(queue.Empty):
            while (late := self._inbox.get_nowait()) is not None:
                late[1].set_exception(StoreUnavailable("The store was closed.", "Try again."))

    def _group(self, first: tuple[Work, Future[Any]]) -> None:
        taken = [first[1]]
        try:
            with self._engine.connect() as connection:
                outcomes = self._transaction(connection, first, taken)
        except BaseException as error:  # noqa: BLE001  (handed to every caller of the group)
            failure = error if isinstance(error, StoreUnavailable) else unavailable(error) or error
            for future in taken:
                if not future.done():
                    future.set_exception(failure)
            return
        for future, result, failure_of_one in outcomes:
            if failure_of_one is not None:
                future.set_exception(failure_of_one)
            else:
                future.set_result(result)
        self._on_commit()

    def _transaction(
        self, connection: Connection, first: tuple[Work, Future[Any]], taken: list[Future[Any]]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with connection.begin():
            until = time.monotonic() + GROUP_S
            item: tuple[Work, Future[Any]] | None = first
            while item is not None:
                outcomes.append(_one(connection, *item))
                item = self._next() if time.monotonic() < until else None
                if item is not None:
                    taken.append(item[1])
        return outcomes

    def _next(self) -> tuple[Work, Future[Any]] | None:
        try:
            item = self._inbox.get_nowait()
        except queue.Empty:
            return None
        if item is None:  # closing: let the loop see it after this group
            self._inbox.put(None)
        return item


def _one(connection: Connection, work: Work, future: Future[Any]) -> Outcome:
    """Run one function in its SAVEPOINT. Raises only what undoes the whole group."""
    session = Session(bind=connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
    try:
        result = work(session)
        session.commit()
    except BaseException as error:
        failure = unavailable(error)
        with contextlib.suppress(DBAPIError):  # a full disk ends the whole transaction, its savepoints with it
            session.close()
        if failure is not None:
            raise failure from error
        return future, None, error
    session.close()
    return future, result, None
