"""The engine on virtual time: the same `Engine` that runs live, with an executor that carries out each order at once.

`settle` asks for decisions until there are none, answering every order with the events the live executor would send: Start with
JobStarted, Preempt with JobRequeued, Resize with JobResized, Stop with JobFinished. What an order costs (restart, lost progress)
is the business of the `Executor`, which is told first.
"""

from __future__ import annotations

import math
import time
from typing import Protocol, assert_never

from heliostat_scheduler.core.decisions import Decision, Discarded, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import (
    Event,
    JobFinished,
    JobRequeued,
    JobResized,
    JobStarted,
    JobSubmitted,
    NodeUp,
)
from heliostat_scheduler.core.model import JobSpec, NodeSpec, Policy, QueueSpec, SlotSpec, TaskPlace, TaskShape

ROUNDS_AT_ONCE = 100
"""Decide calls at one instant after which the plan is held to be unstable."""


class Unstable(RuntimeError):
    """The engine kept changing its mind at one instant."""


class Executor(Protocol):
    """What happens to jobs when orders are carried out."""

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None: ...

    def stopped(self, job_id: str) -> None: ...

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None: ...


class Drive:
    """One engine, one executor, one clock (milliseconds, given by the caller)."""

    def __init__(self, executor: Executor, queues: tuple[QueueSpec, ...], policy: Policy | None = None) -> None:
        self.engine = Engine(policy or Policy(), queues)
        self._executor = executor
        self._epochs: dict[str, int] = {}
        self.engine_s = 0.0
        self.cycles = 0

    @property
    def policy_digest(self) -> str:
        return self.engine.policy_digest()

    def apply(self, event: Event, now_ms: int) -> None:
        began = time.perf_counter()
        self.engine.apply(event, now_ms)
        self.engine_s += time.perf_counter() - began

    def submit(self, spec: JobSpec, now_ms: int) -> None:
        self.apply(JobSubmitted(spec), now_ms)

    def finish(self, job_id: str, now_ms: int) -> None:
        """The job completed by itself."""
        self.apply(JobFinished(job_id, self._epochs.pop(job_id), "succeeded"), now_ms)

    def settle(self, now_ms: int) -> list[Decision]:
        """Decide and carry out until nothing is left to do at this instant; returns every order."""
        orders: list[Decision] = []
        for _ in range(ROUNDS_AT_ONCE):
            began = time.perf_counter()
            plan = self.engine.decide(now_ms)
            self.engine_s += time.perf_counter() - began
            self.cycles += 1
            acted = [order for order in plan.decisions if not isinstance(order, Discarded)]
            if not acted:
                return orders
            for order in acted:
                self._carry_out(order, now_ms)
            orders += acted
        last = ", ".join(f"{type(order).__name__} {order.job_id}" for order in orders[-6:])
        raise Unstable(f"{ROUNDS_AT_ONCE} plans at {now_ms} ms and no end; the last orders: {last}")

    def _carry_out(self, order: Decision, now_ms: int) -> None:
        job_id = order.job_id
        match order:
            case Start():
                self._epochs[job_id] = order.epoch
                self._executor.started(job_id, order.places)
                self.apply(JobStarted(job_id, order.epoch), now_ms)
            case Resize():
                self._epochs[job_id] = order.epoch
                self._executor.resized(job_id, order.places)
                self.apply(JobResized(job_id, order.epoch, order.places), now_ms)
            case Preempt():
                self._epochs.pop(job_id, None)
                self._executor.stopped(job_id)
                self.apply(JobRequeued(job_id, order.epoch, "preempted"), now_ms)
            case Stop():
                self._epochs.pop(job_id, None)
                self._executor.stopped(job_id)
                self.apply(JobFinished(job_id, order.epoch, "cancelled"), now_ms)
            case Discarded():
                pass
            case _:
                assert_never(order)


def uniform_nodes(count: int, gpus: int, flavor: str = "gpu") -> list[NodeUp]:
    """`count` equal nodes; CPU comes with the slots."""
    return [
        NodeUp(NodeSpec(f"n{i:05d}", flavor, tuple(SlotSpec(f"n{i:05d}/{d}", d) for d in range(gpus))))
        for i in range(count)
    ]


def rigid_job(
    job_id: str, queue: str, submitted_at_ms: int, gpus: int, gpus_per_node: int, restart_cost_s: int
) -> JobSpec:
    """A gang that never changes its size: on one node if it fits there, else whole nodes where the count allows.

    The gang is cut into the largest equal tasks that a node holds, so that it occupies no more nodes than it must.
    """
    per_task = gpus if gpus <= gpus_per_node else math.gcd(gpus, gpus_per_node)
    tasks = gpus // per_task
    return JobSpec(
        job_id, queue, submitted_at_ms, TaskShape(1000 * per_task), tasks, tasks,
        restart_cost_ms=1000 * restart_cost_s, grace_ms=0, saves_on_order=True,
    )  # fmt: skip
