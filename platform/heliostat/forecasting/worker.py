"""The forecasting process: `python -m heliostat.forecasting.worker DATABASE_URL`, a child of the control plane.

It reads the store, writes nothing, and talks JSON lines: on standard input `{"look": true}` (something was committed) and questions
with an `id`; on standard output estimates of starts, what is expected of live jobs (`learned`), and answers. One thread; whatever takes
long happens in a fork of it, so that an answer never waits for a forecast and each begins with the newest state. It ends when standard
input does.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from heliostat.forecasting import forking, knowledge, questions
from heliostat.forecasting.expecting import Expecting
from heliostat.forecasting.measuring import Measuring
from heliostat.forecasting.mirror import Diverged, Mirror
from heliostat.store import StoreError, database

Json = dict[str, Any]  # Any: JSON
NICE = 10
BEHIND = 9
"""Estimates give way to questions, for which somebody waits."""
PAUSE_S = 2.0
SHARE = 10.0
"""After a refresh that took t seconds the next begins no sooner than SHARE x t later."""
AGAIN_S = 60.0
OVERDUE_S = 10.0
"""An estimate that has passed while its job still waits is renewed, but not sooner than this after it was made."""
QUIET_SHARE = 100.0
"""Without a new cycle of the scheduler the next refresh begins after AGAIN_S and QUIET_SHARE x t: at rest, 1 % of a core at most."""
KNOWN_S = 30.0
EXPECT_S = 2.0
"""What is expected of live jobs is looked at no more often than this, and takes no more than a twentieth of the time."""
EXPECT_SHARE = 20.0
READ_BYTES = 1 << 16


@dataclass(slots=True)
class Fork:
    """A child that computes. id: of the question, 0 for a refresh."""

    pid: int
    id: int
    text: bytearray = field(default_factory=bytearray)


class Worker:
    def __init__(
        self, read: Callable[[], AbstractContextManager[Session]], out: int, *, now_ms: Callable[[], int]
    ) -> None:
        self._read = read
        self._out = out
        self._now_ms = now_ms
        self._mirror = Mirror(read)
        self._selector = selectors.DefaultSelector()
        self._forks: dict[int, Fork] = {}
        self._known: questions.Known | None = None
        self._known_at = 0.0
        self._stale = False
        self._refreshing = False
        self._next_refresh = 0.0
        self._refreshed_at = 0.0
        self._again_s = AGAIN_S
        self._refreshed_cycle = -1
        self._estimated = False
        self._expecting = Expecting(read)
        self._measuring = Measuring(read)
        self._next_expect = 0.0
        self._news = False

    def run(self, stdin: int) -> int:
        buffer = bytearray()
        self._selector.register(stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._patience()):
                if key.fd != stdin:
                    self._hear(key.fd)
                    continue
                data = os.read(stdin, READ_BYTES)
                if not data:
                    self._end()
                    return 0
                buffer += data
                while (end := buffer.find(b"\n")) >= 0:
                    line, buffer = bytes(buffer[:end]), buffer[end + 1 :]
                    self._told(json.loads(line))
            self._expect()
            self._refresh()

    def _patience(self) -> float:
        if self._refreshing:
            return 1.0
        due = self._next_refresh if self._stale else self._refreshed_at + self._again_s
        if self._learns():
            due = min(due, self._next_expect)
        return min(AGAIN_S, max(0.05, due - time.monotonic()))

    # -- what comes in

    def _told(self, message: Json) -> None:
        if message.get("look"):
            self._stale = self._news = True
            return
        try:
            known = self._ready()
            now_ms = max(int(message["now_ms"]), self._mirror.at_ms)
            answer = questions.ANSWERS[message["ask"]]
            self._fork(message["id"], lambda: answer(self._mirror.engine, known, message, now_ms))
        except (Diverged, StoreError) as error:
            self._say({"id": message["id"], "error": {"code": "busy", "message": str(error)}})

    def _ready(self) -> questions.Known:
        """The mirror is up to date, and so is what is known."""
        self._mirror.catch_up()
        if self._known is None or time.monotonic() - self._known_at > KNOWN_S:
            with self._read() as session:
                flavors = tuple(sorted({rec.spec.flavor for rec in self._mirror.engine.state.book.nodes.values()}))
                recent = knowledge.recent(session, self._now_ms())
                self._known = questions.Known(
                    knowledge.lengths(session), recent, knowledge.correction(session), flavors
                )
            self._known_at = time.monotonic()
        return replace(self._known, expected=self._expecting.expected)

    def _learns(self) -> bool:
        return self._news or self._measuring.left or self._expecting.due(self._now_ms())

    def _expect(self) -> None:
        """Tell what is expected of live jobs and how well they scale, as far as it has moved."""
        now = time.monotonic()
        if now < self._next_expect or not self._learns():
            return
        self._news = False
        began = time.process_time()
        try:
            self._mirror.catch_up()
            learned = self._expecting.look(self._mirror.engine, max(self._now_ms(), self._mirror.at_ms))
            curves = self._measuring.look(self._mirror.engine)
        except (Diverged, StoreError) as error:
            self._lost(error)
            learned, curves = None, []
        self._next_expect = time.monotonic() + max(EXPECT_S, EXPECT_SHARE * (time.process_time() - began))
        if learned is not None or curves:
            self._say({"learned": {**(learned or {}), "curves": curves}})

    def _lost(self, error: Diverged | StoreError) -> None:
        """The live engine cannot be followed just now: begin again at the newest snapshot."""
        self._say({"trouble": str(error)})
        self._mirror = Mirror(self._read)

    def _refresh(self) -> None:
        now = time.monotonic()
        old = now - self._refreshed_at > self._again_s
        if self._refreshing or now < self._next_refresh or not (self._stale or old):
            return
        self._stale = False
        self._next_refresh = now + PAUSE_S
        try:
            known = self._ready()
        except (Diverged, StoreError) as error:
            self._lost(error)
            return
        if self._mirror.cycle == self._refreshed_cycle and not old:
            return  # what was committed was no decision: our own estimates, for example
        self._refreshed_at, self._refreshed_cycle = now, self._mirror.cycle
        if not self._mirror.engine.state.waiting.keys:
            if self._estimated:  # the last job that waited was held, perhaps: what it was told holds no longer
                self._estimated = False
                self._say({"id": 0, "answer": {"made_ms": self._mirror.at_ms, "estimates": [], "took_s": 0.0}})
            return
        self._refreshing = True
        now_ms = max(self._now_ms(), self._mirror.at_ms)
        self._fork(0, lambda: questions.refresh(self._mirror.engine, known, now_ms))

    # -- forks

    def _fork(self, id: int, work: Callable[[], Json]) -> None:
        gc.freeze()
        pid, reading = forking.start(lambda: answered(id, work), 0 if id else BEHIND)
        gc.unfreeze()
        self._forks[reading] = Fork(pid, id)
        self._selector.register(reading, selectors.EVENT_READ)

    def _hear(self, fd: int) -> None:
        data = os.read(fd, READ_BYTES)
        fork = self._forks[fd]
        if data:
            fork.text += data
            return
        self._selector.unregister(fd)
        os.close(fd)
        del self._forks[fd]
        os.waitpid(fork.pid, 0)
        failed: Json = {"id": fork.id, "error": {"code": "busy", "message": "the forecast was ended"}}
        answer: Json = json.loads(bytes(fork.text)) if fork.text else failed
        if fork.id == 0:
            self._refreshing = False
            took_s = float(answer.get("answer", {}).get("took_s", 0.0))
            self._next_refresh = time.monotonic() + max(PAUSE_S, SHARE * took_s)
            self._refreshed_at = time.monotonic()
            self._estimated = bool(answer.get("answer", {}).get("estimates"))
            self._again_s = max(until_overdue(answer.get("answer", {}).get("estimates", ())), QUIET_SHARE * took_s)
        self._say(answer)

    def _end(self) -> None:
        for fork in self._forks.values():
            os.kill(fork.pid, signal.SIGKILL)

    def _say(self, message: Json) -> None:
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._out, data) :]


def until_overdue(estimates: Sequence[Sequence[Any]]) -> float:  # Any: JSON
    """Seconds until the first of these estimates has passed, between OVERDUE_S and AGAIN_S."""
    soonest_ms = min((row[2] for row in estimates if row[2] is not None), default=math.inf)
    return min(AGAIN_S, max(OVERDUE_S, soonest_ms / 1000 + 1))


def answered(id: int, work: Callable[[], Json]) -> bytes:
    """The answer as it goes through the pipe; a question that makes no sense has an error for an answer."""
    try:
        told: Json = {"id": id, "answer": work()}
    except (ValueError, KeyError) as error:
        text = str(error.args[0]) if error.args else type(error).__name__
        told = {"id": id, "error": {"code": "bad_question", "message": text}}
    return json.dumps(told, separators=(",", ":")).encode()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m heliostat.forecasting.worker", description="See helio whatif.")
    parser.add_argument("database")
    given = parser.parse_args()
    os.nice(NICE)
    engine = database.reader_engine(given.database, 1)

    def read() -> AbstractContextManager[Session]:
        return Session(bind=engine, expire_on_commit=False, autoflush=False)

    return Worker(read, sys.stdout.fileno(), now_ms=lambda: time.time_ns() // 1_000_000).run(sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(main())
