"""Every reason that the engine gives: its code, and that what it advises works.

For codes whose remedy somebody can apply, the first remedy is applied by the command it prints, and the job starts within one cycle
with nobody evicted who was not named. For codes that time resolves, the clock is set to the time that was told, and the job starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest
from heliostat_scheduler.core import (
    PRIORITY_CLASSES,
    Explanation,
    JobSpec,
    Policy,
    Preempt,
    QueueSpec,
    ReasonCode,
    RemedyKind,
    Resize,
    Stop,
    TaskPlace,
    TaskShape,
)
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.reasons import sentence

from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

CALM = Policy(resize_interval_ms=1_000, aging_step_ms=0)
ME = "me"


def world(*queues: QueueSpec, gpus: tuple[int, ...] = (4,), policy: Policy = CALM) -> World:
    return World([node(f"n{i}", count) for i, count in enumerate(gpus)], list(queues) or None, policy, at=1_000)


def running(made: World, *specs: JobSpec) -> World:
    """These jobs run."""
    made.submit(*specs)
    made.settle()
    for spec in specs:
        assert made.runs(spec.id)
    return made


def waiting(made: World, spec: JobSpec, held: bool = False) -> World:
    made.now += 1
    made.submit(spec, held=held)
    made.settle()
    assert not made.runs(spec.id)
    return made


# -- worlds in which the job ME waits


def limit_reached() -> World:
    return waiting(running(world(queue("default", 4, limit=2)), job("a", 2)), job(ME, 1, tasks=1, at=5))


def limit_for_a_gang() -> World:
    return waiting(running(world(queue("default", 4, limit=3)), job("a", 2)), job(ME, 1, tasks=3, at=5))


def quota_exhausted() -> World:
    made = world(queue("default", 2), queue("other", 2))
    return waiting(running(made, job("a", 1, preemptibility=FIXED)), job(ME, 1, tasks=2, at=5, preemptibility=FIXED))


def semi_core_exhausted() -> World:
    made = world(queue("default", 2), queue("other", 2))
    return waiting(running(made, job("a", 1, preemptibility=SEMI)), job(ME, 1, tasks=2, at=5, preemptibility=SEMI))


def borrow_blocked() -> World:
    made = world(queue("default", 2), queue("other", 2, lending_limit=1))
    return waiting(running(made, job("a", 2)), job(ME, 1, tasks=2, at=5))


def user_limit() -> World:
    spec = replace(queue("default", 4), user_limit=(("gpu", 2000),))
    return waiting(running(world(spec), job("a", 1, user="eva")), job(ME, 1, tasks=2, at=5, user="eva"))


def fair_share_exceeded() -> World:
    made = world(queue("default", 2), queue("other", 2))
    return waiting(running(made, job("b", 1, queue="other"), job("a", 2)), job(ME, 1, tasks=2, at=5))


def insufficient_free() -> World:
    return waiting(running(world(), job("a", 2), job("b", 2)), job(ME, 1, at=5))


def insufficient_free_above_lower_class() -> World:
    made = running(world(), job("a", 3, preemptibility=FIXED), job("b", 1, priority=150))
    return waiting(made, job(ME, 1, at=5))


def below_priority() -> World:
    made = running(world(), job("a", 4, priority=120))
    made.now += 1
    made.submit(job("first", 4, priority=120, at=4))
    return waiting(made, job(ME, 1, at=5))


def on(made: World, name: str, where: str) -> None:
    """A non-preemptible one-GPU job runs in this slot."""
    spec = job(name, 1, preemptibility=FIXED)
    made.specs[name] = spec
    place = TaskPlace(where.split("/")[0], (where,))
    made.held[name], made.target[name] = [place], (place,)
    made.apply(ev.JobRestored(spec, 1, 1, (place,), True, made.now))


def fragmented() -> World:
    made = world(gpus=(2, 2))
    on(made, "a", "n0/0")
    on(made, "b", "n1/0")
    return waiting(made, job(ME, 2, at=5))


def topology_unsatisfied() -> World:
    racks = [node(f"n{i}", 2, labels=(("rack", f"r{i}"),)) for i in range(2)]
    made = World(racks, None, CALM, at=1_000)
    on(made, "a", "n0/0")
    on(made, "b", "n1/0")
    return waiting(made, job(ME, 1, tasks=2, at=5, spread="rack"))


def gang_incomplete() -> World:
    return waiting(running(world(), job("a", 2)), job(ME, 1, tasks=4, at=5))


def never_fits_the_cluster() -> World:
    return waiting(world(), job(ME, 1, tasks=9, at=5))


def never_fits_the_limit() -> World:
    return waiting(world(queue("default", 4, limit=2)), job(ME, 1, tasks=3, at=5))


def never_fits_the_quota() -> World:
    return waiting(world(queue("default", 2), queue("other", 2)), job(ME, 1, tasks=3, at=5, preemptibility=FIXED))


def never_fits_one_node() -> World:
    return waiting(world(gpus=(2, 2)), job(ME, 1, tasks=3, at=5, spread="one_node"))


def flavor_mismatch() -> World:
    return waiting(world(), job(ME, 1, at=5, flavors=("h100",)))


def held() -> World:
    return waiting(world(), job(ME, 1, at=5), held=True)


def held_and_too_large() -> World:
    return waiting(running(world(), job("a", 2)), job(ME, 1, tasks=4, at=5), held=True)


def no_cpu_left() -> World:
    made = World([node("n0", 0, cpu_milli=4_000)], [QueueSpec("default", quota=(("cpu", -1),))], CALM, at=1_000)
    running(made, job("a", shape=TaskShape(cpu_milli=3_000)))
    return waiting(made, job(ME, at=5, shape=TaskShape(cpu_milli=2_000)))


APPLY: list[tuple[str, Callable[[], World], ReasonCode]] = [
    ("the queue is at its limit: somebody's end, as one task cannot shrink", limit_reached, ReasonCode.LIMIT_REACHED),
    ("a gang above the limit's rest asks for less", limit_for_a_gang, ReasonCode.LIMIT_REACHED),
    ("non-preemptible work beyond quota asks for less", quota_exhausted, ReasonCode.QUOTA_EXHAUSTED),
    ("a semi-preemptible core beyond quota asks for less", semi_core_exhausted, ReasonCode.QUOTA_EXHAUSTED),
    ("a lender lends no more: ask for less", borrow_blocked, ReasonCode.BORROW_BLOCKED),
    ("one user's limit: ask for less", user_limit, ReasonCode.USER_LIMIT),
    ("above the fair share: ask for less", fair_share_exceeded, ReasonCode.FAIR_SHARE_EXCEEDED),
    ("nothing is free: a higher class displaces somebody", insufficient_free, ReasonCode.INSUFFICIENT_FREE),
    ("high work runs: critical displaces it", insufficient_free_above_lower_class, ReasonCode.INSUFFICIENT_FREE),
    ("higher work waits before it: a higher class", below_priority, ReasonCode.BELOW_PRIORITY),
    ("free GPUs lie scattered", fragmented, ReasonCode.FRAGMENTED),
    ("no rack has room for all", topology_unsatisfied, ReasonCode.TOPOLOGY_UNSATISFIED),
    ("half of the gang would fit", gang_incomplete, ReasonCode.GANG_INCOMPLETE),
    ("larger than the cluster", never_fits_the_cluster, ReasonCode.NEVER_FITS),
    ("larger than the queue's limit", never_fits_the_limit, ReasonCode.NEVER_FITS),
    ("larger than the quota of work that may not borrow", never_fits_the_quota, ReasonCode.NEVER_FITS),
    ("larger than any one node", never_fits_one_node, ReasonCode.NEVER_FITS),
    ("a flavor that does not exist", flavor_mismatch, ReasonCode.FLAVOR_MISMATCH),
    ("held", held, ReasonCode.HELD),
    ("held, and too large as well", held_and_too_large, ReasonCode.HELD),
    ("no CPU is left: ask for less", no_cpu_left, ReasonCode.INSUFFICIENT_FREE),
]


def carry_out(made: World, command: str) -> None:
    """Do what the printed command does."""
    for part in command.split(" && "):
        _, verb, *words = shlex.split(part)
        match verb:
            case "release":
                made.apply(ev.JobReleased(words[0]))
            case "cancel":
                for job_id in words:
                    made.cancel(job_id)
            case "priority":
                _change(made, words[0], priority=PRIORITY_CLASSES[words[1]])
            case "edit":
                _edit(made, words[0], words[1], words[2])
            case _:
                raise AssertionError(f"unknown command {part!r}")


def _change(made: World, job_id: str, **fields: object) -> None:
    made.specs[job_id] = replace(made.specs[job_id], **fields)  # type: ignore[arg-type]
    made.apply(ev.JobChanged(made.specs[job_id]))


def _edit(made: World, job_id: str, option: str, value: str) -> None:
    spec = made.specs[job_id]
    if option == "--queue":
        _change(made, job_id, queue=value)
    elif option == "--flavor":
        _change(made, job_id, flavors=(value,))
    elif option == "--cpus":
        _change(made, job_id, shape=replace(spec.shape, cpu_milli=round(float(value) * 1000)))
    else:
        assert option == "--gpus"
        low, _, high = value.partition("..")
        per_task = max(1, spec.shape.gpu_milli // 1000)
        _change(made, job_id, min_tasks=int(low) // per_task, max_tasks=int(high or low) // per_task)


def starts_within_one_cycle(made: World) -> set[str]:
    """Decide; those told to leave leave; decide. Who lost GPUs."""
    losers: set[str] = set()
    for _ in range(2):
        plan = made.decide()
        for decision in plan.decisions:
            shrunk = isinstance(decision, Resize) and len(decision.places) < len(made.held[decision.job_id])
            if isinstance(decision, (Preempt, Stop)) or shrunk:
                losers.add(decision.job_id)
        made.answer_all()
        if made.runs(ME):
            return losers
    raise AssertionError(f"it does not start: {made.engine.reason(ME)}")


def explained(made: World) -> Explanation:
    before = made.engine.snapshot()
    told = made.engine.explain(ME, made.now)
    assert made.engine.snapshot() == before, "an explanation changes nothing"
    return told


@pytest.mark.parametrize(("build", "code"), [row[1:] for row in APPLY], ids=[row[0] for row in APPLY])
def test_the_first_remedy_starts_the_job(build: Callable[[], World], code: ReasonCode) -> None:
    made = build()
    told = explained(made)
    assert told.reason.code is code, told.reason
    seen = made.engine.reason(ME)
    assert seen is not None and (seen.code, seen.facts) == (told.reason.code, told.reason.facts)
    assert sentence(told.reason)
    first = told.remedies[0]
    assert first.kind is RemedyKind.APPLY, told.remedies
    carry_out(made, first.command)
    assert starts_within_one_cycle(made) <= set(first.evicts)


# -- codes that time resolves


def backoff() -> World:
    made = world()
    made.submit(job(ME, 1, at=5))
    made.decide()
    made.gone(ME)
    made.apply(ev.JobStartFailed(ME, 1, "cpu_busy", made.now + 5_000))
    made.settle()
    return made


def preemption_delay() -> World:
    made = running(world(), job("a", 4))
    return waiting(made, job(ME, 1, at=1_000, priority=150, preemption_delay_ms=60_000))


def minimum_runtime() -> World:
    made = running(world(policy=replace(CALM, min_runtime_ms=30_000)), job("a", 4))
    return waiting(made, job(ME, 1, at=5, priority=150))


def cooldown_after_an_eviction() -> World:
    made = running(world(policy=replace(CALM, cooldown_ms=20_000)), job("a", 4))
    running(made, job("b", 1, at=3, priority=150))
    made.finish("b")
    made.settle()
    assert made.runs("a")
    return waiting(made, job(ME, 1, at=5, priority=150))


def victims_leave() -> World:
    made = running(world(), job("a", 4))
    made.submit(job(ME, 1, at=5, priority=150))
    made.decide()
    return made


WAIT: list[tuple[str, Callable[[], World], ReasonCode]] = [
    ("a failed start is tried again", backoff, ReasonCode.BACKOFF),
    ("it may not displace anybody yet", preemption_delay, ReasonCode.PREEMPTION_DELAY),
    ("its victim has not run long enough", minimum_runtime, ReasonCode.COOLDOWN),
    ("its victim was displaced just before", cooldown_after_an_eviction, ReasonCode.COOLDOWN),
    ("its victims are leaving", victims_leave, ReasonCode.WAITING_FOR_VICTIMS),
]


@pytest.mark.parametrize(("build", "code"), [row[1:] for row in WAIT], ids=[row[0] for row in WAIT])
def test_it_starts_at_the_time_told_and_not_before(build: Callable[[], World], code: ReasonCode) -> None:
    made = build()
    told = explained(made)
    assert told.reason.code is code, told.reason
    first = told.remedies[0]
    assert first.kind is RemedyKind.WAIT and first.at_ms is not None and first.at_ms > made.now
    assert told.estimated_start_ms == first.at_ms
    if code is not ReasonCode.WAITING_FOR_VICTIMS:
        made.now = first.at_ms - 1
        made.settle()
        assert not made.runs(ME)
        wakeup = made.engine.next_wakeup_ms()
        assert wakeup is not None and wakeup <= first.at_ms
    made.now = first.at_ms
    made.answer_all()
    starts_within_one_cycle(made)


def test_a_dependency_waits_for_the_other_job() -> None:
    made = running(world(), job("a", 1))
    waiting(made, job(ME, 1, at=5, dependencies=("a",)))
    told = explained(made)
    assert told.reason.code is ReasonCode.DEPENDENCY_WAIT and told.reason.blockers == ("a",)
    made.finish("a")
    made.step()
    assert made.runs(ME)


def test_a_failed_dependency_says_so_and_never_starts() -> None:
    made = running(world(), job("a", 1))
    waiting(made, job(ME, 1, at=5, dependencies=("a",)))
    made.finish("a", "failed")
    made.settle()
    told = explained(made)
    assert told.reason.fact("outcome") == "failed"
    assert told.remedies[0].action == "resubmit"


def test_without_nodes_it_waits_for_nodes() -> None:
    made = World([], None, CALM, at=1_000)
    waiting(made, job(ME, 1, at=5))
    assert explained(made).reason.code is ReasonCode.NO_CAPACITY_YET
    made.node_up(node("n0"))
    made.step()
    assert made.runs(ME)


def test_a_cancellation_of_others_is_the_last_resort() -> None:
    made = insufficient_free()
    assert all(remedy.action != "cancel_other" for remedy in explained(made).remedies)


def test_fewer_gpus_come_before_displacing_somebody() -> None:
    made = gang_incomplete()
    first = explained(made).remedies[0]
    assert first.command == f"helio edit {ME} --gpus 2" and first.evicts == ()
