"""The bridge as a child process: started when there is a Ray cluster, watched, started again with growing pauses.

One thread supervises and reads; one writes, so that a bridge that does not read cannot hold up the control loop. The child ends
by itself when our end of its pipe closes.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Command, Fact, Ready

from heliostat.control.messages import BridgeLost, BridgeSaid, Message
from heliostat.local import environments
from heliostat.local.records import RayRecord
from heliostat.settings import Settings

MODULE = "heliostat_scheduler.live.bridge"
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
LOOK_FOR_RAY_S = 1.0
END_PATIENCE_S = 5.0
LAST_WORD_S = 20.0


class BridgeLink:
    def __init__(
        self, settings: Settings, cluster: Callable[[], RayRecord | None], post: Callable[[Message], None]
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._post = post
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._supervise, name="bridge-link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, command: Command) -> None:
        with self._lock:
            if self._child is not None:
                self._lines.put(protocol.encode(command))

    def restart(self) -> None:
        with self._lock:
            child = self._child
        if child is not None:
            child.kill()

    def pid(self) -> int:
        """The present child's, 0 when there is none."""
        with self._lock:
            return 0 if self._child is None else self._child.pid

    def close(self, last: Command | None = None) -> None:
        """End the bridge: after a last command its pipe closes, and it has a few seconds to go."""
        self._closed.set()
        with self._lock:
            child = self._child
            if last is not None:
                self._lines.put(protocol.encode(last))
            self._lines.put(None)
        if child is not None:
            try:
                child.wait(END_PATIENCE_S if last is None else LAST_WORD_S)
            except subprocess.TimeoutExpired:
                child.kill()

    def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            record = self._cluster()
            if record is None or not record.alive():
                self._closed.wait(LOOK_FOR_RAY_S)
                pause_s = FIRST_PAUSE_S
                continue
            worked = self._one_life(record)
            pause_s = FIRST_PAUSE_S if worked else min(LONGEST_PAUSE_S, pause_s * 2)
            self._closed.wait(pause_s)

    def _one_life(self, record: RayRecord) -> bool:
        """Run one child to its end. Returns whether it ever was ready."""
        argv = [sys.executable, "-m", MODULE]
        if record.reserve_cpu_milli:
            argv += ["--reserve-cpu-milli", str(record.reserve_cpu_milli)]
        log = self._settings.logs_dir / "bridge.log"
        with log.open("ab") as errors:
            child = subprocess.Popen(
                argv,
                env=environments.of_bridge(self._settings, record),
                cwd=self._settings.home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert child.stdin is not None and child.stdout is not None
        with self._lock:
            self._lines = queue.SimpleQueue()
            self._child = child
        writer = threading.Thread(target=_write, args=(child.stdin, self._lines), name="bridge-writer", daemon=True)
        writer.start()
        ready = self._read(child.stdout)
        code = child.wait()
        with self._lock:
            self._child = None
            self._lines.put(None)
        child.stdout.close()
        self._post(BridgeLost(f"the bridge ended with code {code}; see {log}"))
        return ready

    def _read(self, lines: IO[bytes]) -> bool:
        ready = False
        for line in lines:
            try:
                message = protocol.decode(line)
            except protocol.ProtocolError as error:
                self._note(str(error))
                continue
            if isinstance(message, Fact):
                ready = ready or isinstance(message, Ready)
                self._post(BridgeSaid(message))
        return ready

    def _note(self, text: str) -> None:
        self._post(BridgeSaid(protocol.Note("error", "bridge_line_unreadable", {"text": text})))


def _write(pipe: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    """Until the child is gone or nobody sends any more."""
    try:
        while (line := lines.get()) is not None:
            pipe.write(line)
            pipe.flush()
        pipe.close()
    except OSError:
        return  # the child is gone: its reader says so
