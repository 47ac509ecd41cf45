"""The plots of the stories: which part of the policy each of them is about."""

from __future__ import annotations

from dataclasses import replace

from heliostat_scheduler.core import CPU, JobSpec, NodeSpec, Policy, QueueSpec, SlotSpec
from heliostat_scheduler.core.model import MEMORY, DemandKind, TaskShape
from heliostat_scheduler.simulator.scenarios import PROFILES

from tests.scheduler.telling import Plot
from tests.scheduler.world import FIXED, SEMI, node, queue

QUICK = Policy(
    cooldown_ms=2_000, cooldown_max_ms=8_000, resize_interval_ms=1_000, stale_gang_ms=10_000, forget_down_ms=60_000
)
FREE = JobSpec("x", "a", 0).preemptibility
FOUR = tuple(node(f"n{i}") for i in range(4))
TREE = (
    queue("top", 16),
    queue("a", 6, parent="top", weight=2),
    queue("b", 4, parent="top", limit=8, priority=110),
    queue("c", 4, parent="top", lending_limit=2),
    queue("d", 2),
)
CPUS = TaskShape(0, 1_500, 2 << 30)
BIG = 1 << 30


def cpu_node(name: str, gpus: int, flavor: str = "gpu") -> NodeSpec:
    """CPU and memory are not divided among the slots."""
    slots = tuple(SlotSpec(f"{name}/{i}", i) for i in range(gpus))
    return NodeSpec(name, flavor, slots, 8_000, 32 * BIG, 0, gpu_memory_bytes=40 * BIG)


def racks() -> tuple[NodeSpec, ...]:
    labels = [(("rack", "r0"),), (("rack", "r0"),), (("rack", "r1"),), (("rack", "r1"),), ()]
    flavors = ("a", "a", "a", "b", "b")
    return tuple(replace(node(f"n{i}", 4, flavors[i]), labels=labels[i]) for i in range(5))


def flavored(name: str, a: int, b: int, **more: object) -> QueueSpec:
    return QueueSpec(name, quota=(("a", 1000 * a), ("b", 1000 * b)), **more)  # type: ignore[arg-type]


HARD = {"node": 3, "slot": 2, "crash": 4, "cancel": 3, "checkpoint": 3}
PLOTS = [
    Plot("borrowing", FOUR, TREE, QUICK, tasks=(1, 2, 3, 4), weights={"checkpoint": 4}),
    Plot("borrowing-classes", FOUR, TREE, QUICK, tasks=(1, 2, 4, 6), priorities=(50, 100, 100, 150), seed=2),
    Plot(
        "classes",
        FOUR[:2],
        (queue("q", 8),),
        QUICK,
        priorities=(50, 100, 150, 200),
        kinds=(FREE, FREE, SEMI, FIXED),
        more=(0, 2),
    ),
    Plot(
        "slow-to-preempt",
        FOUR[:2],
        (queue("a", 5), queue("b", 3)),
        replace(QUICK, min_runtime_ms=8_000, preemption_delay_ms=5_000),
        priorities=(50, 100, 150),
        weights={"rank": 4},
        flags=frozenset({"delay"}),
    ),
    Plot("elastic", FOUR, TREE, QUICK, tasks=(1, 2), more=(0, 2, 4), elastic=0.7, weights={"goodput": 10, "rank": 3}),
    Plot(
        "elastic-classes",
        FOUR,
        (queue("a", 8), queue("b", 8)),
        QUICK,
        tasks=(1, 2, 4),
        more=(1, 3),
        elastic=0.6,
        priorities=(50, 100, 150),
        kinds=(FREE, FREE, SEMI),
        weights={"goodput": 6, "change": 4},
    ),
    Plot(
        "goodput-alone",
        FOUR,
        (queue("q", 16),),
        QUICK,
        tasks=(1,),
        more=(3, 7),
        elastic=1.0,
        weights={"goodput": 16, "submit": 12},
        steps=90,
    ),
    Plot(
        "rotation",
        FOUR[:2],
        (queue("a", 6), queue("b", 2, rotate=False)),
        QUICK,
        tasks=(1, 2),
        weights={"rank": 16, "checkpoint": 3},
        steps=80,
    ),
    Plot(
        "fractions",
        (node("n0", 2), node("n1", 3), node("n2", 1)),
        (queue("a", 3), queue("b", 3)),
        QUICK,
        shapes=(TaskShape(250), TaskShape(500), TaskShape(700), TaskShape(1000)),
        tasks=(1, 1, 2),
    ),
    Plot(
        "fractions-mix",
        tuple(cpu_node(f"n{i}", 3) for i in range(3)),
        (
            QueueSpec("a", quota=(("gpu", 5000), (CPU, 12_000))),
            QueueSpec("b", quota=(("gpu", 4000), (CPU, 12_000), (MEMORY, 64 * BIG))),
        ),
        QUICK,
        shapes=(
            TaskShape(250, 500, BIG),
            TaskShape(500, 2000, 4 * BIG),
            TaskShape(1000, 1000, 0, 30 * BIG),
            TaskShape(2000, 4000),
            CPUS,
        ),
        mix=(
            DemandKind(500, 250, 400_000),
            DemandKind(2000, 500, 300_000),
            DemandKind(1000, 1000, 200_000),
            DemandKind(4000, 2000, 100_000),
        ),
    ),
    Plot(
        "cpu-only",
        (cpu_node("n0", 0), cpu_node("n1", 1)),
        (QueueSpec("a", quota=((CPU, 6_000),)), QueueSpec("b", quota=((CPU, -1), (MEMORY, -1)))),
        QUICK,
        shapes=(CPUS, TaskShape(0, 3000), TaskShape(0, 500, 8 * BIG)),
        tasks=(1, 2),
        more=(0, 1),
        elastic=0.4,
        priorities=(50, 100),
    ),
    Plot(
        "racks",
        racks(),
        (flavored("a", 6, 4), flavored("b", 6, 4, weight=3)),
        QUICK,
        tasks=(1, 2, 4, 6),
        spreads=("any", "any", "one_node", "rack"),
        flavors=((), ("a",), ("b", "a"), ("c",)),
        priorities=(100, 100, 150),
    ),
    Plot(
        "wide-tasks",
        tuple(node(f"n{i}", 8) for i in range(2)),
        (queue("a", 10), queue("b", 6)),
        QUICK,
        shapes=(TaskShape(2000), TaskShape(4000), TaskShape(1000), TaskShape(8000), TaskShape(1000)),
        tasks=(1, 1, 2),
        weights={"checkpoint": 6},
    ),
    Plot(
        "faults",
        FOUR,
        TREE,
        QUICK,
        tasks=(1, 2, 4),
        more=(0, 2),
        elastic=0.3,
        weights=HARD,
        flags=frozenset({"fail"}),
        steps=90,
    ),
    Plot(
        "faults-elastic",
        FOUR[:3],
        (queue("a", 6), queue("b", 6)),
        QUICK,
        tasks=(1, 2),
        more=(1, 3),
        elastic=1.0,
        weights=HARD | {"goodput": 4},
        flags=frozenset({"fail"}),
        steps=80,
    ),
    Plot(
        "orders-of-people",
        FOUR[:2],
        (queue("a", 4), queue("b", 4)),
        QUICK,
        tasks=(1, 2, 3),
        weights={"hold": 5, "cancel": 4, "change": 8},
        flags=frozenset({"hold", "depend"}),
        steps=80,
    ),
    Plot(
        "new-rules",
        FOUR,
        TREE,
        QUICK,
        tasks=(1, 2, 4),
        priorities=(50, 100),
        weights={"queues": 4, "policy": 4},
        other_queues=(*TREE[:2], queue("b", 0, parent="top", weight=5), queue("c", 8, parent="top"), queue("d", -1)),
        other_policy=replace(
            QUICK,
            name="other",
            reclaim=False,
            preempt=False,
            grow=False,
            backfill=False,
            rotate=False,
            consolidate=False,
        ),
    ),
    Plot(
        "users",
        FOUR[:2],
        (QueueSpec("q", quota=(("gpu", 8000),), user_limit=(("gpu", 3000),)), queue("r", 2)),
        replace(QUICK, usage_strength_milli=1000, usage_half_life_ms=60_000),
        users=("ann", "bob", "eve"),
        priorities=(100, 100, 150),
    ),
    Plot(
        "waiting-long",
        FOUR[:2],
        (queue("a", 5), queue("b", 3)),
        replace(QUICK, aging_step_ms=10_000, aging_step_priority=10, aging_max_priority=40, starvation_ms=60_000),
        tasks=(1, 2, 4, 8),
        priorities=(50, 100),
        hurry=(5_000, 20_000),
        weights={"finish": 8},
    ),
    Plot(
        "telemetry",
        FOUR[:2],
        (queue("a", 6), queue("b", 2)),
        QUICK,
        tasks=(1, 2),
        more=(0, 2),
        elastic=0.5,
        weights={"telemetry": 30, "checkpoint": 2},
        hurry=(20_000, 60_000, 300_000),
        steps=80,
    ),
    Plot(
        "scattered",
        tuple(node(f"n{i}", 3) for i in range(4)),
        (queue("q", 12),),
        QUICK,
        shapes=(TaskShape(1000), TaskShape(1000), TaskShape(3000)),
        tasks=(1, 1, 1, 2),
        weights={"finish": 20, "checkpoint": 8},
        steps=80,
    ),
    *(
        Plot(
            f"profile-{name}",
            FOUR,
            TREE,
            replace(policy, cooldown_ms=1000),
            tasks=(1, 2, 4),
            more=(0, 2),
            elastic=0.4,
            priorities=(50, 100, 150),
            kinds=(FREE, FREE, FIXED),
            seed=3,
        )
        for name, policy in sorted(PROFILES.items())
    ),
]
