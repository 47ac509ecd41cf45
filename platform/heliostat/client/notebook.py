"""A card that stays up to date in a notebook cell, without widgets: one output with a display id that is replaced.

Only where an IPython kernel is running: in a terminal, in a script and in a test nothing is shown and nothing is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol


class HasCard(Protocol):
    def card(self) -> Mapping[str, str]: ...


class LiveCard:
    """Shows a handle's card once and replaces it on each `update`. Does nothing outside a notebook."""

    def __init__(self, handle: HasCard) -> None:
        self._handle = handle
        self._display: Any = None  # Any: IPython's DisplayHandle
        self._last: Mapping[str, str] = {}
        if current_cell() is not None:
            from IPython.display import display

            self._last = handle.card()
            self._display = display(self._last, raw=True, display_id=True)

    def update(self) -> None:
        if self._display is None:
            return
        bundle = self._handle.card()
        if bundle != self._last:
            self._last = bundle
            self._display.update(bundle, raw=True)


def current_cell() -> int | None:
    """The number of the cell that runs; None outside an IPython kernel (IPython's terminal is outside)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    return int(shell.execution_count)
