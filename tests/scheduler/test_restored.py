"""A restored engine goes on like the one that was written down: same events, same plans, whatever has been judged before."""

from __future__ import annotations

import random

import pytest
from heliostat_scheduler.core import Engine, Plan
from heliostat_scheduler.core import events as ev

from tests.scheduler.storm import ACTIONS, Storm
from tests.scheduler.world import World, job, node, queue

STEPS = 80


class Mirror:
    """Beside an engine, one that was restored after its last decision, or after its last event, and is told the same."""

    def __init__(self, engine: Engine, after_events: bool) -> None:
        self.apply_, self.decide_ = engine.apply, engine.decide
        self.engine, self.after_events = engine, after_events
        self.twin: Engine | None = None

    def apply(self, event: ev.Event, now_ms: int) -> None:
        self.apply_(event, now_ms)
        if self.after_events:
            self.twin = Engine.restore(self.engine.snapshot())
        elif self.twin is not None:
            self.twin.apply(event, now_ms)

    def decide(self, now_ms: int) -> Plan:
        plan = self.decide_(now_ms)
        if self.twin is not None:
            assert self.twin.decide(now_ms) == plan
            assert self.twin.next_wakeup_ms() == self.engine.next_wakeup_ms()
        self.twin = Engine.restore(self.engine.snapshot())
        return plan


@pytest.mark.parametrize("after_events", [False, True], ids=["after a decision", "after an event"])
@pytest.mark.parametrize("seed", range(12))
def test_it_decides_alike(seed: int, after_events: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    storm = Storm(rng.choice, frozenset())
    engine = storm.world.engine
    mirror = Mirror(engine, after_events)
    monkeypatch.setattr(engine, "apply", mirror.apply)
    monkeypatch.setattr(engine, "decide", mirror.decide)
    for _ in range(STEPS):
        storm.act(rng.choice(ACTIONS))


def test_what_has_been_judged_is_not_judged_again() -> None:
    """The first in line of x is blocked by its limit: were it looked at again, x would come after solo."""
    made = World([node("n0", 4)], [queue("x", 2, limit=3), queue("solo")], at=1_000)
    made.submit(job("holder", 1, "x"), job("big", 3, "x", at=1))
    made.settle()
    made.step()
    why = made.engine.reason("big")
    made.submit(job("small", 1, "x", at=2), job("other", 1, "solo", at=2))
    twin = Engine.restore(made.engine.snapshot())
    assert twin.reason("big") == why and not twin.state.stale
    assert twin.decide(made.now) == made.engine.decide(made.now)
