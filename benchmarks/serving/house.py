"""A whole installation with an endpoint under constant load, and the means to kill any part of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from heliostat import local
from heliostat.client.client import Client
from heliostat.local import UpOptions, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import Settings, load

from benchmarks.platform.installation import free_port
from tests.e2e.serve_world import write_scaled

CLIENTS = 8
PAUSE_S = 0.005
"""What the model takes per call, so that calls are inside when something dies."""


@dataclass
class Load:
    """Callers in a process of their own (`constant_load`), as long as it is entered."""

    url: str
    key: str
    clients: int = CLIENTS
    sdk: bool = False
    _file: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="hb-load-")[1]))
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Load:
        command = [sys.executable, "-m", "benchmarks.serving.constant_load", self.url, self.key, str(self._file)]
        command += ["--clients", str(self.clients), *(["--sdk"] if self.sdk else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        until(lambda: len(self.answers()) > 10 * self.clients, "the load runs", 30)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._all = self.answers()
        self._file.unlink()

    def answers(self) -> list[tuple[float, str]]:
        """(monotonic seconds, what came)."""
        if not self._file.exists():
            return self._all
        lines = self._file.read_text().split("\n")[:-1]
        return [(float(at), what) for at, what, _ in (line.split("\t") for line in lines)]

    def failed(self) -> list[tuple[float, str]]:
        return [(at, what) for at, what in self.answers() if not what.startswith("2")]

    def last(self, seconds: float) -> set[str]:
        since = time.monotonic() - seconds
        return {what for at, what in self.answers() if at >= since}

    def last_of(self, what: str) -> float:
        return max((at for at, said in self.answers() if said == what), default=0.0)

    def longest_gap_s(self) -> float:
        """Between two good answers of anybody."""
        times = [at for at, what in self.answers() if what.startswith("2")]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


@dataclass
class House:
    settings: Settings
    options: UpOptions

    def up(self) -> None:
        if not local.up(self.settings, self.options).connected:
            raise RuntimeError("the bridge did not connect")

    @property
    def client(self) -> Client:
        return Client(load(home=self.settings.home, environ={}))

    @property
    def ray(self) -> RayRecord:
        record = records.read(self.settings.ray_state_path, RayRecord)
        assert record is not None
        return record

    def push(self, name: str, *scales: float, pause_s: float = PAUSE_S) -> None:
        """One version per scale: x -> x * scale."""
        for scale in scales:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "model"
                write_scaled(folder, scale, pause_s=pause_s)
                (folder / "manifest.json").unlink()
                self.client.push(name, folder)

    def pids(self, *words: str) -> list[int]:
        """Processes of Ray's session whose command line has all the words."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if session == self.ray.pid and all(word in line for word in words):
                found.append(int(entry.name))
        return found

    def applications(self) -> dict[str, Any]:  # Any: Serve's JSON
        token = Path(self.ray.token_path).read_text().strip()
        url = f"{self.ray.dashboard_url}/api/serve/applications/"
        reply = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
        return dict(reply.json()["applications"])

    def replicas(self, app: str) -> list[int]:
        """Processes of an application's replicas that run."""
        shown = self.applications().get(app, {}).get("deployments", {})
        rows = [replica for deployment in shown.values() for replica in deployment["replicas"]]
        return [int(replica["pid"]) for replica in rows if replica["state"] == "RUNNING" and replica["pid"]]

    def control_pid(self) -> int:
        record = records.read(self.settings.control_state_path, ControlRecord)
        assert record is not None
        return record.pid


@contextmanager
def house(gpus: int = 2) -> Iterator[House]:
    home = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))
    (home / "serving").mkdir()
    (home / "serving" / "port").write_text(str(free_port()))
    settings = replace(load(home=home, environ={}), port=free_port())
    made = House(settings, UpOptions(gpus=gpus, object_store_bytes=200_000_000, i_have_a_firewall=True))
    try:
        made.up()
        yield made
    finally:
        local.down(settings)
        left = local.leftovers(settings)
        shutil.rmtree(home)
        if left:
            print(f"left behind: {left}", file=sys.stderr)


def kill9(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def until(reached: Callable[[], bool], what: str, limit_s: float) -> float:
    """Seconds until it was reached."""
    begun = time.monotonic()
    while not reached():
        if time.monotonic() - begun > limit_s:
            raise RuntimeError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - begun
