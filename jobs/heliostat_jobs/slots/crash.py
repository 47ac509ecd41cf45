"""A driver that ends because its slot broker died says so by its exit code: not the script's fault, so its attempt is tried again.

The control plane counts a driver that was killed from outside (128 + SIGKILL) as a crash of the infrastructure
(`heliostat.control.endings`), and every other code as the script's own word. The script keeps its chance: what it catches, it has
caught, and its `finally` runs; only what would end Python with a stack trace ends it with this code instead.
"""

from __future__ import annotations

import os
import signal
import sys
from types import TracebackType

from heliostat_jobs.errors import BrokerLost

EXIT_CODE = 128 + signal.SIGKILL


def install() -> None:
    """Put this before the present `sys.excepthook`. In a worker of Ray it is never called."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        if is_by_broker(error):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_CODE)

    sys.excepthook = hook


def is_by_broker(error: BaseException | None) -> bool:
    """Whether BrokerLost is what it began with, also when it was raised in a task or wrapped on its way."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BrokerLost) or isinstance(getattr(error, "cause", None), BrokerLost):
            return True
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
