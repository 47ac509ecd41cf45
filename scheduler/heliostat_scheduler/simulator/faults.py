"""Seeded fault simulation: the engine with an executor that is slow, loses messages, and a cluster that breaks.

Phase one (safety): jobs of many kinds arrive, nodes die and return, starts fail, answers are late or come twice; after every event
the invariants of `check` must hold on what the executor *believes to be occupied*, not on the engine's own books. Phase two
(liveness): the faults stop, every node comes back, and all jobs must finish. One `random.Random(seed)`; a failure names its seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from heliostat_scheduler.core.decisions import Decision, Discarded, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import (
    Event,
    IllegalEvent,
    JobCancelled,
    JobFinished,
    JobRequeued,
    JobResized,
    JobStarted,
    JobStartFailed,
    JobSubmitted,
    NodeDown,
    NodeUp,
)
from heliostat_scheduler.core.model import JobSpec, Policy, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.simulator.drive import uniform_nodes

NODES, DEVICES, JOBS = 4, 4, 40
QUEUES = (
    QueueSpec("top", quota=(("gpu", 16_000),)),
    QueueSpec("a", "top", (("gpu", 8_000),)),
    QueueSpec("b", "top", (("gpu", 4_000),), (("gpu", 12_000),)),
    QueueSpec("c", "top", (("gpu", 4_000),), weight=2),
)


class Violation(AssertionError):
    """An invariant does not hold; the message begins with the seed."""


@dataclass(slots=True)
class Held:
    """What the executor believes: the places a job occupies, under which epoch, and until when it would run."""

    places: tuple[TaskPlace, ...]
    epoch: int
    left_ms: int


@dataclass(slots=True)
class FaultRun:
    """One seeded run."""

    seed: int
    rng: random.Random = field(init=False)
    engine: Engine = field(init=False)
    now_ms: int = 0
    faults: bool = True
    held: dict[str, Held] = field(default_factory=dict)
    specs: dict[str, JobSpec] = field(default_factory=dict)
    left_ms: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    down: dict[str, NodeUp] = field(default_factory=dict)
    mail: list[tuple[int, int, Event]] = field(default_factory=list)
    posted: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.engine = Engine(Policy(cooldown_ms=1000, cooldown_max_ms=8000, resize_interval_ms=1000), QUEUES)
        for event in uniform_nodes(NODES, DEVICES):
            self.apply(event)

    # -- the run

    def run(self) -> None:
        for _ in range(300):
            self.step()
        self.faults = False
        for event in list(self.down.values()):
            self.apply(event)
        self.down.clear()
        for _ in range(3000):
            if len(self.done) == len(self.specs) and not self.mail:
                return
            self.step()
        waiting = sorted(self.specs.keys() - self.done)
        raise Violation(f"seed {self.seed}: without faults these never finished: {waiting}")

    def step(self) -> None:
        self.now_ms += self.rng.choice((50, 500, 1000, 4000))
        while self.mail and self.mail[0][0] <= self.now_ms:
            self.deliver(heapq.heappop(self.mail)[2])
        self.progress()
        if self.faults:
            self.disturb()
        self.carry_out(self.engine.decide(self.now_ms).decisions)
        self.check()

    def carry_out(self, orders: Sequence[Decision]) -> None:
        """Every job gets at most one order per plan: two would contradict each other."""
        told: set[str] = set()
        for order in orders:
            if not isinstance(order, Discarded):
                if order.job_id in told:
                    raise Violation(f"seed {self.seed}: two orders for {order.job_id} in one plan at {self.now_ms} ms")
                told.add(order.job_id)
            self.obey(order)

    def progress(self) -> None:
        """Running jobs that are through report it."""
        for job_id in sorted(self.held):
            held = self.held[job_id]
            if held.left_ms <= self.now_ms and self.phase(job_id) == "running":
                self.post(0, JobFinished(job_id, held.epoch, "succeeded"))
                held.left_ms = self.now_ms + 10**9

    def disturb(self) -> None:
        dice = self.rng.random()
        if dice < 0.25 and len(self.specs) < JOBS:
            self.submit()
        elif dice < 0.30 and len(self.down) < NODES - 1:
            node = self.rng.choice([n for n in self.engine.state.book.nodes.values() if n.spec.id not in self.down])
            self.down[node.spec.id] = NodeUp(node.spec)
            self.apply(NodeDown(node.spec.id))
            for held in self.held.values():
                held.places = tuple(place for place in held.places if place.node != node.spec.id)
        elif dice < 0.37 and self.down:
            self.apply(self.down.pop(self.rng.choice(sorted(self.down))))
        elif dice < 0.40 and self.specs.keys() - self.done:
            job_id = self.rng.choice(sorted(self.specs.keys() - self.done))
            if self.phase(job_id) in ("waiting", "held"):
                self.done.add(job_id)
            if self.phase(job_id):
                self.apply(JobCancelled(job_id))

    def submit(self) -> None:
        name = f"job-{len(self.specs):03d}"
        low = self.rng.choice((1, 1, 2, 4))
        high = low * self.rng.choice((1, 1, 2))
        gpu = self.rng.choice((500, 1000, 1000, 2000))
        spec = JobSpec(
            name, self.rng.choice("abc"), self.now_ms, TaskShape(gpu), low, high,
            priority=self.rng.choice((50, 100, 150)), elastic=high > low and gpu >= 1000, grace_ms=2000,
        )  # fmt: skip
        self.specs[name] = spec
        self.left_ms[name] = self.rng.choice((2_000, 10_000, 60_000))
        self.apply(JobSubmitted(spec))

    # -- the executor

    def obey(self, order: Decision) -> None:
        job_id = order.job_id
        match order:
            case Start():
                if self.faults and self.rng.random() < 0.15:
                    retry = self.now_ms + 1000
                    self.held[job_id] = Held(order.places, order.epoch, 10**12)
                    self.post(1500, JobStartFailed(job_id, order.epoch, "node_gone", retry))
                else:
                    self.held[job_id] = Held(order.places, order.epoch, self.now_ms + self.left_ms[job_id])
                    self.post(800, JobStarted(job_id, order.epoch))
            case Resize():
                held = self.held[job_id]
                held.epoch = order.epoch
                held.places = tuple(dict.fromkeys((*held.places, *order.places)))
                self.post(1500, JobResized(job_id, order.epoch, order.places))
            case Preempt():
                self.held[job_id].epoch = order.epoch
                self.post(order.grace_ms, JobRequeued(job_id, order.epoch, "preempted"))
            case Stop():
                self.held[job_id].epoch = order.epoch
                self.post(order.grace_ms, JobFinished(job_id, order.epoch, "cancelled"))
            case Discarded():
                pass

    def post(self, slowest_ms: int, event: Event) -> None:
        """The answer arrives late; under faults sometimes very late, and sometimes twice."""
        late = self.rng.randrange(slowest_ms + 1)
        copies = 1
        if self.faults and self.rng.random() < 0.1:
            late += 5000
        if self.faults and self.rng.random() < 0.1:
            copies = 2
        for _ in range(copies):
            self.posted += 1
            heapq.heappush(self.mail, (self.now_ms + late, self.posted, event))

    def deliver(self, event: Event) -> None:
        """Stale and repeated messages are refused by the engine and change nothing."""
        before = self.engine.digest()
        try:
            self.engine.apply(event, self.now_ms)
        except IllegalEvent:
            if self.engine.digest() != before:
                raise Violation(f"seed {self.seed}: a refused event changed the state: {event}") from None
            if isinstance(event, JobFinished) and event.job_id in self.held:
                self.held[event.job_id].left_ms = self.now_ms
            return
        match event:
            case JobFinished():
                self.done.add(event.job_id)
                self.held.pop(event.job_id, None)
            case JobRequeued() | JobStartFailed():
                self.held.pop(event.job_id, None)
            case JobResized():
                self.held[event.job_id].places = event.places
            case _:
                pass

    def apply(self, event: Event) -> None:
        self.engine.apply(event, self.now_ms)

    def phase(self, job_id: str) -> str:
        found = self.engine.phase(job_id)
        return "" if found is None else str(found)

    # -- invariants

    def check(self) -> None:
        """No device is promised twice (S1), no limit is broken (S3), gangs are whole or absent (S2)."""
        used: dict[str, int] = {}
        by_queue: dict[str, int] = {}
        for job_id, held in self.held.items():
            spec = self.specs[job_id]
            for place in held.places:
                for slot in place.slots:
                    used[slot] = used.get(slot, 0) + min(1000, spec.shape.gpu_milli)
            by_queue[spec.queue] = by_queue.get(spec.queue, 0) + len(held.places) * spec.shape.gpu_milli
            lost = self.phase(job_id) in ("preempting", "stopping") or len(held.places) == 0
            whole = len(held.places) >= spec.min_tasks
            if not whole and not lost and not self.faults and not self.mail:
                raise Violation(f"seed {self.seed}: {job_id} runs with {len(held.places)} of {spec.min_tasks} tasks")
        for slot, milli in used.items():
            if milli > 1000:
                raise Violation(f"seed {self.seed}: {slot} carries {milli} milli-GPU at {self.now_ms} ms")
        for queue in QUEUES:
            limit = dict(queue.limit).get("gpu")
            if limit is not None and by_queue.get(queue.name, 0) > limit:
                raise Violation(f"seed {self.seed}: queue {queue.name} uses {by_queue[queue.name]} of {limit}")
