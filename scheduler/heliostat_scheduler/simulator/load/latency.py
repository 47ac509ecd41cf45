"""How long one cycle takes on a large, busy cluster: apply + decide + log record, garbage collection on.

The cluster is 95 % allocated, half of the queues hold 1.5 x their quota and the others 0.4 x; the waiting jobs have more than 200
shapes and gangs of up to 64. Then 1,000 cycles: 45 % submit, 40 % finish, 5 % telemetry, 5 % priority or quota change, 5 % node
down or up. Under-quota queues submit more than others, so that many cycles have to reclaim.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.decisions import Plan, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import (
    Event,
    JobChanged,
    JobFinished,
    JobRequeued,
    JobResized,
    JobRestored,
    JobStarted,
    JobSubmitted,
    NodeDown,
    NodeUp,
    QueuesChanged,
    Utilized,
)
from heliostat_scheduler.core.model import JobSpec, Policy, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.simulator.drive import uniform_nodes
from heliostat_scheduler.simulator.progress import Progress

PER_NODE = 8
FULL_QUEUE, LEAN_QUEUE = 1.5, 0.4
CYCLE_MS = 1000
GANGS = (1, 1, 1, 1, 2, 2, 4, 4, 8, 16, 32, 64)


class LoadCluster:
    """The seeded cluster: builds the engine's first state, draws events, and answers plans."""

    def __init__(self, gpus: int, pending: int, queues: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.nodes = uniform_nodes(max(1, gpus // PER_NODE), PER_NODE)
        quota = len(self.nodes) * PER_NODE * 1000 // queues
        self.queues = [QueueSpec(f"q{i:03d}", quota=(("gpu", quota),)) for i in range(queues)]
        self.engine = Engine(Policy(), tuple(self.queues))
        self.now_ms = 0
        self.running: dict[str, int] = {}
        self.waiting: dict[str, JobSpec] = {}
        self.down: list[NodeUp] = []
        self._count = 0
        for event in self.nodes:
            self.engine.apply(event, 0)
        self._fill()
        for _ in range(pending):
            self.engine.apply(self.submission(), 0)
        for _ in range(50):
            answers = self.answer(self.engine.decide(self.now_ms))
            if not answers:
                break
            for answer in answers:
                self.engine.apply(answer, self.now_ms)

    def _fill(self) -> None:
        """Running jobs by queue, node by node."""
        slots = [(event.node.id, slot.id) for event in self.nodes for slot in event.node.slots]
        at = 0
        for index, queue in enumerate(self.queues):
            share = FULL_QUEUE if index % 2 == 0 else LEAN_QUEUE
            goal = int(share * dict(queue.quota)["gpu"] / 1000)
            while goal > 0:
                gang = min(goal, self.rng.choice(GANGS[:9]))
                spec = self._spec(queue.name, TaskShape(1000), gang, self.rng.choice((50, 100)))
                places = tuple(TaskPlace(node, (slot,)) for node, slot in slots[at : at + gang])
                self.engine.apply(JobRestored(spec, 1, 1, places, True, 0), 0)
                self.running[spec.id] = 1
                at, goal = at + gang, goal - gang

    def _spec(self, queue: str, shape: TaskShape, gang: int, priority: int) -> JobSpec:
        self._count += 1
        return JobSpec(f"job-{self._count:07d}", queue, self.now_ms, shape, gang, gang, priority=priority)

    def submission(self) -> JobSubmitted:
        """A job of one of more than 200 shapes; lean queues submit twice as often."""
        index = self.rng.randrange(len(self.queues))
        if index % 2 == 0 and self.rng.random() < 0.5:
            index = (index + 1) % len(self.queues)
        gpu = self.rng.choice((1000, 1000, 1000, 2000, 4000, 8000))
        gang = max(1, self.rng.choice(GANGS) * 1000 // gpu)
        shape = TaskShape(gpu, 1000 * self.rng.choice((1, 1, 2, 4)) * gpu // 4000)
        spec = self._spec(self.queues[index].name, shape, gang, self.rng.choice((50, 100, 100, 150)))
        self.waiting[spec.id] = spec
        return JobSubmitted(spec)

    def draw(self) -> Event:
        """The next event of the mix."""
        dice = self.rng.random()
        running = [job for job, epoch in self.running.items() if epoch]
        if dice < 0.45 or not running:
            return self.submission()
        if dice < 0.85:
            job = self.rng.choice(running)
            return JobFinished(job, self.running.pop(job), "succeeded")
        if dice < 0.90:
            return Utilized(self.rng.choice(running), 60_000, self.rng.randrange(1001), True)
        if dice < 0.95:
            return self._change()
        return self._node()

    def _change(self) -> Event:
        if self.waiting and self.rng.random() < 0.5:
            spec = self.waiting[self.rng.choice(list(self.waiting))]
            self.waiting[spec.id] = spec = replace(spec, priority=self.rng.choice((50, 100, 150, 200)))
            return JobChanged(spec)
        index = self.rng.randrange(len(self.queues))
        amount = dict(self.queues[index].quota)["gpu"]
        self.queues[index] = replace(self.queues[index], quota=(("gpu", amount * self.rng.choice((9, 10, 11)) // 10),))
        return QueuesChanged(tuple(self.queues))

    def _node(self) -> Event:
        if self.down:
            return self.down.pop()
        event = self.rng.choice(self.nodes)
        self.down.append(event)
        return NodeDown(event.node.id)

    def answer(self, plan: Plan) -> list[Event]:
        """What the executor reports about a plan."""
        answers: list[Event] = []
        for order in plan.decisions:
            match order:
                case Start():
                    self.running[order.job_id] = order.epoch
                    self.waiting.pop(order.job_id, None)
                    answers.append(JobStarted(order.job_id, order.epoch))
                case Resize():
                    self.running[order.job_id] = order.epoch
                    answers.append(JobResized(order.job_id, order.epoch, order.places))
                case Preempt():
                    self.running.pop(order.job_id, None)
                    answers.append(JobRequeued(order.job_id, order.epoch, "preempted"))
                case Stop():
                    self.running.pop(order.job_id, None)
                    answers.append(JobFinished(order.job_id, order.epoch, "cancelled"))
                case _:
                    pass
        return answers


def latency(gpus: int, pending: int, queues: int, cycles: int, seed: int) -> dict[str, object]:
    """The keys of `bench decide`."""
    cluster = LoadCluster(gpus, pending, queues, seed)
    engine = cluster.engine
    chain, logged, times, cpu, kinds, evicting = b"", 0, [], [], Counter[str](), 0
    answers: list[Event] = []
    with Progress("decide", cycles) as bar:
        for cycle in range(cycles):
            cluster.now_ms += CYCLE_MS
            events = [*answers, cluster.draw()]
            began, had = time.perf_counter(), time.thread_time()
            for event in events:
                engine.apply(event, cluster.now_ms)
            plan = engine.decide(cluster.now_ms)
            record = codec.to_json([cycle, events, engine.policy_digest(), plan, engine.digest()]).encode()
            chain = hashlib.sha256(chain + record).digest()
            times.append(time.perf_counter() - began)
            cpu.append(time.thread_time() - had)
            logged += len(record)
            kinds.update(type(order).__name__ for order in plan.decisions)
            evicting += any(isinstance(order, Preempt) for order in plan.decisions)
            answers = cluster.answer(plan)
            bar.at(cycle)
    ms = 1000 * np.array(times)
    return {
        "suite": "decide", "policy": "heliostat", "policy_digest": engine.policy_digest(), "trace": f"seed {seed}",
        "gpus": gpus, "pending": pending, "queues": queues, "cycles": cycles,
        "p50_ms": round(float(np.percentile(ms, 50)), 3), "p99_ms": round(float(np.percentile(ms, 99)), 3),
        "max_ms": round(float(ms.max()), 3), "cpu_p99_ms": round(1000 * float(np.percentile(cpu, 99)), 3), "plans": dict(sorted(kinds.items())),
        "evicting_share": round(evicting / cycles, 3), "bytes_logged": logged, "wall_s": round(float(ms.sum()) / 1000, 2),
    }  # fmt: skip
