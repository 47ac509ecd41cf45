"""Pollux's protocol with our engine: one queue, elastic jobs, goodput curves fitted online from what each job has visited itself.

Every round the engine learns, per job, a curve over the sizes it may try (at most twice the largest so far) and the work done, and
its resizes become the placements of the next round. Jobs declare no total: the age of a job is all that ranks it.
"""

from __future__ import annotations

from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.core.model import JobSpec, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.estimate.goodput import GoodputModel, Limits
from heliostat_scheduler.simulator.drive import Drive, uniform_nodes
from heliostat_scheduler.simulator.pollux.cluster import (
    FIXED_BATCH,
    GPUS,
    GPUS_PER_NODE,
    NODES,
    RESTART_S,
    Job,
    Nodes,
)

QUEUE = "default"
SIZES = (1, 2, *range(GPUS_PER_NODE, GPUS + 1, GPUS_PER_NODE))
"""Sizes above one node are whole nodes: odd ones were never measured."""


class PolluxWorld:
    """Models, engine and executor; `decide` and `tune` are what the cluster simulation asks for."""

    def __init__(self) -> None:
        self.drive = Drive(self, (QueueSpec(QUEUE, quota=(("gpu", 1000 * GPUS),)),))
        self._models: dict[str, GoodputModel] = {}
        self._curves: dict[str, tuple[int, int, tuple[tuple[int, int], ...]]] = {}
        self._nodes: dict[str, Nodes] = {}
        self._known: dict[str, Job] = {}
        for event in uniform_nodes(NODES, GPUS_PER_NODE):
            self.drive.apply(event, 0)

    # -- executor

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self._nodes[job_id] = tuple(sorted(int(place.node[1:]) for place in places))

    def stopped(self, job_id: str) -> None:
        self._nodes.pop(job_id, None)

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self.started(job_id, places)

    # -- the policy's side of the simulation

    def tune(self, job: Job) -> None:
        """The best batch by the job's own model."""
        if job.placement:
            choice = self._learn(job).choose(sum(job.placement), len(job.placement))
            job.local_batch, job.accumulation = choice.local_batch, choice.accumulation
            job.cap()

    def decide(self, now: int, active: list[Job]) -> dict[str, Nodes]:
        now_ms = 1000 * now
        alive = {job.name for job in active}
        for name in [name for name in self._known if name not in alive]:
            del self._known[name]
            self._nodes.pop(name, None)
            self.drive.finish(name, now_ms)
        for job in active:
            if job.name not in self._known:
                self._known[job.name] = job
                self.drive.submit(_spec(job), now_ms)
            self._estimate(job, now_ms)
        self.drive.settle(now_ms)
        return dict(self._nodes)

    def _learn(self, job: Job) -> GoodputModel:
        app = job.app
        model = self._models.get(job.name)
        if model is None:
            limits = Limits(app.init_batch, app.max_batch, app.min_local, app.max_local, FIXED_BATCH.get(app.name))
            model = self._models[job.name] = GoodputModel(limits, GPUS_PER_NODE)
        for point, times in list(job.visited.items())[len(model.points) :]:
            model.measured(*point, *times)
        if job.gradient is not None:
            model.gradient(*job.gradient)
        return model

    def _estimate(self, job: Job, now_ms: int) -> None:
        model = self._learn(job)
        most = max((replicas for _, replicas, _ in model.points), default=0)
        known = self._curves.get(job.name)
        if known is None or known[:2] != (model.version, most):
            largest = min(max(2 * most, 1), _largest(job))
            sizes = [size for size in SIZES if size <= largest]
            curve = tuple((size, round(1000 * value)) for size, value in zip(sizes, model.curve(sizes), strict=True))
            known = self._curves[job.name] = (model.version, most, curve)
        done = round(1000 * job.progress * job.app.init_batch)
        self.drive.apply(Estimated(job.name, goodput_milli=known[2], done_milli=done), now_ms)


def _largest(job: Job) -> int:
    return 1 if job.fixed else min(GPUS, job.app.max_batch // job.app.min_local)


def _spec(job: Job) -> JobSpec:
    largest = _largest(job)
    return JobSpec(
        job.name, QUEUE, 1000 * job.submit_s, TaskShape(1000), 1, largest, tuple(s for s in SIZES if s <= largest),
        elastic=True, restart_cost_ms=1000 * RESTART_S, grace_ms=0, saves_on_order=True,
    )  # fmt: skip
