"""The holder of a slot: the actor that sits in it while a command runs, and, on one slot of each node, runs the command.

All it needs comes with its constructor, so that creating the actor (its name is unique) is the one atomic step of a start: a
repeated start finds the name taken. It imports neither torch nor anything heavy. The child itself is kept by `child.py`, which
ends everything when this process dies. What happens is said on the lease board (`started`, `exited`), where it stays until the
lease goes, whoever else dies in between. Afterwards the actor stays in its slot until the bridge ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import ray

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.board import LeaseClient
from heliostat_scheduler.live.protocol import CommandSpec, LeaseGone

RENDEZVOUS = "rendezvous"
KEPT_RAY = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True, slots=True)
class HolderTask:
    """devices: the lease's GPU indices on this node. node_rank: which of the lease's nodes this is. runs: starts the child."""

    job: str
    attempt: int
    epoch: int
    secret: str
    spec: CommandSpec
    devices: tuple[int, ...]
    node_rank: int
    nodes: int
    runs: bool


def exited_word(task: HolderTask) -> str:
    """One child: `exited`. Several: one word per node, which the bridge adds up."""
    return protocol.EXITED if task.nodes == 1 else f"{protocol.EXITED}.{task.node_rank}"


class Holder:
    """The actor class."""

    def __init__(self, task: HolderTask) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._grace_ms: int | None = None
        self._child: subprocess.Popen[str] | None = None
        self._pid = 0
        self._client = LeaseClient(task.job, task.secret, patience_s=24 * 3600.0)
        if task.runs:
            threading.Thread(target=self._run, name="command", daemon=True).start()

    def signal(self, grace_ms: int) -> None:
        """SIGTERM now, SIGKILL after the grace. Before the child exists: it is never started."""
        with self._lock:
            self._grace_ms = grace_ms if self._grace_ms is None else min(self._grace_ms, grace_ms)
            if self._child is not None:
                self._order(self._child, f"term {self._grace_ms}")

    # ---- the command -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            exited = self._supervise()
        except (OSError, zipfile.BadZipFile, UnsafePackage) as error:
            exited = _exit_facts(127, text=f"the command could not be prepared: {error}")
            _append(self._task.spec.log, f"heliostat: {exited['text']}\n")
        exited["signalled"] = self._grace_ms is not None
        with contextlib.suppress(LeaseGone):
            self._client.ack(self._task.epoch, exited_word(self._task), exited)

    def _supervise(self) -> dict[str, Any]:  # Any: JSON
        spec = self._task.spec
        cwd = Path(spec.cwd) if spec.cwd else None
        if cwd is not None:
            cwd.mkdir(parents=True, exist_ok=True)
        if spec.log:
            Path(spec.log).parent.mkdir(parents=True, exist_ok=True)
        if spec.package and cwd is not None:
            unpack(Path(spec.package), cwd)
        order = {"argv": list(spec.argv), "env": self._environment(), "cwd": spec.cwd, "log": spec.log}
        with self._lock:
            if self._grace_ms is not None:
                return _exit_facts(128 + signal.SIGTERM, signal.SIGTERM, text="signalled before it was started")
            child = self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={},
                text=True,
            )
            self._order(child, json.dumps(order))
        assert child.stdout is not None
        facts = self._listen(child.stdout)
        child.wait()
        return facts

    def _listen(self, lines: IO[str]) -> dict[str, Any]:  # Any: JSON
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "pid":
                self._pid = int(rest)
                node = ray.get_runtime_context().get_node_id()
                facts = {"pid": self._pid, "node": node, "devices": list(self._task.devices)}
                with contextlib.suppress(LeaseGone):
                    self._client.ack(self._task.epoch, protocol.STARTED, facts)
            elif word == "error":
                rc, _, text = rest.partition(" ")
                _append(self._task.spec.log, f"heliostat: the command could not be started: {text}\n")
                return _exit_facts(int(rc), text=text)
            elif word == "exit":
                rc, number = rest.split()
                return _exit_facts(int(rc), int(number))
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        return _exit_facts(137, signal.SIGKILL, lost=True, text="the process that kept the command was killed")

    def _environment(self) -> dict[str, str]:
        env = node_environment()
        env["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        devices = ",".join(str(device) for device in self._task.devices)
        env |= {"PYTHONUNBUFFERED": "1", **dict(self._task.spec.env), "CUDA_VISIBLE_DEVICES": devices}
        if self._task.nodes > 1:
            env |= self._rendezvous()
        return env

    def _rendezvous(self) -> dict[str, str]:
        """The first node chooses a free port and says so on the board; the others read it there."""
        task = self._task
        if task.node_rank == 0:
            with socket.socket() as probe:
                probe.bind(("", 0))
                port = probe.getsockname()[1]
            meeting: dict[str, Any] | None = {"addr": ray.util.get_node_ip_address(), "port": port}  # Any: JSON
            self._client.ack(task.epoch, RENDEZVOUS, meeting)
        else:
            while (meeting := self._client.said(RENDEZVOUS)) is None:
                self._client.wait(task.epoch, 0.2)
        assert meeting is not None
        return {
            "MASTER_ADDR": str(meeting["addr"]),
            "MASTER_PORT": str(meeting["port"]),
            "NODE_RANK": str(task.node_rank),
            "WORLD_SIZE": str(task.nodes),
        }

    def _order(self, child: subprocess.Popen[str], line: str) -> None:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(line + "\n")
            child.stdin.flush()


# ---- what a command finds ------------------------------------------------------------------------------------------------


class UnsafePackage(Exception):
    """A zip whose entries would leave the folder."""


def unpack(package: Path, into: Path) -> None:
    """Unpack a zip with its permission bits. An entry that leaves the folder is refused."""
    with zipfile.ZipFile(package) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if path.is_absolute() or ".." in path.parts:
                raise UnsafePackage(f"{package.name} has an entry outside of its folder: {entry.filename}")
            target = Path(archive.extract(entry, into))
            mode = (entry.external_attr >> 16) & 0o777
            if mode and not entry.is_dir():
                target.chmod(mode | 0o600)


def node_environment() -> dict[str, str]:
    """The environment of the node's raylet (Ray's additions to its workers left out), with this Python first on the path."""
    try:
        raw = Path(f"/proc/{os.getppid()}/environ").read_bytes()
        pairs = (entry.partition("=") for entry in os.fsdecode(raw).split("\0") if entry)
        env = {key: value for key, _, value in pairs}
    except OSError:
        env = {}
    if "PATH" not in env:
        env = dict(os.environ)
    env = {key: value for key, value in env.items() if not key.startswith(("RAY_", "HELIOSTAT_")) or key in KEPT_RAY}
    if "libjemalloc" in env.get("LD_PRELOAD", ""):
        del env["LD_PRELOAD"]  # Ray's own choice for its raylet
    ours, path = str(Path(sys.executable).parent), env.get("PATH", os.defpath)
    if ours not in path.split(os.pathsep):
        env["PATH"] = ours + os.pathsep + path
    return env


def _exit_facts(rc: int, number: int = 0, *, lost: bool = False, text: str = "") -> dict[str, Any]:  # Any: JSON
    return {"rc": rc, "signal": int(number), "lost": lost, "text": text}


def _append(log: str, text: str) -> None:
    if log:
        with Path(log).open("a") as file:
            file.write(text)
