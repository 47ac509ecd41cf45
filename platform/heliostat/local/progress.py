"""What `up` and `down` tell while they work; the terminal renders it, the API and tests may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """name: stable word (`home`, `ray`, `control`, `bridge`, `sweep`). state: `start`, `done`, `skip` (nothing to do) or `late`."""

    name: str
    state: str
    text: str


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """For callers that do not want to hear."""
