"""Start, find and end processes of one installation. Nothing is ended that was not proven to be ours.

Ours is: a process whose environment carries our instance word, a descendant of one, or a member of the session that one
leads (Ray's workers overwrite their environment when they set their title, but stay in the session of `ray start`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from heliostat.local.records import INSTANCE, ProcessId

POLL_S = 0.05


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a process that leads its own session, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ours(word: str, sessions: Iterable[int] = ()) -> list[ProcessId]:
    """Every living process of the installation that `word` names, except this one and its ancestors.

    word: a prefix of INSTANCE's value. sessions: leaders' pids whose session members are ours too.
    """
    spare = {os.getpid()} | {parent.pid for parent in psutil.Process().parents()}
    leaders = {pid for pid in sessions if pid > 1}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid not in spare and (_in_session(process.pid, leaders) or _marked(process, word)):
            found[process.pid] = process
    for process in list(found.values()):
        for child in _descendants(process):
            if child.pid not in spare:
                found.setdefault(child.pid, child)
    return [identity for identity in map(_identity, found.values()) if identity is not None]


def end(leader: ProcessId, everyone: Callable[[], list[ProcessId]], patience_s: float) -> list[ProcessId]:
    """SIGTERM to the leader; after `patience_s` SIGKILL to whoever is left of `everyone`. Returns who would not die."""
    before = everyone()
    process = leader.process()
    if process is not None:
        _signal(leader, signal.SIGTERM)
        wait_until(lambda: _reap(leader) or not leader.alive(), patience_s)
    wait_until(lambda: not _living(before), 2.0 if process is not None else 0.0)
    return kill({*before, *everyone()})


def kill(processes: Iterable[ProcessId], patience_s: float = 10.0) -> list[ProcessId]:
    """SIGKILL to each, and wait. Returns those still alive after `patience_s`."""
    left = _living(processes)
    for process in left:
        _signal(process, signal.SIGKILL)
    wait_until(lambda: not _living(left), patience_s)
    return _living(left)


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - 16_384))
            text = source.read().decode(errors="replace")
    except OSError as error:
        return f"({log} cannot be read: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:])


def _living(processes: Iterable[ProcessId]) -> list[ProcessId]:
    return [process for process in processes if not _reap(process) and process.alive()]


def _reap(process: ProcessId) -> bool:
    """Collect the process if it is a child of this one that ended."""
    try:
        return os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
    except ChildProcessError:
        return False


def _signal(process: ProcessId, number: int) -> None:
    living = process.process()
    if living is None:
        return
    try:
        living.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _marked(process: psutil.Process, word: str) -> bool:
    try:
        return process.environ().get(INSTANCE, "").startswith(word)
    except (psutil.Error, OSError):
        return False  # ended meanwhile, or another user's: not ours


def _in_session(pid: int, leaders: set[int]) -> bool:
    try:
        return os.getsid(pid) in leaders
    except OSError:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _identity(process: psutil.Process) -> ProcessId | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(process.pid, process.create_time())
    except psutil.Error:
        return None
