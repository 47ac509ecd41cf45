"""Which of a process's own GPU tasks are over, as far as it can tell without keeping all of their results alive. No Ray here.

A reference that is held keeps its task's result in the object store, and looking at thousands of them costs more than the question.
So only the oldest `WATCHED` are held. A slot runs its tasks in the order in which they came: when a watched one ends, the older ones of
its slot are taken to be over too. What is wrong in that (a task that waits for its arguments) makes a slot look emptier than it is,
nothing else; what is never noticed is ended by the broker's look at Ray's tables.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

WATCHED = 200


class OpenTasks:
    """Tokens of tasks that are not known to be over. Tokens rise."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[str, Any]] = {}  # token -> slot, ObjectRef
        self._counted: defaultdict[str, deque[int]] = defaultdict(deque)

    def add(self, token: int, slot: str, ref: Any) -> None:  # Any: an ObjectRef
        if len(self._watched) < WATCHED:
            self._watched[token] = (slot, ref)
        else:
            self._counted[slot].append(token)

    def over(self, ready: Callable[[Sequence[Any]], Sequence[Any]]) -> list[int]:
        """Tokens that ended since the last look. ready: which of some ObjectRefs are there."""
        if not self._watched:
            return []
        there = set(ready([ref for _, ref in self._watched.values()]))
        ended = [token for token, (_, ref) in self._watched.items() if ref in there]
        older = []
        for token in ended:
            slot, _ = self._watched.pop(token)
            while self._counted[slot] and self._counted[slot][0] < token:
                older.append(self._counted[slot].popleft())
        return ended + older

    def clear(self) -> None:
        self._watched.clear()
        self._counted.clear()
