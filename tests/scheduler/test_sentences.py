"""The sentence of every reason: grammatical for one and for many, amounts in GPUs, CPUs and GiB, never in thousandths or bytes."""

from __future__ import annotations

import re

import pytest
from heliostat_scheduler.core import Preempt, Reason, ReasonCode, Resize, Start, Stop
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.reasons import sentence

from tests.scheduler.waiting import APPLY, ME, WAIT, Build
from tests.scheduler.world import World, job, node

CODE = ReasonCode
GIB = 1024**3
Facts = dict[str, int | str]

GPUS: Facts = {"needs": 2000, "free": 500, "gap": 1500, "resource": "gpu", "tasks": 2, "queue": "default"}
ROWS: list[tuple[ReasonCode, Facts, str]] = [
    (CODE.NEVER_FITS, {"tasks": 9, "gpu_milli": 1000, "bound": "cluster", "largest_tasks": 4, "largest_task_milli": 4000},
     "needs 9 x 1 GPU, which can never fit: the empty cluster holds 4 such tasks (its largest node has 4 GPU)"),
    (CODE.NEVER_FITS, {"tasks": 2, "gpu_milli": 500, "cpu_milli": 4000, "bound": "limit", "queue": "a", "most": 500, "resource": "gpu",
                       "largest_tasks": 1},
     "needs 2 x 0.5 GPU with 4 CPU, which can never fit: the limit of queue a allows 0.5 GPU, that is 1 such task"),
    (CODE.NEVER_FITS, {"tasks": 1, "gpu_milli": 0, "cpu_milli": 16000, "memory_bytes": 64 * GIB, "bound": "cluster", "largest_tasks": 0,
                       "largest_cpu_milli": 8000, "largest_memory_bytes": 32 * GIB},
     "needs 1 x 16 CPU with 64 GiB, which can never fit: the empty cluster holds 0 such tasks (its largest node has 8 CPU and 32 GiB)"),
    (CODE.NEVER_FITS, {"tasks": 3, "gpu_milli": 1000, "bound": "user_limit", "queue": "a", "most": 2000, "resource": "h100",
                       "largest_tasks": 2},
     "needs 3 x 1 GPU, which can never fit: the user limit of queue a allows 2 GPU (h100), that is 2 such tasks"),
    (CODE.FLAVOR_MISMATCH, {"wanted": "h100", "available": "a10g, t4"}, "asks for h100, the cluster has a10g, t4"),
    (CODE.HELD, {}, "is held until somebody releases it"),
    (CODE.DEPENDENCY_WAIT, {"job": "first"}, "waits for first"),
    (CODE.DEPENDENCY_WAIT, {"job": "first", "outcome": "failed"}, "waits for first, which ended as failed"),
    (CODE.LIMIT_REACHED, {"queue": "a", "resource": "gpu", "limit": 4000, "used": 3000, "needs": 2000, "gap": 1000},
     "queue a is at its limit of 4 GPU: 3 GPU used, 2 GPU needed, 1 GPU too many"),
    (CODE.LIMIT_REACHED, {"queue": "a", "resource": "memory", "limit": 4 * GIB, "used": 3 * GIB, "needs": 2 * GIB, "gap": GIB},
     "queue a is at its limit of 4 GiB: 3 GiB used, 2 GiB needed, 1 GiB too many"),
    (CODE.QUOTA_EXHAUSTED, {"queue": "a", "resource": "gpu", "quota": 2000, "used": 2000, "needs": 1000, "gap": 1000},
     "may not borrow, and queue a guarantees 2 GPU: 2 GPU of it used, 1 GPU needed, 1 GPU too many"),
    (CODE.BORROW_BLOCKED, {"queue": "a", "lender": "b", "resource": "cpu", "gap": 1500}, "needs 1.5 CPU more than queue b lends to a"),
    (CODE.FAIR_SHARE_EXCEEDED, {**GPUS, "used": 3000, "entitled": 3000},
     "needs 2 GPU, 0.5 GPU free; queue default uses 3 GPU of its present share of 3 GPU"),
    (CODE.FAIR_SHARE_EXCEEDED, {"unstable": 1}, "would take GPUs whose holder could reclaim them at once"),
    (CODE.USER_LIMIT, {"user": "eva", "queue": "a", "resource": "gpu", "limit": 2000, "used": 2000, "needs": 500},
     "user eva may use 2 GPU in queue a: 2 GPU used, 0.5 GPU needed"),
    (CODE.BELOW_PRIORITY, GPUS, "needs 2 GPU, 0.5 GPU free, and work of a higher class waits before it in queue default"),
    (CODE.INSUFFICIENT_FREE, GPUS, "needs 2 GPU, 0.5 GPU free, 1.5 GPU short"),
    (CODE.INSUFFICIENT_FREE, {**GPUS, "resource": "a10g"}, "needs 2 GPU (a10g), 0.5 GPU (a10g) free, 1.5 GPU (a10g) short"),
    (CODE.FRAGMENTED, {**GPUS, "free": 3000, "best": 1}, "needs 2 GPU for 2 tasks; 3 GPU free but scattered: 1 task would fit"),
    (CODE.FRAGMENTED, {**GPUS, "tasks": 1, "free": 3000, "best": 0},
     "needs 2 GPU for 1 task; 3 GPU free but scattered: 0 tasks would fit"),
    (CODE.TOPOLOGY_UNSATISFIED, {**GPUS, "free": 3000, "best": 1, "spread": "one_node"},
     "needs 2 GPU in one node; 3 GPU free, room for at most 1 task in one"),
    (CODE.TOPOLOGY_UNSATISFIED, {**GPUS, "free": 9000, "best": 3, "spread": "rack"},
     "needs 2 GPU in one rack; 9 GPU free, room for at most 3 tasks in one"),
    (CODE.GANG_INCOMPLETE, {**GPUS, "ready": 1}, "1 of 2 tasks would fit: needs 2 GPU, 0.5 GPU free"),
    (CODE.GANG_INCOMPLETE, {"tasks": 1, "min_tasks": 2}, "holds 1 task and needs at least 2"),
    (CODE.NO_CAPACITY_YET, {"tasks": 6, "gpu_milli": 1000, "usable_tasks": 4},
     "waits for nodes: needs 6 x 1 GPU, which no usable nodes hold now"),
    (CODE.NODE_JOINING, {"flavor": "a10g", "nodes": 2, "tries": 1}, "waits for 2 nodes of flavor a10g, asked for and not there yet"),
    (CODE.NODE_JOINING, {"flavor": "a10g", "nodes": 1, "again": 2},
     "waits for 1 node of flavor a10g, which did not come (asked 2 times); asked for again in a while"),
    (CODE.GANG_INCOMPLETE, {"ready": 1, "tasks": 2, "needs": 2000, "free": 1000, "resource": "a10g", "max_nodes": 3},
     "1 of 2 tasks would fit: needs 2 GPU (a10g), 1 GPU (a10g) free; all 3 nodes that flavor a10g may have are there"),
    (CODE.NO_CAPACITY_YET, {"tasks": 1, "gpu_milli": 0, "cpu_milli": 2000}, "waits for nodes: needs 1 x 2 CPU, which no usable nodes hold now"),
    (CODE.RESERVED_FOR, {"job": "big"}, "the free capacity is reserved for big, which starts first"),
    (CODE.BACKFILL_TOO_LONG, {"job": "big"}, "would run longer than the gap before big starts"),
    (CODE.WAITING_FOR_VICTIMS, {"jobs": 0}, "starts when its places are free"),
    (CODE.WAITING_FOR_VICTIMS, {"jobs": 1}, "starts when 1 other job has released its places"),
    (CODE.WAITING_FOR_VICTIMS, {"jobs": 2}, "starts when 2 other jobs have released their places"),
    (CODE.PREEMPTION_DELAY, {"delay_ms": 1500}, "may displace others 1.5 s after its submission"),
    (CODE.COOLDOWN, {"min_runtime_ms": 1}, "the jobs it may displace are protected for a while longer"),
    (CODE.BACKOFF, {"error": "cpu_busy"}, "tries again after a failed start (cpu_busy)"),
    (CODE.STARTING, {}, "is starting"),
    (CODE.PENDING_EVALUATION, {"position": 3}, "has not been looked at yet (position 3)"),
    (CODE.PLACED, {"tasks": 1}, "1 task placed"),
    (CODE.PLACED, {"tasks": 2}, "2 tasks placed"),
    (CODE.GREW, {"tasks": 3, "from": 1}, "grew from 1 to 3 tasks on free capacity"),
    (CODE.GREW, {"tasks": 3}, "grew to 3 tasks on free capacity"),
    (CODE.SHRUNK_FOR, {"for": "b", "gpu_milli": 1000}, "gave up 1 GPU for b"),
    (CODE.SHRUNK_FOR, {"why": "max_tasks lowered", "max_tasks": 1}, "gave up what exceeds its new maximum of 1 task"),
    (CODE.SHRUNK_FOR, {"why": "goodput", "from": 4, "tasks": 2}, "shrank from 4 to 2 tasks: others make more of the GPUs"),
    (CODE.RECLAIMED_FOR, {"for": "b", "queue": "prod", "gpu_milli": 2000}, "queue prod reclaimed 2 GPU for b"),
    (CODE.RECLAIMED_FOR, {"for": "b", "queue": "prod", "gpu_milli": 0}, "queue prod reclaimed its places for b"),
    (CODE.PREEMPTED_FOR, {"for": "b", "priority": 150, "own_priority": 100}, "displaced by b of priority 150 (own priority 100)"),
    (CODE.ROTATED_FOR, {"for": "b"}, "takes turns with b"),
    (CODE.MIGRATED_FOR, {"for": "b"}, "moves to other places so that b fits"),
    (CODE.ASKED_BACK_FOR, {"for": "b"}, "gives back what it got ahead of b, as agreed when it started"),
    (CODE.STARVED_FOR, {"for": "b"}, "gives way to b, which has waited past its deadline"),
    (CODE.IDLE, {"idle_ms": 300_000}, "its GPUs have been idle for 300 s while others wait"),
    (CODE.CANCEL_REQUESTED, {}, "somebody asked to cancel it"),
    (CODE.TIME_LIMIT, {}, "reached its declared time limit"),
    (CODE.NODE_LOST, {"nodes": "n0"}, "lost its node (n0)"),
    (CODE.NODE_LOST, {"nodes": "n0, n1"}, "lost its nodes (n0, n1)"),
    (CODE.DRAINED, {"nodes": "n0"}, "leaves its node (n0): drained"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "facts", "said"), ROWS, ids=[f"{code}: {said}" for code, _, said in ROWS])
def test_the_sentence(code: ReasonCode, facts: Facts, said: str) -> None:
    assert sentence(Reason(code, tuple(facts.items()))) == said


def test_every_code_has_a_row() -> None:
    assert {code for code, _, _ in ROWS} == set(ReasonCode)


# -- the engine's own reasons and checks

WAITING = [pytest.param(build, id=f"{code}: {name}") for name, code, build in (*APPLY, *WAIT)]
AMOUNTS = {"needs", "free", "gap", "used", "limit", "quota", "entitled", "most"}


def assert_readable(text: str) -> None:
    assert not re.search(r"\{|\}|  |\b1 tasks\b|\b1 other jobs\b|\bqueue  |\(\)|\d{4,}", text), text
    assert not re.search(r"\b([2-9]|1\d|0) (such )?task\b", text), text
    assert not re.search(r"\bfor( \(|:|;|,|$)|\bof( \(|:|;|,|$)|\bto( \(|:|;|,|$)|\bqueue( \(|:|;|,|$)", text), text


@pytest.mark.parametrize("build", WAITING)
def test_what_the_engine_says_is_readable(build: Build) -> None:
    made = build()
    told = made.engine.explain(ME, made.now)
    assert_readable(sentence(told.reason))
    for remedy in told.remedies:
        assert_readable(remedy.text)


@pytest.mark.parametrize("build", WAITING)
def test_every_amount_names_its_resource(build: Build) -> None:
    made = build()
    told = made.engine.explain(ME, made.now)
    named = [(str(told.reason.code), told.reason.facts), *((check.name, check.facts) for check in told.checks)]
    for name, facts in named:
        if AMOUNTS & set(dict(facts)):
            assert dict(facts).get("resource"), f"{name}: {facts}"
        assert len(facts) == len(dict(facts)), f"{name} has a fact twice: {facts}"


def test_free_memory_is_compared_with_memory() -> None:
    made = next(build for name, _, build in APPLY if name.startswith("more memory"))()
    free = {
        dict(check.facts)["resource"]: dict(check.facts)["free"]
        for check in made.engine.explain(ME, made.now).checks
        if check.name == "free now"
    }
    assert free == {"cpu": 4000, "memory": 8 * GIB}


def decided(made: World) -> list[str]:
    kinds = (Start, Preempt, Resize, Stop)
    return [
        sentence(decision.reason) for plan in made.plans for decision in plan.decisions if isinstance(decision, kinds)
    ]


def test_decisions_about_jobs_that_hold_gpus_are_readable() -> None:
    made = World([node("n0", 4)], at=1_000)
    made.submit(job("a", tasks=1, max_tasks=4, elastic=True))
    made.settle()
    made.submit(job("b", tasks=2, priority=150))
    made.settle()
    made.apply(ev.JobCancelled("b"))
    made.settle()
    made.apply(ev.NodeCordoned("n0", drain=True))
    made.settle()
    said = decided(made)
    for text in said:
        assert_readable(text)
    assert "gave up 2 GPU for b" in said and "leaves its node (n0): drained" in said
