"""Seeded stories: a small cluster, a mix of events, an executor that is sometimes slow; every step becomes one line.

A line says when, what was ordered and why, whose reason for waiting changed, what was refused, and ends with a digest of everything
else that could be observed (facts and sentences of all reasons, positions, what protects who runs, next wake-up, use of all queues, the
state's own digest).
The lines of each story are kept in `stories/NAME.txt`: a change of behaviour shows as a readable difference. After an intended change:

    python -m tests.scheduler.telling
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliostat_scheduler.core import Engine, IllegalEvent, JobSpec, NodeSpec, Policy, QueueSpec, TaskPlace
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.codec import to_json
from heliostat_scheduler.core.decisions import Decision, Discarded, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.explain import standing
from heliostat_scheduler.core.model import DemandKind, Preemptibility, TaskShape
from heliostat_scheduler.core.reasons import sentence

FOLDER = Path(__file__).with_name("stories")
POLICY = Policy()
OUTCOMES = ("succeeded", "succeeded", "failed", "timed_out")
WHYS = ("crashed", "node_lost", "head_lost")


@dataclass(frozen=True)
class Plot:
    """What a story is about. Weights say how often each kind of event is drawn."""

    name: str
    nodes: tuple[NodeSpec, ...]
    queues: tuple[QueueSpec, ...]
    policy: Policy = POLICY
    shapes: tuple[TaskShape, ...] = (TaskShape(1000),)
    tasks: tuple[int, ...] = (1, 1, 2, 4)
    more: tuple[int, ...] = (0,)
    """How far max_tasks lies above min_tasks."""
    elastic: float = 0.0
    priorities: tuple[int, ...] = (100,)
    kinds: tuple[Preemptibility, ...] = (Preemptibility.PREEMPTIBLE,)
    spreads: tuple[str, ...] = ("any",)
    flavors: tuple[tuple[str, ...], ...] = ((),)
    users: tuple[str, ...] = ("",)
    weights: dict[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    """depend, delay, hold, fail: some jobs have this, some starts end so."""
    other_queues: tuple[QueueSpec, ...] = ()
    other_policy: Policy | None = None
    mix: tuple[DemandKind, ...] = ()
    steps: int = 60
    hurry: tuple[int, ...] = (50, 1_000, 5_000, 20_000)
    seed: int = 1


ALWAYS = {"submit": 30, "finish": 12, "answer": 40, "quiet": 3, "strange": 3, "explain": 4, "restore": 2}


class Telling:
    """One run of a plot."""

    def __init__(self, plot: Plot) -> None:
        self.plot = plot
        self.rng = random.Random(f"{plot.name} {plot.seed}")
        self.engine = Engine(plot.policy, plot.queues)
        self.now = 1_000_000
        self.count = 0
        self.orders: dict[str, Decision] = {}
        self.held: dict[str, tuple[TaskPlace, ...]] = {}
        self.lines: list[str] = []
        self.told: dict[str, str] = {}
        self.notes: list[str] = []
        self.deep: list[str] = []
        for spec in plot.nodes:
            self.apply(ev.NodeUp(spec))
        if plot.mix:
            self.apply(ev.DemandMix(plot.mix))

    def run(self) -> list[str]:
        weights = {**ALWAYS, **self.plot.weights}
        names = sorted(weights)
        for _ in range(self.plot.steps):
            self.now += self.rng.choice(self.plot.hurry)
            for _ in range(self.rng.randint(2, 5)):
                getattr(self, f"do_{self.rng.choices(names, [weights[n] for n in names])[0]}")()
            self.decide()
        return self.lines

    # -- the engine's side

    def apply(self, event: ev.Event) -> bool:
        try:
            self.engine.apply(event, self.now)
        except IllegalEvent as error:
            self.notes.append(f"refused: {error}")
            return False
        return True

    def decide(self) -> None:
        engine = self.engine
        twin = engine.fork() if self.rng.random() < 0.25 else None
        again = engine.decide(self.now)
        assert twin is None or twin.decide(self.now) == again, "a fork decides differently"
        for order in again.decisions:
            self.notes.append(tell(order))
            if not isinstance(order, Discarded):
                self.orders[order.job_id] = order
            if isinstance(order, Start):
                self.held[order.job_id] = order.places
        waiting = sorted(job_id for job_id in engine.state.book.jobs if engine.reason(job_id) is not None)
        facts = []
        for job_id in waiting:
            why = engine.reason(job_id)
            assert why is not None
            facts.append((job_id, why, sentence(why), engine.position(job_id)))
            if self.told.get(job_id) != why.code.value:
                self.notes.append(f"{job_id} waits: {why.code.value}")
        self.told = {job_id: why.code.value for job_id, why, _, _ in facts}
        held = [standing(engine.state, job_id, self.now) for job_id in self.running()]
        deep = to_json([again, facts, held, engine.next_wakeup_ms(), engine.queue_usage(), engine.digest(), self.deep])
        mark = hashlib.sha256(deep.encode()).hexdigest()[:10]
        at = (self.now - 1_000_000) / 1000
        self.lines.append(f"{at:.2f} s  {'; '.join(self.notes) or '-'}  [{mark}]")
        self.notes, self.deep = [], []

    # -- what may happen

    def do_quiet(self) -> None:
        """Nothing."""

    def do_submit(self) -> None:
        plot, rng = self.plot, self.rng
        self.count += 1
        low = rng.choice(plot.tasks)
        high = low + rng.choice(plot.more)
        leaves = [spec.name for spec in plot.queues if not any(other.parent == spec.name for other in plot.queues)]
        spec = JobSpec(
            f"j{self.count:03d}", rng.choice(leaves), self.now - rng.choice((0, 0, 60_000)), rng.choice(plot.shapes), low, high,
            priority=rng.choice(plot.priorities), preemptibility=rng.choice(plot.kinds), flavors=rng.choice(plot.flavors),
            spread=rng.choice(plot.spreads), user=rng.choice(plot.users), elastic=rng.random() < plot.elastic,
            max_runtime_ms=rng.choice((None, 30_000, 600_000)), expected_runtime_ms=rng.choice((None, 10_000, 300_000)),
            grace_ms=rng.choice((0, 2_000)), restart_cost_ms=rng.choice((0, 5_000)), saves_on_order=rng.random() < 0.3,
        )  # fmt: skip
        if "depend" in plot.flags and rng.random() < 0.2 and self.live():
            spec = replace(spec, dependencies=(rng.choice(self.live()),))
        if "delay" in plot.flags and rng.random() < 0.5:
            spec = replace(spec, preemption_delay_ms=rng.choice((0, 15_000)))
        if high - low > 2 and rng.random() < 0.5:
            spec = replace(spec, sizes=(low, low + 2, high))
        if self.apply(ev.JobSubmitted(spec, held="hold" in plot.flags and rng.random() < 0.1)):
            self.notes.append(
                f"{spec.id} to {spec.queue}: {spec.min_tasks}..{spec.max_tasks} x {spec.shape.gpu_milli}m, {spec.priority}"
            )

    def live(self) -> list[str]:
        return sorted(self.engine.state.book.jobs)

    def running(self) -> list[str]:
        return [job_id for job_id in sorted(self.held) if job_id in self.engine.state.book.jobs]

    def epoch(self, job_id: str) -> int:
        return self.engine.state.book.jobs[job_id].epoch

    def do_answer(self) -> None:
        """The executor carries out one order, sometimes in two parts, sometimes in vain."""
        if not self.orders:
            return
        job_id = self.rng.choice(sorted(self.orders))
        order = self.orders[job_id]
        match order:
            case Start():
                failed = "fail" in self.plot.flags and self.rng.random() < 0.2
                late = self.now + 4_000
                event: ev.Event = (
                    ev.JobStartFailed(job_id, order.epoch, "cpu_busy", late)
                    if failed
                    else ev.JobStarted(job_id, order.epoch)
                )
                if failed:
                    self.held.pop(job_id, None)
                self.apply(event)
            case Resize():
                self.held[job_id] = order.places
                self.apply(ev.JobResized(job_id, order.epoch, order.places))
            case Preempt():
                leaving = self.engine.state.book.jobs[job_id].leaving if job_id in self.engine.state.book.jobs else ()
                if len(leaving) > 1 and self.rng.random() < 0.4:
                    self.apply(ev.PlacesReleased(job_id, order.epoch, leaving[:1]))
                    return
                self.held.pop(job_id, None)
                self.apply(ev.JobRequeued(job_id, order.epoch, "preempted"))
            case Stop():
                self.held.pop(job_id, None)
                self.apply(ev.JobFinished(job_id, order.epoch, "cancelled"))
            case _:
                pass
        del self.orders[job_id]

    def do_finish(self) -> None:
        if self.running():
            job_id = self.rng.choice(self.running())
            outcome = self.rng.choice(OUTCOMES)
            self.notes.append(f"{job_id} {outcome}")
            self.held.pop(job_id)
            self.orders.pop(job_id, None)
            self.apply(ev.JobFinished(job_id, self.epoch(job_id), outcome))

    def do_crash(self) -> None:
        if self.running():
            job_id = self.rng.choice(self.running())
            self.notes.append(f"{job_id} crashed")
            self.held.pop(job_id)
            self.orders.pop(job_id, None)
            self.apply(
                ev.JobRequeued(
                    job_id, self.epoch(job_id), self.rng.choice(WHYS), self.now + self.rng.choice((0, 6_000))
                )
            )

    def do_cancel(self) -> None:
        if self.live():
            job_id = self.rng.choice(self.live())
            self.notes.append(f"{job_id} cancelled")
            self.apply(self.rng.choice((ev.JobCancelled, ev.JobTimedOut))(job_id))

    def do_hold(self) -> None:
        if self.live():
            job_id = self.rng.choice(self.live())
            if self.apply(self.rng.choice((ev.JobHeld, ev.JobReleased))(job_id)):
                self.notes.append(f"{job_id} held or released")

    def do_change(self) -> None:
        if self.live():
            spec = self.engine.state.book.jobs[self.rng.choice(self.live())].spec
            new = self.rng.choice(
                (
                    replace(spec, priority=self.rng.choice((50, 100, 150))),
                    replace(spec, max_tasks=spec.min_tasks, sizes=()),
                    replace(spec, shape=TaskShape(2000)),
                    replace(spec, queue=self.rng.choice(self.plot.queues).name),
                    replace(spec, min_tasks=1, sizes=()),
                )
            )
            if self.apply(ev.JobChanged(new)):
                self.notes.append(f"{spec.id} changed")

    def do_node(self) -> None:
        node = self.rng.choice(self.plot.nodes)
        drain = self.rng.random() < 0.5
        event = self.rng.choice(
            (ev.NodeDown(node.id), ev.NodeUp(node), ev.NodeCordoned(node.id, drain), ev.NodeUncordoned(node.id))
        )
        if isinstance(event, ev.NodeDown):
            for job_id, places in self.held.items():
                self.held[job_id] = tuple(place for place in places if place.node != node.id)
        if self.apply(event):
            self.notes.append(f"{type(event).__name__} {node.id}")

    def do_slot(self) -> None:
        node = self.rng.choice([spec for spec in self.plot.nodes if spec.slots])
        slot = self.rng.choice(node.slots).id
        if self.apply(self.rng.choice((ev.SlotBlocked(slot, "stray"), ev.SlotUnblocked(slot)))):
            self.notes.append(f"slot {slot} blocked or not")

    def do_checkpoint(self) -> None:
        if self.running():
            self.apply(ev.Checkpointed(self.rng.choice(self.running()), self.now - self.rng.choice((0, 3_000))))

    def do_rank(self) -> None:
        if self.live():
            job_id, rank = self.rng.choice(self.live()), self.rng.choice((1_000, 60_000, 3_600_000))
            self.notes.append(f"{job_id} ranks {rank}")
            self.apply(ev.Estimated(job_id, remaining_ms=rank, rank_ms=rank))

    def do_goodput(self) -> None:
        if self.live():
            job_id = self.rng.choice(self.live())
            most = self.engine.state.book.jobs[job_id].spec.max_tasks
            power = self.rng.choice((0.3, 0.7, 1.0))
            curve = tuple((size, round(1000 * size**power)) for size in (1, 2, 3, 4, 6, 8) if size <= max(1, most))
            self.notes.append(f"{job_id} scales {power}")
            self.apply(ev.Estimated(job_id, goodput_milli=curve, done_milli=self.rng.choice((0, 50_000, 5_000_000))))

    def do_telemetry(self) -> None:
        if self.running():
            job_id, activity = self.rng.choice(self.running()), self.rng.choice((0, 0, 10, 300, 950, None))
            self.notes.append(f"{job_id} at {activity}")
            self.apply(ev.Utilized(job_id, self.rng.choice((60_000, 300_000)), activity, self.rng.random() < 0.3))

    def do_queues(self) -> None:
        self.apply(ev.QueuesChanged(self.rng.choice((self.plot.queues, self.plot.other_queues or self.plot.queues))))

    def do_policy(self) -> None:
        self.apply(ev.PolicyChanged(self.rng.choice((self.plot.policy, self.plot.other_policy or self.plot.policy))))

    def do_strange(self) -> None:
        """Messages that are late, wrong or about strangers: they change nothing."""
        job_id = self.rng.choice([*self.live(), "ghost"])
        epoch = self.engine.state.book.jobs[job_id].epoch if job_id in self.engine.state.book.jobs else 1
        places = self.held.get(job_id, ())
        event = self.rng.choice(
            (
                ev.JobStarted(job_id, epoch - 1), ev.JobStarted(job_id, epoch), ev.JobStartFailed(job_id, epoch, "x", 0),
                ev.JobResized(job_id, epoch, places), ev.PlacesReleased(job_id, epoch, places), ev.JobFinished(job_id, epoch, "fine"),
                ev.JobRequeued(job_id, epoch + 1, "crashed"), ev.Checkpointed("ghost", self.now), ev.SlotUnblocked("n0/0"),
                ev.JobReleased("ghost"), ev.Utilized("ghost", 1, 0, False), ev.NodeUncordoned("nowhere"), ev.SlotBlocked("no/0", "?"),
            )
        )  # fmt: skip
        before = self.engine.digest()
        self.notes.append(type(event).__name__)
        if not self.apply(event):
            assert self.engine.digest() == before, f"a refused event changed something: {event}"
        elif isinstance(event, (ev.JobStarted, ev.JobStartFailed, ev.JobResized)):
            self.orders.pop(job_id, None)
            if isinstance(event, ev.JobStartFailed):
                self.held.pop(job_id, None)

    def do_explain(self) -> None:
        waiting = [job_id for job_id in self.live() if self.engine.reason(job_id) is not None]
        if waiting:
            job_id = self.rng.choice(waiting)
            found = self.engine.explain(job_id, self.now)
            self.notes.append(
                f"explain {job_id}: {', '.join(remedy.action for remedy in found.remedies) or 'nothing helps'}"
            )
            self.deep.append(to_json(found))

    def do_restore(self) -> None:
        """The engine continues from its own bytes."""
        self.notes.append("restored")
        digest, body = self.engine.digest(), self.engine.snapshot()
        self.engine = Engine.restore(body)
        assert self.engine.digest() == digest
        assert self.engine.snapshot() == body


def tell(order: Decision) -> str:
    """`start j003 n0/0 n0/1: Placed`."""
    name = type(order).__name__.lower()
    if isinstance(order, (Start, Resize)):
        where = " ".join("+".join(place.slots) or place.node for place in order.places)
        return f"{name} {order.job_id} {where}: {order.reason.code.value}"
    return f"{name} {order.job_id}: {order.reason.code.value} {','.join(order.reason.blockers)}".rstrip()


def main() -> None:
    from tests.scheduler.plots import PLOTS

    told = {f"{plot.name}.txt": "\n".join(Telling(plot).run()) + "\n" for plot in PLOTS}
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in told.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
