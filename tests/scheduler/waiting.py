"""Worlds in which the job ME waits, one or more for each reason that a waiting job can have. Each row's name is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from heliostat_scheduler.core import JobSpec, NodeSpec, Policy, QueueSpec, ReasonCode, TaskShape
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import FIXED, GPU, SEMI, World, job, node, queue

CODE = ReasonCode
CALM = Policy(resize_interval_ms=1_000, aging_step_ms=0)
STILL = replace(CALM, consolidate=False)
ME = "me"
GIB = 1024**3


# -- building worlds in which the job ME waits


def world(*queues: QueueSpec, gpus: tuple[int, ...] = (4,), policy: Policy = CALM, nodes: list[NodeSpec] | None = None) -> World:  # fmt: skip
    made = [node(f"n{i}", count) for i, count in enumerate(gpus)] if nodes is None else nodes
    return World(made, list(queues) or None, policy, at=1_000)


def cpu_world(cpus: int, gib: int = 0, limit: int = -1) -> World:
    bound = () if limit < 0 else (("cpu", limit * 1000),)
    spec = QueueSpec("default", quota=(("cpu", -1), ("memory", -1)), limit=bound)
    return World([node("n0", 0, cpu_milli=cpus * 1000, memory_bytes=gib * GIB)], [spec], CALM, at=1_000)


def cpu_job(name: str, cpus: int, gib: int = 0, **more: object) -> JobSpec:
    return job(name, shape=TaskShape(cpu_milli=cpus * 1000, memory_bytes=gib * GIB), **more)  # type: ignore[arg-type]


def runs(made: World, *specs: JobSpec) -> World:
    for spec in specs:
        made.submit(spec)
        made.settle()
        assert made.runs(spec.id), made.engine.reason(spec.id)
    return made


def waits(made: World, *specs: JobSpec, held: bool = False) -> World:
    """These jobs wait, and nothing else is about to happen. The last one is ME."""
    made.now += 1
    for spec in specs:
        made.submit(spec, held=held)
    made.settle()
    assert not made.runs(ME)
    return made


def ends(made: World, *job_ids: str) -> World:
    for job_id in job_ids:
        made.finish(job_id)
    return made


def fixed(name: str, gpus: float = 1, **more: object) -> JobSpec:
    return job(name, gpus, preemptibility=FIXED, **more)  # type: ignore[arg-type]


def me(tasks: int = 1, gpus: float = 1, **more: object) -> JobSpec:
    more.setdefault("at", 5)
    return job(ME, gpus, tasks=tasks, **more)  # type: ignore[arg-type]


def pairs(*spread: str) -> World:
    """Two nodes of two GPUs, one GPU of each taken for good."""
    labels = [(("rack", "r0"),), (("rack", "r1"),)]
    made = world(nodes=[node(f"n{i}", 2, labels=labels[i]) for i in range(2)])
    runs(made, fixed("a", tasks=2, spread="one_node"), fixed("b", tasks=2, spread="one_node"))
    ends(made, "a", "b")
    runs(made, fixed("c", tasks=2, spread="one_node"), fixed("d"), fixed("e"))
    ends(made, "c")
    runs(made, fixed("f"))
    left = {place.node for name in ("d", "e", "f") for place in made.target[name]}
    assert left == {"n0", "n1"}
    return ends(made, "e")


def lending() -> World:
    return runs(world(queue("default", 2), queue("other", 2, lending_limit=1)), job("a", 2))


def limited(used: int, limit: int, *more: QueueSpec, holder: JobSpec | None = None) -> World:
    return runs(world(queue("default", 4, limit=limit), *more, gpus=(8,)), holder or fixed("a", used))


def two_users(limit: int = 2) -> World:
    spec = replace(queue("default", 4), user_limit=((GPU, limit * 1000),))
    return runs(world(spec), fixed("a", user="eva"), fixed("b", user="eva"), fixed("c", user="tom"))


def flavors(*more: JobSpec, free: bool = True) -> World:
    quota = QueueSpec("default", quota=(("a10g", -1), ("h100", -1)))
    made = World([node("n0", 2, "a10g"), node("n1", 2, "h100")], [quota], STILL, at=1_000)
    runs(made, *more)
    return made if free else runs(made, fixed("x", 2, flavors=("a10g",)), fixed("y", 2, flavors=("h100",)))


def cordoned() -> World:
    made = world(gpus=(4, 4))
    made.apply(ev.NodeCordoned("n1"))
    return made


def undivided() -> World:
    """GPU tasks draw their CPUs from the node."""
    return runs(
        world(nodes=[node("n0", 4, cpu_milli=8_000, slot_cpu_milli=0)]),
        job("a", shape=TaskShape(gpu_milli=1000, cpu_milli=6_000), preemptibility=FIXED),
    )


def thirds() -> World:
    """Two GPUs, each with 0.4 taken for good."""
    made = runs(world(gpus=(1, 1), policy=STILL), fixed("a", 0.8), fixed("b", 0.8))
    ends(made, "a")
    runs(made, fixed("c", 0.4))
    ends(made, "b")
    return runs(made, fixed("t", 0.7), fixed("d", 0.4)) if made.target["c"][0].node == "n1" else _other_third(made)


def _other_third(made: World) -> World:
    runs(made, fixed("t", 1), fixed("u", 0.6))
    ends(made, "t", "u")
    runs(made, fixed("t", 0.6))
    runs(made, fixed("d", 0.4))
    return ends(made, "t")


def before_me() -> World:
    """`first`, of a higher class, waits for the whole node; two GPUs are free."""
    made = runs(world(), fixed("a"), job("b", 1))
    made.submit(job("first", tasks=4, priority=150, at=4))
    return made


Build = Callable[[], World]
Row = tuple[str, ReasonCode, Build]


def orphan(made: World, tasks: int = 1) -> World:
    runs(made, job("a"))
    waits(made, me(tasks, dependencies=("a",)))
    made.finish("a", "failed")
    made.settle()
    return made


APPLY: list[Row] = [
    ("larger than the cluster: the largest gang that fits", CODE.NEVER_FITS, lambda: waits(world(), me(9))),
    ("larger than the queue's limit: the limit", CODE.NEVER_FITS, lambda: waits(world(queue("default", 4, limit=2)), me(3))),
    ("larger than the quota of fixed work: the quota", CODE.NEVER_FITS,
     lambda: waits(world(queue("default", 2), queue("other", 2)), me(3, preemptibility=FIXED))),
    ("larger than what one user may have: as much as he may", CODE.NEVER_FITS,
     lambda: waits(world(replace(queue("default", 4), user_limit=((GPU, 2000),))), me(3, user="eva"))),
    ("larger than any one node: as many as a node has", CODE.NEVER_FITS, lambda: waits(world(gpus=(2, 2)), me(3, spread="one_node"))),
    ("larger than the cluster and it is half full: what is free", CODE.NEVER_FITS, lambda: waits(runs(world(), fixed("a", 2)), me(9))),
    ("larger than the cluster and it is full of lower work: less, and a higher class", CODE.NEVER_FITS,
     lambda: waits(runs(world(), job("a", 4)), me(9))),
    ("larger than the cluster and it is full for good: less, and somebody's end", CODE.NEVER_FITS,
     lambda: waits(runs(world(), fixed("a", 2), fixed("b", 2)), me(9))),
    ("one GPU where the limit is none: another queue", CODE.NEVER_FITS,
     lambda: waits(world(queue("default", 0, limit=0), queue("other", 4)), me())),
    ("a range above the cluster", CODE.NEVER_FITS, lambda: waits(world(), me(5, max_tasks=8))),
    ("more CPUs than any node has: as many as the largest has", CODE.NEVER_FITS, lambda: waits(cpu_world(4), cpu_job(ME, 16))),
    ("more CPUs than the limit: the limit", CODE.NEVER_FITS, lambda: waits(cpu_world(8, limit=5), cpu_job(ME, 7))),
    ("more CPUs than any node has, and it is taken for good: fewer, and somebody's end", CODE.NEVER_FITS,
     lambda: waits(runs(cpu_world(4), cpu_job("a", 4, preemptibility=FIXED)), cpu_job(ME, 16))),
    ("fixed work where nothing is guaranteed: preemptible", CODE.NEVER_FITS,
     lambda: waits(world(queue("default", 0), queue("other", 2)), me(2, preemptibility=FIXED))),
    ("fixed work where nothing is guaranteed and all is taken: preemptible, and a higher class", CODE.NEVER_FITS,
     lambda: waits(runs(world(queue("default", 0), queue("other", 2)), job("a", 4)), me(2, preemptibility=FIXED))),
    ("more memory than any node has: as much as the largest has", CODE.NEVER_FITS,
     lambda: waits(cpu_world(4, 8), cpu_job(ME, 1, 16))),

    ("a flavor that does not exist: one that does", CODE.FLAVOR_MISMATCH, lambda: waits(world(), me(flavors=("h100",)))),
    ("a flavor that does not exist and the other is taken: that one, and less", CODE.FLAVOR_MISMATCH,
     lambda: waits(runs(world(), fixed("a", 3)), me(2, flavors=("h100",)))),
    ("a flavor that does not exist and everything is taken: another, and a higher class", CODE.FLAVOR_MISMATCH,
     lambda: waits(runs(world(), job("a", 4)), me(flavors=("h100",)))),
    ("a flavor that does not exist and everything is taken for good", CODE.FLAVOR_MISMATCH,
     lambda: waits(runs(world(), fixed("a", 2), fixed("b", 2)), me(flavors=("h100",)))),

    ("held: release it", CODE.HELD, lambda: waits(world(), me(), held=True)),
    ("held, and too large: release it and ask for less", CODE.HELD, lambda: waits(runs(world(), fixed("a", 2)), me(4), held=True)),
    ("held, and of a class that displaces: release it", CODE.HELD, lambda: waits(runs(world(), job("a", 4)), me(priority=150), held=True)),
    ("held, and never fits: release it and ask for less", CODE.HELD, lambda: waits(world(), me(9), held=True)),
    ("held, and everything is taken for good: release it and end somebody", CODE.HELD,
     lambda: waits(runs(world(), fixed("a", 4)), me(), held=True)),

    ("its predecessor failed: go on without it", CODE.DEPENDENCY_WAIT, lambda: orphan(world())),
    ("its predecessor failed, and too little is free: go on without it and ask for less", CODE.DEPENDENCY_WAIT,
     lambda: orphan(runs(world(), fixed("b", 2)), 4)),

    ("a gang above the rest of the limit: the rest", CODE.LIMIT_REACHED, lambda: waits(limited(2, 3), me(3))),
    ("a gang above the rest of a large limit: all of the rest", CODE.LIMIT_REACHED, lambda: waits(limited(2, 5), me(4))),
    ("the limit is used up: another queue", CODE.LIMIT_REACHED, lambda: waits(limited(2, 2, queue("other", 4)), me())),
    ("the limit is used up and the other queue's is smaller: less, and the other queue", CODE.LIMIT_REACHED,
     lambda: waits(limited(2, 2, queue("other", 4, limit=1)), me(2))),
    ("the limit is used up by lower work: a higher class", CODE.LIMIT_REACHED,
     lambda: waits(limited(2, 2, holder=job("a", 2)), me())),
    ("the limit is used up for good: the end of who holds it", CODE.LIMIT_REACHED, lambda: waits(limited(2, 2), me())),
    ("the limit of the queue above", CODE.LIMIT_REACHED,
     lambda: waits(runs(world(queue("top", 4, limit=3), queue("default", 0, parent="top"), queue("side", 0, parent="top")),
                        job("a", 2, queue="side", priority=200)), me(2))),

    ("fixed work beyond its quota: less", CODE.QUOTA_EXHAUSTED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), fixed("a")), me(2, preemptibility=FIXED))),
    ("the core of semi-preemptible work beyond the quota: less", CODE.QUOTA_EXHAUSTED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), job("a", preemptibility=SEMI)), me(2, preemptibility=SEMI))),
    ("the quota is used up: a queue with quota", CODE.QUOTA_EXHAUSTED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), fixed("a", 2)), me(preemptibility=FIXED))),
    ("the only quota is used up: preemptible, it may borrow", CODE.QUOTA_EXHAUSTED,
     lambda: waits(runs(world(queue("default", 2)), fixed("a"), fixed("b")), me(preemptibility=FIXED))),
    ("the only quota is used up and all else, too: the end of who holds it", CODE.QUOTA_EXHAUSTED,
     lambda: waits(runs(world(queue("default", 2), gpus=(2,)), fixed("a"), fixed("b")), me(preemptibility=FIXED))),

    ("a lender lends no more: less", CODE.BORROW_BLOCKED, lambda: waits(lending(), me(2))),
    ("a lender lends nothing: its own queue", CODE.BORROW_BLOCKED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2, lending_limit=0)), fixed("a", 2)), me())),

    ("one user's limit: less", CODE.USER_LIMIT, lambda: waits(two_users(3), me(2, user="eva"))),
    ("one user's limit is used up: the end of one of his own", CODE.USER_LIMIT, lambda: waits(two_users(), me(user="eva"))),

    ("above its share: less", CODE.FAIR_SHARE_EXCEEDED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), job("b", queue="other"), job("a", 2)), me(2))),
    ("its share is used up by lower work: a higher class", CODE.FAIR_SHARE_EXCEEDED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), job("b", 2, queue="other"), job("a", 2)), me())),
    ("its share is used up for good: the queue with share left", CODE.FAIR_SHARE_EXCEEDED,
     lambda: waits(runs(world(queue("default", 2), queue("other", 2)), fixed("b", queue="other"), fixed("a", 2),
                        job("c", queue="default", priority=200)), me())),

    ("higher work waits before it: less, beside it", CODE.BELOW_PRIORITY, lambda: waits(before_me(), me(3))),
    ("higher work waits before it and nothing is free: a higher class", CODE.BELOW_PRIORITY,
     lambda: waits(runs(world(), fixed("a", 3), job("b")), job("first", tasks=4, priority=150, at=4), me(priority=50))),

    ("nothing is free: a higher class displaces lower work", CODE.INSUFFICIENT_FREE,
     lambda: waits(runs(world(), job("a", 2), job("b", 2)), me())),
    ("nothing is free but high work: critical displaces it", CODE.INSUFFICIENT_FREE,
     lambda: waits(runs(world(), fixed("a", 3), job("b", priority=150)), me())),
    ("nothing is free of its flavor: the other one", CODE.INSUFFICIENT_FREE,
     lambda: waits(flavors(fixed("x", 2, flavors=("a10g",))), me(flavors=("a10g",)))),
    ("nothing is free and nobody may be displaced: somebody's end", CODE.INSUFFICIENT_FREE,
     lambda: waits(runs(world(), fixed("a", 3), fixed("b")), me())),
    ("nothing is free and two small jobs are in the way: both ends", CODE.INSUFFICIENT_FREE,
     lambda: waits(runs(world(gpus=(2,)), fixed("a"), fixed("b")), me(1, 2))),
    ("too little CPU is free: less", CODE.INSUFFICIENT_FREE, lambda: waits(runs(cpu_world(4), cpu_job("a", 3)), cpu_job(ME, 2, at=5))),

    ("half of the gang would fit: half of it", CODE.GANG_INCOMPLETE, lambda: waits(runs(world(), job("a", 2)), me(4))),
    ("part of a range would fit: a lower least size", CODE.GANG_INCOMPLETE,
     lambda: waits(runs(world(), fixed("a", 2)), me(3, max_tasks=4))),
    ("half GPUs: as many as would fit", CODE.GANG_INCOMPLETE, lambda: waits(runs(world(), fixed("a", 3)), me(3, 0.5))),

    ("enough is free, not in one piece: somebody's end", CODE.FRAGMENTED, lambda: waits(pairs(), me(1, 2))),
    ("enough is free, not in one piece: a higher class displaces lower work", CODE.FRAGMENTED,
     lambda: waits(runs(world(gpus=(1, 1), policy=STILL), job("a", 0.6), job("b", 0.6)), me(1, 0.7))),
    ("enough GPUs are free, too few CPUs beside them: fewer CPUs", CODE.FRAGMENTED,
     lambda: waits(undivided(), job(ME, at=5, shape=TaskShape(gpu_milli=1000, cpu_milli=4_000)))),
    ("enough GPUs are free, the CPUs suffice for part of the gang: fewer tasks", CODE.FRAGMENTED,
     lambda: waits(undivided(), job(ME, tasks=2, at=5, shape=TaskShape(gpu_milli=1000, cpu_milli=2_000)))),

    ("no node has room for all: as many as one has", CODE.TOPOLOGY_UNSATISFIED, lambda: waits(pairs(), me(2, spread="one_node"))),
    ("no rack has room for all: as many as one has", CODE.TOPOLOGY_UNSATISFIED, lambda: waits(pairs(), me(2, spread="rack"))),

    ("half of the nodes are closed: what the rest holds", CODE.NO_CAPACITY_YET, lambda: waits(cordoned(), me(6))),
]  # fmt: skip


def failed_start(made: World) -> World:
    made.submit(me())
    made.decide()
    made.gone(ME)
    made.apply(ev.JobStartFailed(ME, 1, "cpu_busy", made.now + 5_000))
    made.settle()
    return made


def victims_leave() -> World:
    made = runs(world(), job("a", 2), job("b", 2, grace_ms=90_000))
    made.submit(me(2, 2, priority=150))
    made.decide()
    return made


def cooling(**more: object) -> World:
    made = runs(world(policy=replace(CALM, min_runtime_ms=30_000)), job("a", 4))
    return waits(made, job(ME, priority=150, **{"at": 5, **more}))  # type: ignore[arg-type]


def moved_before() -> World:
    made = runs(world(policy=replace(CALM, cooldown_ms=20_000)), job("a", 4), job("b", at=3, priority=150))
    ends(made, "b")
    made.settle()
    assert made.runs("a")
    return waits(made, me(priority=150))


def submitted(made: World, spec: JobSpec) -> World:
    made.submit(spec)
    return made


def budget_spent() -> World:
    """The search for `first` uses up the cycle's work budget; ME's turn is the next cycle."""
    made = runs(
        world(queue("default", -1), gpus=(4, 4), policy=replace(STILL, work_budget=1)), job("a", 4), job("b", 4)
    )
    made.submit(job("first", tasks=2, priority=150, at=4), me(3, priority=150))
    return made


WAIT: list[Row] = [
    ("a failed start is tried again", CODE.BACKOFF, lambda: failed_start(world())),
    ("it may not displace anybody yet", CODE.PREEMPTION_DELAY,
     lambda: waits(runs(world(), job("a", 4)), me(at=1_000, priority=150, preemption_delay_ms=60_000))),
    ("its victim has not run long enough", CODE.COOLDOWN, cooling),
    ("its victim was displaced just before", CODE.COOLDOWN, moved_before),
    ("its victim has not run long enough, and then it may not displace it yet", CODE.COOLDOWN,
     lambda: cooling(at=1_000, preemption_delay_ms=60_000)),
    ("its victims are leaving", CODE.WAITING_FOR_VICTIMS, victims_leave),
    ("the next plan tells its victims to leave", CODE.WAITING_FOR_VICTIMS, lambda: submitted(runs(world(), job("a", 4)), me(priority=150))),
    ("what is free is kept for a larger job that is first", CODE.RESERVED_FOR,
     lambda: waits(runs(world(), fixed("a", 3, max_runtime_ms=60_000)), job("big", 4, at=2), me(preemptibility=FIXED))),
    ("it would run longer than the gap before the larger job", CODE.BACKFILL_TOO_LONG,
     lambda: waits(runs(world(), fixed("a", 3, max_runtime_ms=60_000)), job("big", 4, at=2), me(preemptibility=FIXED, max_runtime_ms=90_000))),
    ("the next plan starts it", CODE.STARTING, lambda: submitted(world(), me())),
    ("the cycle had no time left for it", CODE.PENDING_EVALUATION, budget_spent),
]  # fmt: skip
