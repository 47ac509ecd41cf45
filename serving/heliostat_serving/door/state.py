"""What the ingress knows between two changes of configuration: immutable, swapped whole, so a call sees one configuration only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from heliostat_serving.door.counting import Counter
from heliostat_serving.door.keys import KeyRing
from heliostat_serving.door.metering import Spool
from heliostat_serving.door.split import Split
from heliostat_serving.spec import GatewayConfig, Target
from heliostat_serving.wire.tensors import Tensors


class Backend(Protocol):
    """Who computes: this replica itself (direct mode), or a version's application behind a handle."""

    async def infer(self, target: Target, inputs: Tensors, rows: int, retry: bool) -> Tensors: ...


@dataclass(frozen=True, slots=True)
class Clock:
    """steady_s only ever grows; wall_ms is Unix time."""

    steady_s: Callable[[], float] = time.perf_counter
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class State:
    config: GatewayConfig
    ring: KeyRing
    split: Split


class Books:
    """Where calls are written down: the spool of the current configuration, and the counts for the metrics."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self.counter = Counter()
        self.spool = Spool("", replica)
        self._old: list[Spool] = []

    def use(self, folder: str) -> None:
        if folder != self.spool.folder:
            self._old.append(self.spool)
            self.spool = Spool(folder, self._replica)

    def flush(self, now_s: float) -> None:
        while self._old:
            self._old.pop().close()
        self.spool.flush(now_s)

    def close(self) -> None:
        self.flush(0.0)
        self.spool.close()


def state(config: GatewayConfig, before: State | None, clock: Clock) -> State:
    ring = KeyRing(config, before.ring if before else None, clock.steady_s, clock.wall_ms)
    return State(config, ring, Split(config, clock.chance))
