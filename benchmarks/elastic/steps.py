"""The steps of a run with the moment each was seen, and what one change of its size cost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Step:
    """One line of steps.jsonl, seen at_s (wall clock)."""

    at_s: float
    number: int
    world_size: int


class StepWatch:
    """Follows steps.jsonl from a thread, every 10 ms."""

    def __init__(self, path: Path) -> None:
        self.steps: list[Step] = []
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _follow(self) -> None:
        read, rest = 0, b""
        while not self._stop.wait(LOOK_S):
            if not self._path.is_file():
                continue
            with self._path.open("rb") as file:
                file.seek(read)
                new = file.read()
            read += len(new)
            *lines, rest = (rest + new).split(b"\n")
            now_s = time.time()
            for line in lines:
                row = json.loads(line)
                self.steps.append(Step(now_s, row["step"], row["world_size"]))


@dataclass(frozen=True, slots=True)
class Change:
    """One change of size. All in seconds; lost: step numbers that had to be made again.

    released: order to the moment the slots that were taken away (or, when growing, all old ones) were free. pause: last step before to
    first step after. again: order to the first step after. overlap: from the order to the last step before, with the steps per second
    in it; calm: steps per second before the order.
    """

    side: str
    before: int
    after: int
    released: float
    pause: float
    again: float
    lost: int
    overlap: float
    overlap_steps_per_s: float
    calm_steps_per_s: float

    def as_json(self) -> dict[str, Any]:
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


def change(side: str, steps: Sequence[Step], size: int, ordered_at_s: float, released_at_s: float) -> Change:
    """What the change to `size` that was ordered then cost. `steps` reaches past the first step of the new size."""
    after = next(n for n, step in enumerate(steps) if step.at_s > ordered_at_s and step.world_size == size)
    last, first = steps[after - 1], steps[after]
    done = max(step.number for step in steps[:after])
    calm = [step for step in steps[:after] if ordered_at_s - 3 < step.at_s <= ordered_at_s]
    during = [step for step in steps[:after] if step.at_s > ordered_at_s]
    overlap = max(0.0, last.at_s - ordered_at_s)
    return Change(
        side=side,
        before=last.world_size,
        after=size,
        released=released_at_s - ordered_at_s,
        pause=first.at_s - last.at_s,
        again=first.at_s - ordered_at_s,
        lost=max(0, done - first.number + 1),
        overlap=overlap,
        overlap_steps_per_s=len(during) / overlap if overlap > 0.2 else 0.0,
        calm_steps_per_s=len(calm) / 3,
    )
