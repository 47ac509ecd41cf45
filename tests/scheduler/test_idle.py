"""Idleness, case by case: measured activity and progress of the holder, who waits, and what becomes of the holder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from heliostat_scheduler.core import JobSpec, Policy, Preempt, QueueSpec, ReasonCode, Resize
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import FIXED, World, job, node, queue

POLICY = Policy(
    cooldown_ms=0,
    resize_interval_ms=0,
    aging_step_ms=0,
    idle_warmup_ms=0,
    suspect_after_ms=120_000,
    idle_after_ms=300_000,
)
WINDOW_MS = 60_000
SCARCE = [queue("default", 1)]
ELASTIC = job("x", max_tasks=2, elastic=True)
EQUAL = job("y", at=1)


@dataclass(frozen=True)
class Case:
    """The holder is measured window by window, then somebody waits (or not). `tasks`: what the holder has in the end."""

    say: str
    readings: Sequence[tuple[int | None, bool]]
    tasks: int
    holder: JobSpec = ELASTIC
    waiting: JobSpec | None = EQUAL
    queues: list[QueueSpec] = field(default_factory=lambda: SCARCE)
    silence_ms: int = 0
    policy: Policy = POLICY


IDLE = [(0, False)] * 6
CASES = [
    Case("no activity and no progress: shrunk", IDLE, 1),
    Case("busy: untouched", [(950, True)] * 6, 2),
    Case("busy though it reports no progress: untouched", [(950, False)] * 6, 2),
    Case("no activity but progress: untouched", [(0, True)] * 6, 2),
    Case("nobody waits: untouched", IDLE, 2, waiting=None),
    Case("no telemetry: untouched", [], 2),
    Case("no reading: untouched", [(None, False)] * 6, 2),
    Case("telemetry that stopped long ago counts as none", IDLE, 2, silence_ms=10 * WINDOW_MS),
    Case("not for long enough: untouched", [(0, False)] * 3, 2),
    Case("one reading of activity starts the clock again", [*[(0, False)] * 4, (300, False), (0, False)], 2),
    Case("activity between the marks does not excuse it", [*[(0, False)] * 3, (100, False), *[(0, False)] * 3], 1),
    Case("nor does it accuse it", [(100, False)] * 9, 2),
    Case("a lower class gets nothing", IDLE, 2, waiting=replace(EQUAL, priority=50)),
    Case("idle borrowed work is suspended as a whole", IDLE, 0, job("x", 2), queues=[queue("default", 1)]),
    Case("idle work within its quota keeps its GPUs", IDLE, 1, job("x", 2), queues=[queue("default", 2)]),
    Case("work that may not stop is not suspended", IDLE, 1, job("x", 2, preemptibility=FIXED), queues=[queue("default", 2)]),
    Case("idle borrowed work of another queue goes too", IDLE, 0, job("x", 2, "b"), job("y", 1, "a", at=1), [queue("a"), queue("b")]),
    Case("it can be turned off", IDLE, 2, policy=replace(POLICY, idle_actions=False)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_idle(case: Case) -> None:
    made = World([node("n0", 2)], case.queues, case.policy, at=1_000)
    made.submit(case.holder)
    made.settle()
    for activity, progressed in case.readings:
        made.now += WINDOW_MS
        made.apply(ev.Utilized("x", WINDOW_MS, activity, progressed))
        made.settle()
    made.now += case.silence_ms
    if case.waiting is not None:
        made.submit(case.waiting)
    made.settle()
    assert made.tasks("x") == case.tasks
    moved = [d for plan in made.plans for d in plan.decisions if isinstance(d, (Preempt, Resize)) and d.job_id == "x"]
    changed = case.tasks < (2 if case.holder.elastic else 1)
    assert [d.reason.code for d in moved] == ([ReasonCode.IDLE] if changed else [])


def test_the_reason_says_for_how_long() -> None:
    made = World([node("n0", 2)], SCARCE, POLICY, at=1_000)
    made.submit(ELASTIC)
    made.settle()
    for _ in range(6):
        made.now += WINDOW_MS
        made.apply(ev.Utilized("x", WINDOW_MS, 0, False))
    made.submit(EQUAL)
    plan = made.decide()
    assert plan.decisions[0].reason.fact("idle_ms") == 6 * WINDOW_MS


def test_a_signal_that_swings_around_the_mark_changes_the_state_once() -> None:
    made = World([node("n0", 2)], SCARCE, POLICY, at=1_000)
    made.submit(ELASTIC)
    made.settle()
    seen = []
    for step in range(40):
        made.now += WINDOW_MS
        made.apply(ev.Utilized("x", WINDOW_MS, 40 if step % 2 else 60, False))
        seen.append(made.engine.state.book.jobs["x"].idle_state)
    assert [state for i, state in enumerate(seen) if i == 0 or state != seen[i - 1]] == ["", "suspect", "idle"]


def test_an_idle_job_starts_over_after_a_resize() -> None:
    made = World([node("n0", 2)], SCARCE, POLICY, at=1_000)
    made.submit(ELASTIC)
    made.settle()
    for _ in range(6):
        made.now += WINDOW_MS
        made.apply(ev.Utilized("x", WINDOW_MS, 0, False))
    made.submit(EQUAL)
    made.settle()
    assert made.engine.state.book.jobs["x"].idle_state == "" and not made.engine.state.idle
