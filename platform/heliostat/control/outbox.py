"""What one turn of the loop wants done: rows to write, then effects. Nothing leaves before its rows are committed.

A step's write runs in its own savepoint of the turn's one transaction. If it is refused (a programming error: an illegal
move), only that step is undone, its effects do not happen, and the refusal is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat_scheduler.core.events import Event
from sqlalchemy.orm import Session

Write = Callable[[Session], None]
Effect = Callable[[], None]


@dataclass(slots=True)
class Step:
    about: str
    write: Write | None
    effects: tuple[Effect, ...]


@dataclass(slots=True)
class Outbox:
    """`apply` hands an event to the engine at once and returns whether it was legal."""

    apply: Callable[[Event], bool]
    steps: list[Step] = field(default_factory=list)

    def event(self, event: Event) -> bool:
        return self.apply(event)

    def step(self, about: str, write: Write | None, *effects: Effect) -> None:
        """about: the job or other object, for the log."""
        self.steps.append(Step(about, write, effects))

    def __bool__(self) -> bool:
        return bool(self.steps)
