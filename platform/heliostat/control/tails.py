"""Driver output, copied as it comes: one WebSocket per running driver, so that logs outlive the Ray cluster."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from heliostat.control.ray_jobs import DashboardJobs, RayUnreachable

AGAIN_S = 2.0
CLOSE_S = 0.2
"""Ray answers a closing handshake only when it next looks at the log, seconds later; nobody waits for that."""


@dataclass(slots=True)
class _Tail:
    ended: threading.Event = field(default_factory=threading.Event)
    connection: ClientConnection | None = None


class WebSocketTails:
    def __init__(self, jobs: DashboardJobs) -> None:
        self._jobs = jobs
        self._tails: dict[str, _Tail] = {}

    def start(self, submission_id: str, log: Path) -> None:
        if submission_id in self._tails:
            return
        tail = self._tails[submission_id] = _Tail()
        threading.Thread(
            target=self._copy, args=(submission_id, log, tail), name=f"tail-{submission_id}", daemon=True
        ).start()

    def end(self, submission_id: str) -> None:
        tail = self._tails.pop(submission_id, None)
        if tail is not None:
            tail.ended.set()
            if tail.connection is not None:
                tail.connection.close()

    def _copy(self, submission_id: str, log: Path, tail: _Tail) -> None:
        """Until the driver ends or nobody wants it. Ray tells the log from its start, so what is there is skipped."""
        while not tail.ended.is_set():
            # a tail that breaks is taken up again; the whole log is fetched when the driver has ended
            with contextlib.suppress(RayUnreachable, WebSocketException, OSError):
                url, headers = self._jobs.tail_address(submission_id)
                # no compression: Ray forwards our handshake to its agent and cannot unpack the answer
                with connect(
                    url,
                    additional_headers=headers,
                    max_size=None,
                    proxy=None,
                    compression=None,
                    close_timeout=CLOSE_S,
                ) as connection:
                    tail.connection = connection
                    _append(connection, log)
            tail.ended.wait(AGAIN_S)


def _append(connection: ClientConnection, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    skip = log.stat().st_size if log.exists() else 0
    with log.open("ab", buffering=0) as out:
        for message in connection:
            data = message.encode() if isinstance(message, str) else message
            out.write(data[skip:])
            skip = max(0, skip - len(data))


class ThreadPool:
    """A few threads for calls that wait on Ray."""

    def __init__(self, threads: int = 4) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="ray-jobs")

    def run(self, call: Callable[[], None]) -> None:
        self._executor.submit(call)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
