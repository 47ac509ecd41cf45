"""Drivers on Ray: the blocking Jobs API turned into calls that return at once and answers that come as messages.

Calls about one submission run one after the other, in order; otherwise a stop could overtake the submission that it is about.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from heliostat.control.hands import Submission
from heliostat.control.messages import (
    DriverAccepted,
    DriverRefused,
    DriverSeen,
    DriverSilent,
    LogSaved,
    Message,
)
from heliostat.control.ray_jobs import RayJobs, RayRefused, RayUnreachable

Call = Callable[[], None]


class Pool(Protocol):
    """Runs calls, sooner or later: a thread pool, or a test's own queue."""

    def run(self, call: Call) -> None: ...


class Tails(Protocol):
    """Copies the output of running drivers into files."""

    def start(self, submission_id: str, log: Path) -> None: ...

    def end(self, submission_id: str) -> None: ...


class DriverDesk:
    def __init__(self, jobs: RayJobs, pool: Pool, tails: Tails, post: Callable[[Message], None]) -> None:
        self._jobs = jobs
        self._pool = pool
        self._tails = tails
        self._post = post
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Call]] = {}

    def submit(self, submission: Submission) -> None:
        self._queue(submission.submission_id, lambda: self._submit(submission))

    def look(self, submission_id: str) -> None:
        self._queue(submission_id, lambda: self._look(submission_id))

    def stop(self, submission_id: str) -> None:
        def call() -> None:
            self._jobs.stop(submission_id)
            self._look(submission_id)

        self._queue(submission_id, call)

    def follow(self, submission_id: str, log: Path) -> None:
        self._tails.start(submission_id, log)

    def save_log(self, submission_id: str, log: Path) -> None:
        def call() -> None:
            try:
                self._tails.end(submission_id)
                keep_longer(log, self._jobs.logs(submission_id))
            finally:
                self._post(LogSaved(submission_id))

        self._queue(submission_id, call)

    def forget(self, submission_id: str) -> None:
        self._tails.end(submission_id)
        self._queue(submission_id, lambda: self._jobs.delete(submission_id))

    def _submit(self, submission: Submission) -> None:
        try:
            self._jobs.submit(submission)
        except RayRefused as refused:
            self._post(DriverRefused(submission.submission_id, str(refused), permanent=True))
        else:
            self._post(DriverAccepted(submission.submission_id))

    def _look(self, submission_id: str) -> None:
        self._post(DriverSeen(submission_id, self._jobs.info(submission_id)))

    def _queue(self, submission_id: str, call: Call) -> None:
        with self._lock:
            waiting = self._waiting.get(submission_id)
            if waiting is not None:
                waiting.append(call)
                return
            self._waiting[submission_id] = deque([call])
        self._pool.run(lambda: self._work(submission_id))

    def _work(self, submission_id: str) -> None:
        """One call of this submission; the next one gets its own turn in the pool."""
        with self._lock:
            call = self._waiting[submission_id][0]
        try:
            call()
        except (RayUnreachable, OSError) as error:
            self._post(DriverSilent(submission_id, str(error)))
        finally:
            with self._lock:
                waiting = self._waiting[submission_id]
                waiting.popleft()
                if not waiting:
                    del self._waiting[submission_id]
        if waiting:
            self._pool.run(lambda: self._work(submission_id))


def keep_longer(log: Path, text: str) -> None:
    """Replace the copy by the whole log, unless the copy already has more (Ray may have lost some)."""
    content = text.encode()
    if log.exists() and log.stat().st_size >= len(content):
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(content)
