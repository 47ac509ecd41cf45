"""A card that stays up to date in a notebook cell, without widgets: one output with a display id that is replaced.

Only where an IPython kernel is running: in a terminal, in a script and in a test nothing is shown and nothing is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol


class HasCard(Protocol):
    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, str]: ...


class LiveCard:
    """Shows a handle's card once and replaces it on each `update`. Does nothing outside a notebook."""

    def __init__(self, handle: HasCard) -> None:
        self._handle = handle
        self._display: Any = None  # Any: IPython's DisplayHandle
        self._last: Mapping[str, str] = {}
        if _in_notebook():
            from IPython.display import display

            self._last = handle._repr_mimebundle_()
            self._display = display(self._last, raw=True, display_id=True)

    def update(self) -> None:
        if self._display is None:
            return
        bundle = self._handle._repr_mimebundle_()
        if bundle != self._last:
            self._last = bundle
            self._display.update(bundle, raw=True)


def _in_notebook() -> bool:
    """Whether an IPython kernel (not IPython's terminal) runs this code."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None
