"""A progress line on stderr for anything that takes longer than two seconds; silent before that."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET_S = 2.0
EVERY_S = 0.5


class Progress:
    """`with Progress("muri", total) as bar: bar.at(done)`. The output stays out of stdout, where the result goes."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None, quiet: bool = False) -> None:
        """`quiet`: say nothing (a bar around this one is already shown)."""
        self._what = what
        self._total = max(1, total)
        self._stream = stream if stream is not None else sys.stderr
        self._began = time.monotonic()
        self._next = float("inf") if quiet else self._began + QUIET_S
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\n")

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        self._shown = True
        share = min(1.0, done / self._total)
        bar = "#" * int(30 * share)
        self._stream.write(f"\r{self._what} [{bar:<30}] {100 * share:5.1f} %  {now - self._began:.0f} s")
        self._stream.flush()
