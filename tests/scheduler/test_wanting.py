"""Why an elastic job does not grow, and that each remedy makes it grow."""

from __future__ import annotations

import shlex
from typing import Any

from heliostat_scheduler.core import PRIORITY_CLASSES, JobSpec, Policy, QueueSpec, ReasonCode, RemedyKind
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.reasons import sentence
from heliostat_scheduler.core.wanting import Wanting, wanting

from tests.scheduler.world import FIXED, World, node, queue
from tests.scheduler.world import job as spec_of

CALM = Policy(resize_interval_ms=1_000, aging_step_ms=0)


def job(name: str, **more: Any) -> JobSpec:  # Any: fields of JobSpec
    """Of one GPU at least, elastic."""
    return spec_of(name, **{"elastic": True, **more})


def world(*queues: QueueSpec, gpus: int = 4) -> World:
    return World([node("n0", gpus)], list(queues) or None, CALM, at=1_000)


def asked(made: World, job_id: str = "endpoint") -> Wanting:
    found = wanting(made.engine, job_id, made.now)
    assert found is not None
    return found


def test_a_job_that_has_what_it_asks_for_wants_nothing() -> None:
    made = world()
    made.submit(job("endpoint"), job("waits", tasks=9))
    made.settle()
    assert wanting(made.engine, "endpoint", made.now) is None
    assert wanting(made.engine, "waits", made.now) is None, "a job that waits has an explanation of its own"
    assert wanting(made.engine, "nobody", made.now) is None


def test_no_free_gpu_names_who_holds_them_and_its_end_helps() -> None:
    made = world(gpus=2)
    made.submit(job("batch", preemptibility=FIXED), job("endpoint", max_tasks=3))
    made.settle()
    before = made.engine.digest()
    found = asked(made)
    assert (found.tasks, found.wanted, found.reason.code) == (1, 3, ReasonCode.INSUFFICIENT_FREE)
    assert found.reason.blockers == ("batch",), "itself is no blocker"
    assert sentence(found.reason) == "needs 1 GPU, 0 GPU free, 1 GPU short"
    assert made.engine.digest() == before, "the engine that is asked stays as it is"
    (ends,) = [remedy for remedy in found.remedies if remedy.action == "cancel_other"]
    assert shlex.split(ends.command) == ["helio", "cancel", "batch"] and ends.evicts == ("batch",)
    assert any(remedy.action == "add_nodes" for remedy in found.remedies)
    assert found.remedies[-1].kind is RemedyKind.WAIT
    made.apply(ev.JobCancelled("batch"))
    made.settle()
    made.now += 1_000
    made.settle()
    assert len(made.held["endpoint"]) == 2, "the remedy did what it said"


def test_a_limit_is_named_and_no_remedy_is_made_up() -> None:
    made = world(queue("serving", 1, limit=1), queue("other", 1))
    made.submit(job("endpoint", queue="serving", max_tasks=2))
    made.settle()
    found = asked(made)
    assert found.reason.code is ReasonCode.LIMIT_REACHED and found.reason.fact("queue") == "serving"
    assert [remedy.kind for remedy in found.remedies] == [RemedyKind.WAIT]


def test_a_resize_a_moment_ago_is_a_matter_of_time() -> None:
    made = world(gpus=3)
    made.submit(job("endpoint", max_tasks=2))
    made.settle()
    made.now += 5_000
    made.apply(ev.JobChanged(job("endpoint", max_tasks=1)))
    made.settle()
    made.apply(ev.JobChanged(job("endpoint", max_tasks=3)))
    found = asked(made)
    assert found.reason.code is ReasonCode.PENDING_EVALUATION and found.reason.until_ms is not None
    assert "may grow again in" in sentence(found.reason)
    made.now = found.reason.until_ms
    made.settle()
    assert len(made.held["endpoint"]) > found.tasks, "at the time that was told it grows"


def test_what_restarts_nothing_grows_at_once_again() -> None:
    made = world(gpus=3)
    free = {"max_tasks": 3, "restart_cost_ms": 0}
    made.submit(job("endpoint", **free))
    made.settle()
    made.now += 5_000
    made.apply(ev.JobChanged(job("endpoint", **{**free, "max_tasks": 1})))
    made.settle()
    assert len(made.held["endpoint"]) == 1
    made.apply(ev.JobChanged(job("endpoint", **free)))
    made.settle()
    assert len(made.held["endpoint"]) == 3, "no interval between resizes"


def test_what_was_taken_for_it_is_on_its_way() -> None:
    made = world(queue("serving", 2), queue("research", 0), gpus=2)
    made.submit(job("training", queue="research", max_tasks=2))
    made.settle()
    made.submit(job("endpoint", queue="serving"))
    made.settle()
    made.now += 60_000
    made.apply(ev.JobChanged(job("endpoint", queue="serving", max_tasks=2)))
    made.decide()
    found = wanting(made.engine, "endpoint", made.now)
    if found is not None:  # training gives its last GPU up for it
        assert found.reason.code in (ReasonCode.WAITING_FOR_VICTIMS, ReasonCode.STARTING)
        assert [remedy.kind for remedy in found.remedies] == [RemedyKind.WAIT]
    made.settle()
    made.now += 60_000
    made.settle()
    assert len(made.held["endpoint"]) == 2


def test_every_remedy_makes_it_grow() -> None:
    """Random worlds: whatever is told, done on the world, leads to growth."""
    import random

    told = 0
    for seed in range(60):
        chance = random.Random(seed)
        made = world(queue("serving", chance.randint(0, 3)), queue("research", chance.randint(0, 2)), gpus=4)
        classes = list(PRIORITY_CLASSES.values())
        for index in range(chance.randint(1, 5)):
            spec = job(
                f"j{index}",
                queue=chance.choice(["serving", "research"]),
                max_tasks=chance.randint(1, 3),
                priority=chance.choice(classes),
            )
            made.submit(spec)
        made.submit(job("endpoint", queue="serving", max_tasks=4))
        made.settle()
        made.now += 30_000
        made.settle()
        found = wanting(made.engine, "endpoint", made.now)
        if found is None:
            continue
        for remedy in found.remedies:
            if remedy.action != "cancel_other":
                continue
            told += 1
            twin = made.engine.fork()
            twin.apply(ev.JobCancelled(remedy.command.split()[-1]), made.now)
            _until_grown(twin, found.tasks, made.now)
    assert told > 10


def _until_grown(twin: object, tasks: int, now_ms: int) -> None:
    from heliostat_scheduler.core import Engine
    from heliostat_scheduler.core.trial import leave_all

    assert isinstance(twin, Engine)
    for _ in range(3):
        now_ms += 1_000
        twin.decide(now_ms)
        leave_all(twin, now_ms)
    assert len(twin.state.book.jobs["endpoint"].places) > tasks
