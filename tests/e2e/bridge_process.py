"""A bridge as a child process of the test, and the conformance suite's rig over it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from heliostat_scheduler.live import protocol as p
from heliostat_scheduler.live.protocol import Command, CommandSpec, Fact, Lease, LeaseGone, NodeJoined, SlotRef
from heliostat_scheduler.live.tables import holder_name

from tests.e2e.ray_cluster import RayCluster
from tests.e2e.ray_driver import DriverError, RayDriver

PATIENCE_S = 40.0
TEXTS = {
    "wait": "sleep 1000",
    "ignore TERM": "trap '' TERM; while true; do sleep 1; done",
    "exit 0": "true",
    "exit 3": "exit 3",
}


class BridgeProcess:
    """Start, speak, listen, kill."""

    def __init__(self, cluster: RayCluster, *options: str) -> None:
        self._cluster = cluster
        self._options = options
        self.facts: list[Fact] = []
        self._ids = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "heliostat_scheduler.live.bridge", *self._options]
        with (self._cluster.temp_dir / "bridge.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self._cluster.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        since = len(self.facts)
        self.until(NodeJoined, since=since)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            message = p.decode(line)
            assert isinstance(message, Fact)
            self.facts.append(message)

    def send(self, command: Command) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(p.encode(command))
        self.process.stdin.flush()

    def ask(self, cls: type[Any], *, term: int = 1, **fields: Any) -> p.Reply:
        ident = 500_000 + next(self._ids)
        self.send(cls(id=ident, term=term, **fields))
        reply: p.Reply = self.until(p.Reply, id=ident)
        return reply

    def until(self, kind: type[Any], *, since: int = 0, within_s: float = PATIENCE_S, **match: Any) -> Any:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for fact in self.facts[since:]:
                if isinstance(fact, kind) and all(getattr(fact, key) == value for key, value in match.items()):
                    return fact
            assert self.process is not None
            if self.process.poll() is not None:
                last = "\n".join(str(fact)[:1000] for fact in self.facts[-3:])
                raise AssertionError(f"the bridge ended with {self.process.returncode}: {last}\n{self.log()[-3000:]}")
            time.sleep(0.005)
        heard = "\n".join(str(fact)[:300] for fact in self.facts[since:][-20:])
        raise AssertionError(
            f"no {kind.__name__} {match} within {within_s:.0f} s; heard:\n{heard}\n{self.log()[-3000:]}"
        )

    def log(self) -> str:
        return (self._cluster.temp_dir / "bridge.log").read_text()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def close(self) -> int:
        """As when the parent dies: its end of the pipe closes."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)


class RealRig:
    """tests/contracts/bridge_conformance.py over a bridge process."""

    def __init__(self, cluster: RayCluster, term: int = 7) -> None:
        self.term = term
        self._logs = cluster.temp_dir / "runs"
        self.bridge = BridgeProcess(cluster, "--reserve-cpu-milli", "2000")
        self.driver = RayDriver(cluster)
        assert self.bridge.ask(p.Hello, term=term).code == ""

    def close(self) -> None:
        self.driver.close()
        self.bridge.close()

    def send(self, command: Command) -> None:
        self.bridge.send(command)

    def facts(self) -> list[Fact]:
        return list(self.bridge.facts)

    def until(self, kind: type[Any], *, since: int = 0, **match: Any) -> Any:
        return self.bridge.until(kind, since=since, **match)

    def sleep(self, ms: int) -> None:
        time.sleep(ms / 1000)

    def slots(self) -> list[SlotRef]:
        return list(next(f for f in reversed(self.facts()) if isinstance(f, NodeJoined)).slots)

    def joined(self) -> NodeJoined:
        return next(f for f in reversed(self.facts()) if isinstance(f, NodeJoined))

    def wanted(self) -> dict[str, int]:
        """Pending groups that ask for nodes, by flavor."""
        names = [
            n for n, state in self.driver("groups").items() if n.startswith(p.WANTED_PREFIX) and state == "PENDING"
        ]
        return dict(Counter(name.removeprefix(p.WANTED_PREFIX).rpartition("/")[0] for name in names))

    def node(self) -> str:
        return next(f for f in reversed(self.facts()) if isinstance(f, NodeJoined)).node

    def command(self, job: str, does: str) -> CommandSpec:
        run = self._logs / job
        return CommandSpec(("/bin/bash", "-c", TEXTS[does]), cwd=str(run), log=str(run / "log"))

    def read_log(self, job: str) -> str:
        path = self._logs / job / "log"
        return path.read_text() if path.exists() else ""

    def folder(self, job: str) -> Path:
        return self._logs / job

    def lease(self, job: str, secret: str) -> Lease:
        with _lease_gone():
            return p.lease_from(self.driver("lease", job=job, secret=secret))

    def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> None:
        with _lease_gone():
            self.driver("ack", job=job, secret=secret, epoch=epoch, what=what, facts=facts)

    def report(self, job: str, secret: str, facts: dict[str, Any]) -> None:
        self.driver("report", job=job, secret=secret, facts=facts)

    def occupy(self, slot: SlotRef, name: str, *, job: str, attempt: int) -> None:
        env = {p.ENV_JOB: job, p.ENV_ATTEMPT: str(attempt)} if job else {}
        self.driver("actor", name=name, group=slot.group, gpus=1, env=env)
        self.driver("who", name=name)  # waits until it runs, or was killed already

    def vacate(self, name: str) -> None:
        self.driver("kill", name=name)

    def alive(self, name: str) -> bool:
        return self.driver("who", name=name, timeout_s=2) is not None

    def restart_bridge(self) -> None:
        self.bridge.kill()
        self.bridge.start()

    def kill_board(self) -> None:
        self.driver("kill_named", name=p.BOARD_NAME, namespace=p.NAMESPACE)

    def crash_command(self, job: str, attempt: int) -> None:
        place = self.slots()[0].slot
        self.driver("kill_named", name=holder_name(job, attempt, place), namespace=p.NAMESPACE)


@contextlib.contextmanager
def _lease_gone() -> Any:
    try:
        yield
    except DriverError as error:
        if error.kind == "LeaseGone":
            raise LeaseGone(str(error)) from error
        raise
