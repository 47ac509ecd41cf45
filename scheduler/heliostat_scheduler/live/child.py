"""The small process between a holder and the child of a command job: it makes sure that no process outlives its lease.

Run as `python -I -S child.py` (standard library only; it starts in 20 ms). Its standard input is its life line: the first line
says what to run, `term <grace ms>` asks the child to end, and end-of-file (the holder died, whatever the cause) means SIGKILL for
everything at once. The child leads a session of its own; whatever daemonizes away from it comes back to us as its nearest
subreaper and is killed too. Should we be killed ourselves, the kernel kills the child (PR_SET_PDEATHSIG).

It leaves the family first (fork, new session): a Ray worker that exits in an orderly way kills its own children, and whoever ends a
whole session must not take the one process that cleans up.

Standard output: `pid <n>` when the child runs, `error <rc> <text>` when it could not be started, `exit <rc> <signal>` when it and
all its descendants are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def main() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    wake, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with os.fdopen(os.dup(0), "rb", buffering=0) as lines:
        order = json.loads(lines.readline())
    pid = _start(order)
    _say(f"pid {pid}")
    status = _watch(pid, wake)
    _kill_all(pid)
    if os.WIFSIGNALED(status):
        _say(f"exit {128 + os.WTERMSIG(status)} {os.WTERMSIG(status)}")
    else:
        _say(f"exit {os.WEXITSTATUS(status)} 0")


def _start(order: dict[str, object]) -> int:
    argv, env, cwd, log = order["argv"], order["env"], order["cwd"], order["log"]
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    out = os.open(str(log or os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    us = os.getpid()
    failed, failed_in = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _become(argv, env, str(cwd), out, us, libc)
        except OSError as error:
            os.write(failed_in, f"{error.errno or 0} {error}".encode())
        finally:
            os._exit(NOT_FOUND)
    os.close(failed_in)
    problem = os.read(failed, 4096).decode()
    os.close(failed)
    os.close(out)
    if problem:
        os.waitpid(pid, 0)
        number, _, text = problem.partition(" ")
        _say(f"error {NOT_FOUND if int(number) == 2 else NOT_EXECUTABLE} {text}")
        sys.exit(0)
    return pid


def _become(argv: list[str], env: dict[str, str], cwd: str, out: int, parent: int, libc: ctypes.CDLL | None) -> None:
    """In the forked child: turn into the command."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(NOT_FOUND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    if cwd:
        os.chdir(cwd)
    os.execvpe(argv[0], argv, env)


def _watch(pid: int, wake: int) -> int:
    """Until the child has ended. Returns its wait status."""
    kill_at = float("inf")
    watched = [0, wake]
    while True:
        timeout = None if kill_at == float("inf") else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if 0 in ready:
            text = os.read(0, 4096)
            for line in text.decode().splitlines():
                grace_ms = int(line.removeprefix("term "))
                _signal(pid, signal.SIGTERM)
                kill_at = min(kill_at, time.monotonic() + grace_ms / 1000)
            if not text:
                watched.remove(0)
                kill_at = 0.0
        if time.monotonic() >= kill_at:
            _signal(pid, signal.SIGKILL)
            kill_at = float("inf")
        while True:
            ended, status = _reap()
            if ended == pid:
                return status
            if ended == 0:
                break


def _reap() -> tuple[int, int]:
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _kill_all(leader: int) -> None:
    """The child is gone; end what it left behind: its group, and whatever was handed down to us."""
    _signal(leader, signal.SIGKILL)
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def _children() -> list[int]:
    path = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    try:
        with open(path) as file:  # noqa: PTH123 - pathlib would double the start time
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, text.replace("\n", " ").encode() + b"\n")


if __name__ == "__main__":
    main()
