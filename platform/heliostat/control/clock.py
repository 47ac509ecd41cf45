"""Time as an argument: the loop asks a clock, tests turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the epoch; never goes back within one process."""
        ...


class SystemClock:
    """Wall time that stands still while somebody sets the clock back, so that events keep their order."""

    def __init__(self) -> None:
        self._last = 0

    def now_ms(self) -> int:
        self._last = max(self._last, time.time_ns() // 1_000_000)
        return self._last
