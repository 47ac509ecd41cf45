"""Two computations at a time, where there are two cores: the second in a fork. Only for processes of one thread."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
READ_BYTES = 1 << 20


def both(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """The results of both. An exception of either is raised here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _compute(writing, second)
    os.close(writing)
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


def _compute(writing: int, work: Callable[[], T]) -> None:
    """In the fork."""
    try:
        try:
            answer: T | BaseException = work()
        except (ValueError, KeyError) as error:
            answer = error
        data = pickle.dumps(answer)
        while data:
            data = data[os.write(writing, data) :]
    except BaseException:  # noqa: BLE001  (the fork must never return into its parent's stack)
        traceback.print_exc()
    finally:
        os._exit(0)
