"""Two functions that run on other nodes as Ray tasks. Imports nothing heavy: each may be the first thing a worker loads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import ray


def devices() -> list[int]:
    """The GPU indices that Ray gave to this task: which device a slot is."""
    return [int(index) for index in ray.get_gpu_ids()]


def kill_driver(pid: int) -> bool:
    """SIGKILL a driver of this node, which Ray has just named by its pid. False: it is gone, or belongs to somebody else."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_worker(pid: int) -> bool:
    """SIGKILL a worker process of this node. False: there is none with that id (any more)."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    if not title.startswith(b"ray::"):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
