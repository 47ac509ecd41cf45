"""Computations in forks of this process: it waits for none of them, and nothing of them outlives the answer. Only for one thread."""

from __future__ import annotations

import gc
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
READ_BYTES = 1 << 20
RARELY = 200_000
"""New objects after which a fork looks for garbage: it is gone in seconds, and looking was a fifth of what it did."""


def start(work: Callable[[], bytes], behind: int = 0) -> tuple[int, int]:
    """A fork that computes: its pid, and the end of a pipe from which the bytes come. behind: by how much it is nicer than this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _compute(writing, work, behind)
    os.close(writing)
    return pid, reading


def both(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """The results of both, computed at a time where there are two cores. An exception of either is raised here."""
    pid, reading = start(lambda: _pickled(second))
    try:
        mine = first()
        data = b"".join(iter(lambda: os.read(reading, READ_BYTES), b""))
    finally:
        os.close(reading)
        os.waitpid(pid, 0)
    if not data:
        raise RuntimeError("the other half of a forecast ended without an answer")
    answer: T | BaseException = pickle.loads(data)  # bytes of our own fork
    if isinstance(answer, BaseException):
        raise answer
    return mine, answer


def _pickled(work: Callable[[], T]) -> bytes:
    try:
        return pickle.dumps(work())
    except (ValueError, KeyError) as error:
        return pickle.dumps(error)


def _compute(writing: int, work: Callable[[], bytes], behind: int) -> None:
    """In the fork: compute, write, and be gone without touching what is the parent's."""
    code = 0
    try:
        os.nice(behind)
        gc.set_threshold(RARELY)
        data = work()
        while data:
            data = data[os.write(writing, data) :]
    except BaseException:  # noqa: BLE001  (the fork must never return into its parent's stack)
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)
