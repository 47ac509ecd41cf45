"""The policy, case by case: who runs, who waits, who gives way. One line a case."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from heliostat_scheduler.core import (
    CPU,
    Engine,
    IllegalEvent,
    JobSpec,
    NodeSpec,
    Policy,
    QueueSpec,
    ReasonCode,
    TaskPlace,
    TaskShape,
)
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.codec import from_json, to_json

from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

CALM = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0)
HALVES = [queue("a", 2), queue("b", 2)]


@dataclass(frozen=True)
class Case:
    """Jobs come in waves; between waves everything settles. `tasks` is what runs in the end."""

    say: str
    waves: list[list[JobSpec]]
    tasks: dict[str, int]
    queues: list[QueueSpec] = field(default_factory=lambda: [queue("default", -1)])
    nodes: list[NodeSpec] = field(default_factory=lambda: [node("n0")])
    policy: Policy = CALM


CASES = [
    Case("a gang starts whole or not at all", [[job("g", tasks=5), job("h", tasks=4, at=1)]], {"g": 0, "h": 4}),
    Case("a gang spans nodes", [[job("g", tasks=5)]], {"g": 5}, nodes=[node("n0"), node("n1", 2)]),
    Case("one node means one node", [[job("g", tasks=3, spread="one_node")]], {"g": 0}, nodes=[node("n0", 2), node("n1", 2)]),
    Case("two halves share a device", [[job("x", 0.5), job("y", 0.5)]], {"x": 1, "y": 1}, nodes=[node("n0", 1)]),
    Case("a whole device is not shared", [[job("x", 0.5), job("y", 1, at=1)]], {"x": 1, "y": 0}, nodes=[node("n0", 1)]),
    Case("a rigid job starts as large as it may", [[job("x", tasks=1, max_tasks=3)]], {"x": 3}),
    Case("an elastic job gives surplus to an equal", [[job("x", max_tasks=4, elastic=True)], [job("y", tasks=2)]], {"x": 2, "y": 2}),
    Case("but not to a lower class", [[job("x", max_tasks=4, elastic=True)], [job("y", priority=50)]], {"x": 4, "y": 0}),
    Case("it grows back when there is room", [[job("x", max_tasks=4, elastic=True)]], {"x": 4}),
    Case("a higher class displaces a lower one", [[job("x", 4)], [job("y", 1, priority=150)]], {"x": 0, "y": 1}),
    Case("an equal class displaces nobody", [[job("x", 4)], [job("y", 1)]], {"x": 1, "y": 0}),
    Case("preemption can be turned off", [[job("x", 4)], [job("y", 1, priority=150)]], {"x": 1, "y": 0},
         policy=replace(CALM, preempt=False)),
    Case("work that may not stop stays", [[job("x", 4, preemptibility=FIXED)], [job("y", 1, priority=150)]], {"x": 1, "y": 0}),
    Case("idle capacity is borrowed", [[job("x", 4, queue="a")]], {"x": 1}, HALVES),
    Case("and given back", [[job("x", 2, queue="a"), job("y", 2, queue="a", at=1)], [job("z", 2, queue="b")]],
         {"x": 1, "y": 0, "z": 1}, HALVES),
    Case("reclaim can be turned off", [[job("x", 4, queue="a")], [job("z", 2, queue="b")]], {"x": 1, "z": 0}, HALVES,
         policy=replace(CALM, reclaim=False)),
    Case("non-preemptible work never borrows", [[job("x", 1, "a", 3, preemptibility=FIXED)]], {"x": 0}, HALVES),
    Case("a semi-preemptible core never borrows, its surplus does",
         [[job("x", 1, "a", 2, max_tasks=4, preemptibility=SEMI, elastic=True)]], {"x": 4}, HALVES),
    Case("and only its surplus is reclaimed",
         [[job("x", 1, "a", 2, max_tasks=4, preemptibility=SEMI, elastic=True)], [job("y", 1, "b", 2)]], {"x": 2, "y": 2}, HALVES),
    Case("a limit holds though GPUs are free", [[job("x", 2), job("y", 1, at=1)]], {"x": 1, "y": 0}, [queue("default", 4, limit=2)]),
    Case("weights share the surplus", [[job(f"x{i}", queue="a", at=i) for i in range(4)], [job(f"y{i}", queue="b", at=9 + i) for i in range(4)]],
         {"x0": 1, "x1": 1, "x2": 1, "y0": 1, "y1": 0}, [queue("a", weight=3), queue("b", weight=1)]),
    Case("the first that fits passes one that does not", [[job("x", 3)], [job("y", 2, at=1), job("z", 1, at=2)]], {"x": 1, "y": 0, "z": 1}),
    Case("the older goes first", [[job("y", 3, at=2), job("x", 3, at=1)]], {"x": 1, "y": 0}),
    Case("flavors are tried as listed", [[job("x", flavors=("b", "a"))]], {"x": 1}, [QueueSpec("default")],
         [node("n0", 1, "a"), node("n1", 1, "b")]),
    Case("CPU-only work shares CPUs", [[job("x", shape=TaskShape(cpu_milli=3000)), job("y", shape=TaskShape(cpu_milli=2000), at=1)]],
         {"x": 1, "y": 0}, [QueueSpec("default", quota=((CPU, -1),))], [node("n0", 0, cpu_milli=4000)]),
    Case("surplus goes before whole jobs",
         [[job("x", max_tasks=3, elastic=True, queue="a"), job("y", queue="a", at=1)], [job("z", queue="b", tasks=2)]],
         {"x": 1, "y": 1, "z": 2}, HALVES),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_policy(case: Case) -> None:
    made = World(case.nodes, case.queues, case.policy, at=1_000)
    for wave in case.waves:
        made.now += 1_000
        made.submit(*wave)
        made.settle()
    assert {name: made.tasks(name) for name in case.tasks} == case.tasks


def test_a_cancelled_job_that_waits_leaves_at_once() -> None:
    made = World([], at=1)
    made.submit(job("x"))
    made.cancel("x")
    assert made.engine.reason("x") is None and made.engine.position("x") is None


def test_a_cancelled_job_that_runs_is_stopped_by_the_next_plan() -> None:
    made = World([node("n0")], at=1)
    made.submit(job("x"))
    made.settle()
    made.cancel("x")
    plan = made.decide()
    assert plan.decisions[0].reason.code is ReasonCode.CANCEL_REQUESTED


def test_a_lost_node_requeues_its_jobs_at_their_old_place() -> None:
    made = World([node("n0", 2)], at=1)
    made.submit(job("x", 2, at=1), job("y", 1, at=2))
    made.settle()
    made.apply(ev.NodeDown("n0"))
    plan = made.decide()
    assert [d.reason.code for d in plan.decisions] == [ReasonCode.NODE_LOST]
    made.answer_all()
    assert made.engine.position("x") == 1
    made.engine.decide(made.now)
    reason = made.engine.reason("x")
    assert reason is not None and reason.code is ReasonCode.NO_CAPACITY_YET


def test_a_draining_node_moves_its_work_away_and_takes_none() -> None:
    made = World([node("n0", 1), node("n1", 1)], at=1)
    made.submit(job("x"))
    made.settle()
    home = made.target["x"][0].node
    made.apply(ev.NodeCordoned(home, drain=True))
    made.settle()
    assert made.target["x"][0].node != home


def test_a_blocked_slot_is_not_used() -> None:
    made = World([node("n0", 2)], at=1)
    made.apply(ev.SlotBlocked("n0/0", "a stray process"))
    made.submit(job("x"), job("y", at=1))
    made.settle()
    assert made.target["x"] == (TaskPlace("n0", ("n0/1",)),) and not made.runs("y")
    made.apply(ev.SlotUnblocked("n0/0"))
    made.settle()
    assert made.runs("y")


def test_places_released_early_are_used_before_the_victim_is_gone() -> None:
    made = World([node("n0", 2)], at=1)
    made.submit(job("x", tasks=2))
    made.settle()
    made.submit(job("y", priority=150, at=2))
    made.decide()
    epoch, places = made.epoch("x"), tuple(made.held["x"])
    made.held["x"] = []
    made.apply(ev.PlacesReleased("x", epoch, places))
    made.decide()
    assert made.runs("y")


def test_a_lowered_maximum_shrinks_a_running_job() -> None:
    made = World([node("n0")], policy=CALM, at=1)
    spec = job("x", max_tasks=4, elastic=True)
    made.submit(spec)
    made.settle()
    made.specs["x"] = replace(spec, max_tasks=2)
    made.apply(ev.JobChanged(made.specs["x"]))
    made.settle()
    assert made.tasks("x") == 2


def test_the_epoch_rises_with_every_decision_and_the_attempt_with_every_start() -> None:
    made = World([node("n0", 1)], at=1)
    made.submit(job("x"))
    first = made.step().decisions[0]
    made.submit(job("y", priority=150, at=2))
    second = made.step().decisions[0]
    made.step()
    made.finish("y")
    third = made.step().decisions[0]
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]  # type: ignore[union-attr]
    assert third.attempt == 2  # type: ignore[union-attr]


def test_a_job_that_comes_back_continues_its_epochs() -> None:
    made = World([node("n0", 1)], at=1)
    made.apply(ev.JobSubmitted(job("x"), epoch=7, attempt=3))
    made.specs["x"] = job("x")
    start = made.decide().decisions[0]
    assert (start.epoch, start.attempt) == (8, 4)  # type: ignore[union-attr]


ILLEGAL: list[tuple[str, Callable[[World], ev.Event]]] = [
    ("a job twice", lambda w: ev.JobSubmitted(job("x"))),
    ("an unknown queue", lambda w: ev.JobSubmitted(job("z", queue="nowhere"))),
    ("a queue with children", lambda w: ev.JobSubmitted(job("z", queue="parent"))),
    ("one and a half devices", lambda w: ev.JobSubmitted(job("z", 1.5))),
    ("no tasks", lambda w: ev.JobSubmitted(job("z", tasks=0))),
    ("a stale epoch", lambda w: ev.JobFinished("x", 0, "succeeded")),
    ("an epoch to come", lambda w: ev.JobFinished("x", 9, "succeeded")),
    ("an unknown outcome", lambda w: ev.JobFinished("x", 1, "fine")),
    ("an unknown job", lambda w: ev.JobCancelled("ghost")),
    ("started twice", lambda w: ev.JobStarted("x", 1)),
    ("holding what runs", lambda w: ev.JobHeld("x")),
    ("releasing what is not held", lambda w: ev.JobReleased("x")),
    ("places it was not told to leave", lambda w: ev.PlacesReleased("x", 1, (TaskPlace("n0", ("n0/0",)),))),
    ("an unknown node", lambda w: ev.NodeDown("n9")),
    ("an unknown slot", lambda w: ev.SlotBlocked("n9/0", "?")),
    ("a slot of another node", lambda w: ev.NodeUp(replace(node("n1"), slots=w.nodes["n0"].slots))),
    ("dropping a queue with jobs", lambda w: ev.QueuesChanged((queue("other"),))),
    ("a circle of queues", lambda w: ev.QueuesChanged((queue("p", parent="q"), queue("q", parent="p")))),
]


@pytest.mark.parametrize("make", [row[1] for row in ILLEGAL], ids=[row[0] for row in ILLEGAL])
def test_an_illegal_event_changes_nothing(make: Callable[[World], ev.Event]) -> None:
    made = World([node("n0")], [queue("default", -1), queue("parent"), queue("child", parent="parent")], at=1)
    made.submit(job("x"))
    made.settle()
    before = made.engine.snapshot()
    with pytest.raises(IllegalEvent):
        made.apply(make(made))
    assert made.engine.snapshot() == before


def _story(names: list[str]) -> str:
    """A crowded cluster; the order in which equal things are named must not matter."""
    queues = tuple(queue(name, 2) for name in ("a", "b"))
    engine = Engine(Policy(), queues)
    for name in names[:3]:
        engine.apply(ev.NodeUp(node(f"n{name}", 3)), 0)
    plans = []
    for name in names:
        engine.apply(
            ev.JobSubmitted(job(f"j{name}", 1, "ab"[int(name) % 2], int(name) % 3 + 1, 0, max_tasks=4, elastic=True)), 1
        )
    for at in (1, 2, 3):
        plan = engine.decide(at)
        assert from_json(to_json(plan)) == plan
        plans.append(to_json(plan))
    return "\n".join([*plans, engine.snapshot().decode(), engine.digest()])


def test_the_order_of_arrival_of_equal_things_does_not_matter() -> None:
    names = [str(i) for i in range(9)]
    assert _story(names) == _story([*reversed(names[:3]), *reversed(names[3:])])


def test_the_hash_seed_does_not_matter() -> None:
    code = "from tests.scheduler.test_policy import _story; print(_story([str(i) for i in range(9)]))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".:scheduler"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "7")
    }
    assert len(said) == 1
