"""A small world around an engine: nodes, an executor that answers late or at once, and books of its own to check the engine by.

`World` never looks into the engine's state to decide what is true: it keeps who occupies which device from the plans it was given and
the answers it sent, and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from heliostat_scheduler.core import (
    Engine,
    JobSpec,
    NodeSpec,
    Plan,
    Policy,
    Preempt,
    Preemptibility,
    QueueSpec,
    Resize,
    SlotSpec,
    Start,
    Stop,
    TaskPlace,
    TaskShape,
)
from heliostat_scheduler.core import events as ev

GPU = "gpu"
DECISIVE = (Start, Resize, Preempt, Stop)


def node(name: str, gpus: int = 4, flavor: str = GPU, **more: object) -> NodeSpec:
    slots = tuple(SlotSpec(f"{name}/{i}", i) for i in range(gpus))
    return NodeSpec(name, flavor, slots, **more)  # type: ignore[arg-type]


def queue(name: str, quota: int = 0, **more: object) -> QueueSpec:
    """Amounts in whole GPUs; -1 is unlimited."""
    amounts = {key: more.pop(key) for key in ("limit", "lending_limit") if key in more}
    spelled = {key: ((GPU, _milli(value)),) for key, value in amounts.items()}
    return QueueSpec(name, quota=((GPU, _milli(quota)),), **spelled, **more)  # type: ignore[arg-type]


def _milli(gpus: object) -> int:
    assert isinstance(gpus, (int, float))
    return -1 if gpus == -1 else round(gpus * 1000)


def job(name: str, gpus: float = 1, queue: str = "default", tasks: int = 1, at: int = 0, **more: object) -> JobSpec:
    """`tasks` workers with `gpus` devices each; `max_tasks` and everything else by keyword."""
    more.setdefault("max_tasks", tasks)
    shape = more.pop("shape", TaskShape(gpu_milli=_milli(gpus)))
    return JobSpec(name, queue, at, shape, tasks, **more)  # type: ignore[arg-type]


FIXED = Preemptibility.NON_PREEMPTIBLE
SEMI = Preemptibility.SEMI_PREEMPTIBLE


class World:
    """An engine and what became of its plans."""

    def __init__(
        self, nodes: list[NodeSpec], queues: list[QueueSpec] | None = None, policy: Policy | None = None, at: int = 0
    ) -> None:
        self.now = at
        self.engine = Engine(policy or Policy(), tuple(queues or [queue("default", -1)]))
        self.nodes: dict[str, NodeSpec] = {}
        self.specs: dict[str, JobSpec] = {}
        self.held: dict[str, list[TaskPlace]] = {}
        self.target: dict[str, tuple[TaskPlace, ...]] = {}
        self.order: dict[str, tuple[str, int]] = {}
        self.plans: list[Plan] = []
        self.finished: dict[str, str] = {}
        self.low: dict[str, list[tuple[int, int]]] = {}
        """(end, length) of each window in which the job was measured below the high mark and made no progress, since it last was not."""
        self.over: dict[tuple[str, str, str], int] = {}
        """(queue, user or "", flavor): what was held when the limits last changed, as far as it still is. Nobody is stopped for a new limit."""
        for spec in nodes:
            self.node_up(spec)

    # -- what happens

    def apply(self, event: ev.Event) -> None:
        self.engine.apply(event, self.now)

    def node_up(self, spec: NodeSpec) -> None:
        self.nodes[spec.id] = spec
        self.apply(ev.NodeUp(spec))

    def submit(self, *specs: JobSpec, held: bool = False) -> None:
        for spec in specs:
            self.apply(ev.JobSubmitted(spec, held))
            self.specs[spec.id] = spec

    def decide(self) -> Plan:
        plan = self.engine.decide(self.now)
        self.plans.append(plan)
        for decision in plan.decisions:
            match decision:
                case Start():
                    assert decision.job_id not in self.held, f"{decision.job_id} started twice"
                    self.held[decision.job_id] = list(decision.places)
                    self.target[decision.job_id] = decision.places
                    self.order[decision.job_id] = ("start", decision.epoch)
                    self.low.pop(decision.job_id, None)
                case Resize():
                    old = Counter(self.held[decision.job_id])
                    new = Counter(decision.places)
                    self.held[decision.job_id] = list((old | new).elements())
                    self.target[decision.job_id] = decision.places
                    self.order[decision.job_id] = ("resize", decision.epoch)
                case Preempt():
                    self.order[decision.job_id] = ("preempt", decision.epoch)
                case Stop():
                    self.order[decision.job_id] = ("stop", decision.epoch)
                case _:
                    pass
        return plan

    def answer(self, job_id: str) -> None:
        """The executor finishes what it was last told about this job."""
        order, epoch = self.order.pop(job_id)
        if order == "start":
            self.apply(ev.JobStarted(job_id, epoch))
        elif order == "resize":
            self.held[job_id] = list(self.target[job_id])
            self.apply(ev.JobResized(job_id, epoch, self.target[job_id]))
        elif order == "preempt":
            self.gone(job_id)
            self.apply(ev.JobRequeued(job_id, epoch, "preempted"))
            if self.engine.phase(job_id) is None:  # somebody had cancelled it meanwhile
                self.specs.pop(job_id)
        else:
            self.gone(job_id)
            self.specs.pop(job_id)
            self.apply(ev.JobFinished(job_id, epoch, "cancelled"))

    def gone(self, job_id: str) -> None:
        self.held.pop(job_id, None)
        self.target.pop(job_id, None)
        self.order.pop(job_id, None)

    def answer_all(self) -> None:
        for job_id in sorted(self.order):
            self.answer(job_id)

    def step(self) -> Plan:
        """Decide, and have everything carried out at once."""
        plan = self.decide()
        self.answer_all()
        return plan

    def settle(self, cycles: int = 30) -> int:
        """Cycles until a plan is empty; how many there were."""
        for count in range(cycles):
            if not any(isinstance(d, DECISIVE) for d in self.step().decisions):
                return count
        raise AssertionError(f"no fixpoint after {cycles} cycles")

    def finish(self, job_id: str, outcome: str = "succeeded") -> None:
        epoch = self.epoch(job_id)
        self.gone(job_id)
        self.specs.pop(job_id)
        self.finished[job_id] = outcome
        self.apply(ev.JobFinished(job_id, epoch, outcome))

    def measure(self, job_id: str, window_ms: int, activity: int | None, progressed: bool) -> None:
        """A window of telemetry."""
        idle = activity is not None and activity < self.engine.state.policy.idle_high_permille and not progressed
        if idle and self.engine.phase(job_id) == "running":
            self.low.setdefault(job_id, []).append((self.now, window_ms))
        else:
            self.low.pop(job_id, None)
        self.apply(ev.Utilized(job_id, window_ms, activity, progressed))

    def change(self, spec: JobSpec) -> None:
        self.apply(ev.JobChanged(spec))
        self.specs[spec.id] = spec

    def cancel(self, job_id: str) -> None:
        self.apply(ev.JobCancelled(job_id))
        if job_id not in self.held:
            self.specs.pop(job_id)

    # -- looking

    def epoch(self, job_id: str) -> int:
        return self.engine.state.book.jobs[job_id].epoch

    def runs(self, job_id: str) -> bool:
        return job_id in self.held and self.order.get(job_id, ("", 0))[0] not in ("preempt", "stop")

    def running(self) -> list[str]:
        return sorted(job_id for job_id in self.held if self.runs(job_id))

    def tasks(self, job_id: str) -> int:
        return len(self.target.get(job_id, ())) if self.runs(job_id) else 0

    def evicted(self) -> list[str]:
        return [d.job_id for plan in self.plans for d in plan.decisions if isinstance(d, Preempt)]

    def used(self) -> dict[str, int]:
        """Milli-GPU per slot, from the world's own books."""
        total: dict[str, int] = {}
        for job_id, places in self.held.items():
            milli = min(1000, self.specs[job_id].shape.gpu_milli)
            for place in places:
                for slot in place.slots:
                    total[slot] = total.get(slot, 0) + milli
        return total

    def cpu_used(self) -> dict[str, int]:
        """Floating milli-CPU per node."""
        total: dict[str, int] = {}
        for job_id, places in self.held.items():
            shape = self.specs[job_id].shape
            for place in places if shape.gpu_milli == 0 else ():
                total[place.node] = total.get(place.node, 0) + shape.cpu_milli
        return total

    def flavor(self, places: Sequence[TaskPlace]) -> str:
        return self.nodes[places[0].node].flavor if places else ""

    def flavors(self) -> list[str]:
        return sorted({spec.flavor for spec in self.nodes.values()})

    def queue_used(self, flavor: str = GPU) -> dict[str, int]:
        """Milli-GPU of a flavor per queue, ancestors included."""
        parents = {spec.name: spec.parent for spec in self.engine.state.book.tree.specs}
        total: dict[str, int] = {}
        for job_id, places in self.held.items():
            amount = self.specs[job_id].shape.gpu_milli * len(places) if self.flavor(places) == flavor else 0
            name = self.specs[job_id].queue
            while name:
                total[name] = total.get(name, 0) + amount
                name = parents[name]
        return total
