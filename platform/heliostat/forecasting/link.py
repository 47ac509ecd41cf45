"""The forecasting process as the control plane sees it: a child that is told of commits, asked questions, and heard.

Nothing here is waited for by the control loop. Estimates are kept in memory for the doors and written to the store in the writer's
own time; without the child (starting, or dead for a moment) there are the last estimates, and questions answer `busy`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select

from heliostat.control.port import ControlError
from heliostat.forecasting import keeping
from heliostat.store import Store
from heliostat.store.forecast_tables import Forecast

Json = dict[str, Any]  # Any: JSON
MODULE = "heliostat.forecasting.worker"
LOOK_S = 1.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
END_S = 3.0
PIECE = 200
"""Estimates per write."""
SMALL_MS = 60_000


@dataclass(frozen=True, slots=True)
class Eta:
    """When a waiting job starts: at best guess, and in nine of ten cases. None: later than a day.

    unknown: of so many running jobs nothing is known of how long they run; above 0 the times are a guess, not to be told.
    """

    made_ms: int
    p50_ms: int | None
    p90_ms: int | None
    unknown: int = 0


class Forecaster:
    """Thread-safe. `log` writes a line of the control plane's log; `learned` passes on what is expected of live jobs."""

    def __init__(
        self,
        store: Store,
        log_path: Path,
        log: Callable[[str, str, Json], None],
        now_ms: Callable[[], int],
        learned: Callable[[Json], None],
    ) -> None:
        self._store = store
        self._log_path = log_path
        self._log = log
        self._now_ms = now_ms
        self._learned = learned
        self._closed = threading.Event()
        self._committed = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, Future[Json]] = {}
        self._ids = itertools.count(1)
        self._etas: dict[str, Eta] = {}
        self._cancel: Callable[[], None] = lambda: None

    def start(self) -> None:
        with self._store.read() as session:
            rows = session.execute(select(Forecast).where(Forecast.started_ms.is_(None))).scalars()
            self._etas = {row.job: Eta(row.made_ms, row.p50_ms, row.p90_ms, row.unknown) for row in rows}
        self._cancel = self._store.subscribe(self._committed.set)
        for work, name in ((self._supervise, "forecast-link"), (self._look, "forecast-look")):
            threading.Thread(target=work, name=name, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._cancel()
        self._committed.set()
        with self._lock:
            child = self._child
        if child is not None and child.stdin is not None:
            child.stdin.close()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()

    # -- answers

    @property
    def ready(self) -> bool:
        """Whether a child is there to be asked."""
        with self._lock:
            return self._child is not None

    def etas(self, job_ids: Iterable[str]) -> dict[str, Eta]:
        """The last estimates of these jobs, where there are any."""
        known = self._etas
        return {job_id: known[job_id] for job_id in job_ids if job_id in known}

    def ask(self, question: Json, patience_s: float) -> Json:
        """Raises ControlError: `busy` without an answer in time, `bad_question` when the question makes no sense."""
        answer: Future[Json] = Future()
        number = next(self._ids)
        with self._lock:
            child = self._child
            if child is None or child.stdin is None:
                raise ControlError("busy", "The forecasting process is starting.", "Try again in a moment.")
            self._asked[number] = answer
            line = json.dumps({**question, "id": number, "now_ms": self._now_ms()}) + "\n"
            try:
                child.stdin.write(line.encode())
                child.stdin.flush()
            except OSError as error:
                raise ControlError("busy", "The forecasting process has just ended.", "Try again.") from error
        try:
            return answer.result(patience_s)
        except TimeoutError as error:
            raise ControlError(
                "busy", "The forecast takes longer than expected.", "Try again, or a shorter horizon."
            ) from error
        finally:
            with self._lock:
                self._asked.pop(number, None)

    # -- the child

    def _look(self) -> None:
        """Tell the child of commits, at most once a second."""
        while not self._closed.is_set():
            self._committed.wait()
            self._committed.clear()
            with self._lock:
                child = self._child
                if child is not None and child.stdin is not None and not child.stdin.closed:
                    try:
                        child.stdin.write(b'{"look":true}\n')
                        child.stdin.flush()
                    except OSError:
                        pass  # its end is seen by the thread that reads it
            self._closed.wait(LOOK_S)

    def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            heard = self._one_life()
            pause_s = FIRST_PAUSE_S if heard else min(LONGEST_PAUSE_S, 2 * pause_s)
            self._closed.wait(pause_s)

    def _one_life(self) -> bool:
        with self._log_path.open("ab") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", MODULE, self._store.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert child.stdout is not None
        with self._lock:
            self._child = child
        self._committed.set()
        heard = self._read(child.stdout)
        code = child.wait()
        with self._lock:
            self._child = None
            lost, self._asked = list(self._asked.values()), {}
        for answer in lost:
            answer.set_exception(ControlError("busy", "The forecasting process ended.", "Try again."))
        if not self._closed.is_set():
            self._log("warning", "forecast_ended", {"code": code, "log": str(self._log_path)})
        return heard

    def _read(self, lines: IO[bytes]) -> bool:
        heard = False
        for line in lines:
            heard = True
            self._hear(json.loads(line))
        return heard

    def _hear(self, message: Json) -> None:
        if "trouble" in message or (not message.get("id") and "error" in message):
            self._log("warning", "forecast_failed", {"text": message.get("trouble") or message["error"]["message"]})
            return
        if "learned" in message:
            self._learned(message["learned"])
            return
        if not message["id"]:
            self._estimated(message["answer"])
            return
        with self._lock:
            answer = self._asked.get(message["id"])
        if answer is None:
            return
        if "error" in message:
            answer.set_exception(ControlError(message["error"]["code"], message["error"]["message"]))
        else:
            answer.set_result(message["answer"])

    def _estimated(self, told: Json) -> None:
        """Kept in memory whole; written in small pieces, and only what is new or has moved: the control loop writes, too."""
        made, before, etas, rows = int(told["made_ms"]), self._etas, {}, []
        for row in told["estimates"]:
            job_id, _, p50, p90, *_, unknown = row
            eta = Eta(made, None if p50 is None else made + p50, None if p90 is None else made + p90, unknown)
            etas[job_id] = eta
            if _moved(before.get(job_id), eta):
                rows.append(row)
        self._etas = etas
        for at in range(0, len(rows), PIECE):
            self._store.submit(partial(keeping.keep, made_ms=made, rows=rows[at : at + PIECE]))
        self._store.submit(keeping.note_starts)


def _moved(before: Eta | None, now: Eta) -> bool:
    """Whether the store should know: it is new, or another time by more than a minute and a tenth of the wait."""
    if before is None or bool(before.unknown) != bool(now.unknown):
        return True
    for old, new in ((before.p50_ms, now.p50_ms), (before.p90_ms, now.p90_ms)):
        if (old is None) != (new is None):
            return True
        if old is not None and new is not None and abs(new - old) > max(SMALL_MS, (new - now.made_ms) // 10):
            return True
    return False
