"""openb with our engine: one queue that owns the fleet, every pod a job of one task, placed by the engine's fragmentation measure.

The engine is told the demand mix (the benchmark's typical pods, which FGD is given too). A pod that fits nowhere is cancelled at
once, as the protocol drops it. Nothing ever ends here, so a shape that fits nowhere now never will, and neither will one that asks
for as much or more: such pods are dropped without asking again. Ties of the measure go to the node left with least CPU and GPU, then
to the smaller name; with random ties the nodes are renamed at random and the order among equals is the order of those names.
"""

from __future__ import annotations

import random

from heliostat_scheduler.core.decisions import Start
from heliostat_scheduler.core.events import DemandMix, JobCancelled, NodeUp
from heliostat_scheduler.core.model import DemandKind, JobSpec, NodeSpec, QueueSpec, SlotSpec, TaskPlace, TaskShape
from heliostat_scheduler.simulator.drive import Drive
from heliostat_scheduler.simulator.openb.data import GPU_MILLI, Node, Shape, Typical
from heliostat_scheduler.simulator.openb.fleet import Fleet

QUEUE = "default"
MIB = 1 << 20
NEVER_MOVED_MS = 10**12
"""The protocol moves no pod: a restart cost that no migration is worth."""


class EnginePlacer:
    """Places pods through the engine and mirrors them in the fleet that is measured."""

    def __init__(self, fleet: Fleet, nodes: list[Node], kinds: list[Typical], rng: random.Random | None) -> None:
        self._fleet = fleet
        order = list(range(len(nodes)))
        if rng is not None:
            rng.shuffle(order)
        names = [f"node-{place:05d}" for place in order]
        self._row = {name: row for row, name in enumerate(names)}
        quota: dict[str, int] = {}
        for node in nodes:
            quota[node.model] = quota.get(node.model, 0) + GPU_MILLI * node.gpus
        self.drive = Drive(self, (QueueSpec(QUEUE, quota=tuple(sorted(quota.items()))),))
        for name, node in sorted(zip(names, nodes, strict=True)):
            slots = tuple(SlotSpec(f"{name}/{i}", i) for i in range(node.gpus))
            spec = NodeSpec(name, node.model, slots, node.cpu_milli, node.memory_mib * MIB, 0)
            self.drive.apply(NodeUp(spec), 0)
        self.drive.apply(DemandMix(demand_mix(kinds)), 0)
        self._count = 0
        self._refused: list[Shape] = []

    def place(self, shape: Shape) -> bool:
        if any(shape.asks_at_least(refused) for refused in self._refused):
            return False
        self._count += 1
        job_id = f"pod-{self._count:06d}"
        task = TaskShape(shape.requested, shape.cpu_milli, shape.memory_mib * MIB)
        spec = JobSpec(job_id, QUEUE, self._count, task, flavors=shape.models, restart_cost_ms=NEVER_MOVED_MS)
        self.drive.submit(spec, self._count)
        for order in self.drive.settle(self._count):
            if isinstance(order, Start) and order.job_id == job_id:
                self._mirror(order.places[0], shape)
                return True
        self.drive.apply(JobCancelled(job_id), self._count)
        self._refused = [known for known in self._refused if not known.asks_at_least(shape)] + [shape]
        return False

    def _mirror(self, place: TaskPlace, shape: Shape) -> None:
        device = int(place.slots[0].rsplit("/", 1)[1]) if place.slots else 0
        self._fleet.place(self._row[place.node], shape, device)

    # -- executor

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        """Nothing to simulate: pods never end."""

    def stopped(self, job_id: str) -> None:
        raise AssertionError("a pod was stopped")

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a pod was resized")


def demand_mix(kinds: list[Typical]) -> tuple[DemandKind, ...]:
    """The typical pods with integer weights."""
    return tuple(
        DemandKind(kind.cpu_milli, kind.gpus * kind.milli, round(1_000_000 * kind.share), kind.models) for kind in kinds
    )
