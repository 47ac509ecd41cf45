"""A slow scheduler that tries everything, for clusters of at most four GPUs and four jobs.

It knows who holds what, what every queue is entitled to (the engine's own numbers; they are proven elsewhere), and the rules of
docs/queues.md. It answers for one job: could it start without harm, and which sets of victims would be legal and enough? A *choice* says
for each running job which of its tasks it loses; all of them is an eviction. A choice is legal if some order of the single losses is: each
loss is judged as things stand after the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations, product

from heliostat_scheduler.core import JobSpec, Preemptibility, TaskPlace

from tests.scheduler.books import below_common, chain, quota, specs_of
from tests.scheduler.world import GPU, World

WHOLE = 1000
Loss = tuple[str, tuple[TaskPlace, ...]]
"""(job, the tasks it loses)"""


@dataclass
class Tiny:
    """What the slow scheduler looks at. free: milli-GPU per slot; plan: milli-GPU per queue."""

    world: World
    running: dict[str, tuple[TaskPlace, ...]]
    free: dict[str, int]
    plan: dict[str, int]
    tasks: dict[str, int]

    @classmethod
    def of(cls, world: World, leaving: bool = False) -> Tiny:
        """As it will be once everybody told to leave has left (with `leaving`: before that); what is promised is not free."""
        book = world.engine.state.book
        running = {job_id: world.target[job_id] for job_id in sorted(world.held) if world.runs(job_id)}
        free = {slot.id: WHOLE for spec in world.nodes.values() for slot in spec.slots}
        plan = dict.fromkeys(specs_of(world), 0)
        tasks = {}
        for job_id, rec in book.jobs.items():
            spec = world.specs[job_id]
            places = (*(world.held if leaving else running).get(job_id, ()), *rec.claim)
            tasks[job_id] = len(places)
            for place in places:
                for slot in place.slots:
                    free[slot] -= min(WHOLE, spec.shape.gpu_milli)
            for name in chain(world, spec.queue):
                plan[name] += spec.shape.gpu_milli * len(places)
        return cls(world, running, free, plan, tasks)

    # -- rules

    def share(self, name: str) -> int:
        return self.world.engine.state.book.tree.by_name[name].entitled.get(GPU, 0)

    def secured(self, name: str) -> int:
        return self.world.engine.state.book.tree.by_name[name].secured.get(GPU, 0)

    def need(self, spec: JobSpec) -> int:
        return spec.shape.gpu_milli * spec.min_tasks

    def allowed(self, spec: JobSpec) -> bool:
        """Limits, and the quota of what may not be stopped."""
        specs, need = specs_of(self.world), self.need(spec)
        for name in chain(self.world, spec.queue):
            limit = dict(specs[name].limit).get(GPU)
            if limit is not None and self.plan[name] + need > limit:
                return False
        return self.core_allowed(spec)

    def core_allowed(self, spec: JobSpec) -> bool:
        if spec.preemptibility is Preemptibility.PREEMPTIBLE:
            return True
        specs, core = specs_of(self.world), dict.fromkeys(self.plan, self.need(spec))
        for job_id, held in self.tasks.items():
            other = self.world.specs[job_id]
            tasks = held if other.preemptibility is Preemptibility.NON_PREEMPTIBLE else min(held, other.min_tasks)
            if other.preemptibility is not Preemptibility.PREEMPTIBLE:
                for name in chain(self.world, other.queue):
                    core[name] += other.shape.gpu_milli * tasks
        capacity = sum(WHOLE * len(node.slots) for node in self.world.nodes.values())
        bounds = {name: capacity if quota(specs[name]) == -1 else quota(specs[name]) for name in specs}
        return all(core[name] <= bounds[name] for name in chain(self.world, spec.queue))

    def room(self, spec: JobSpec) -> int:
        """How many tasks fit into what is free, as the job wants them together."""
        rooms = []
        for node in self.world.nodes.values():
            left = [self.free[slot.id] for slot in node.slots]
            whole = sum(milli >= WHOLE for milli in left) * WHOLE // spec.shape.gpu_milli
            parts = sum(milli // spec.shape.gpu_milli for milli in left)
            rooms.append(whole if spec.shape.gpu_milli >= WHOLE else parts)
        return max(rooms, default=0) if spec.spread == "one_node" else sum(rooms)

    def fits(self, spec: JobSpec) -> bool:
        """Without harm to anybody."""
        return self.allowed(spec) and self.room(spec) >= spec.min_tasks

    # -- harm

    def legal(self, spec: JobSpec, loss: Loss) -> bool:
        """Whether this one loss is legal for the job as things stand."""
        victim = self.world.specs[loss[0]]
        whole = len(loss[1]) == len(self.running[loss[0]])
        if victim.queue == spec.queue:
            lower = victim.priority < spec.priority
            return lower or (not whole and victim.priority == spec.priority and self._equals_share(spec))
        mine, theirs = below_common(self.world, spec.queue, victim.queue)
        need = self.need(spec)
        in_quota = all(self.plan[name] + need <= self.secured(name) for name in mine)
        in_share = all(self.plan[name] + need <= self.share(name) for name in mine)
        over_share = all(self.plan[name] > self.share(name) for name in theirs)
        over_quota = all(self.plan[name] > self.secured(name) for name in theirs)
        return ((in_quota or in_share) and over_share) or (in_quota and over_quota)

    def _equals_share(self, spec: JobSpec) -> bool:
        """The queue's running work at its smallest, this job included, stays within what the queue is guaranteed."""
        mine = [self.world.specs[job_id] for job_id in self.running if self.world.specs[job_id].queue == spec.queue]
        floor = sum(other.shape.gpu_milli * min(other.min_tasks, len(self.running[other.id])) for other in mine)
        capacity = sum(WHOLE * len(node.slots) for node in self.world.nodes.values())
        given = quota(specs_of(self.world)[spec.queue])
        return floor + self.need(spec) <= (capacity if given == -1 else given or self.share(spec.queue))

    def take(self, loss: Loss, sign: int = 1) -> None:
        spec = self.world.specs[loss[0]]
        for place in loss[1]:
            for slot in place.slots:
                self.free[slot] += sign * min(WHOLE, spec.shape.gpu_milli)
        for name in chain(self.world, spec.queue):
            self.plan[name] -= sign * spec.shape.gpu_milli * len(loss[1])

    def losses(self, job_id: str, spec: JobSpec) -> list[tuple[TaskPlace, ...]]:
        """What a running job could lose: nothing, any part of its surplus, or everything."""
        mine, places = self.world.specs[job_id], self.running[job_id]
        surplus = len(places) - mine.min_tasks if mine.elastic else 0
        found = [tuple(part) for count in range(surplus + 1) for part in combinations(places, count)]
        if mine.preemptibility is Preemptibility.PREEMPTIBLE and places and job_id != spec.id:
            found.append(places)
        return found

    def choices(self, spec: JobSpec) -> Iterator[list[Loss]]:
        """Every choice of victims, the empty one not among them."""
        jobs = sorted(self.running)
        for picked in product(*(self.losses(job_id, spec) for job_id in jobs)):
            losses = [(job_id, tasks) for job_id, tasks in zip(jobs, picked, strict=True) if tasks]
            if losses:
                yield losses

    def enough(self, spec: JobSpec, choice: list[Loss]) -> bool:
        for loss in choice:
            self.take(loss)
        found = self.fits(spec)
        for loss in choice:
            self.take(loss, -1)
        return found

    def some_order_is_legal(self, spec: JobSpec, choice: list[Loss]) -> bool:
        singles = [single for loss in choice for single in self._singles(loss)]
        return any(self._legal_in(spec, order) for order in permutations(singles))

    def _singles(self, loss: Loss) -> list[Loss]:
        """An eviction is one loss, surplus is lost task by task."""
        return [loss] if self.evicts(loss) else [(loss[0], (place,)) for place in loss[1]]

    def _legal_in(self, spec: JobSpec, order: tuple[Loss, ...]) -> bool:
        done: list[Loss] = []
        legal = True
        for loss in order:
            if not self.legal(spec, loss):
                legal = False
                break
            self.take(loss)
            done.append(loss)
        for loss in done:
            self.take(loss, -1)
        return legal

    def evicts(self, loss: Loss) -> bool:
        return len(loss[1]) == len(self.running[loss[0]])

    def ways(self, spec: JobSpec) -> Iterator[list[Loss]]:
        """Every legal choice that is enough for the job."""
        for choice in self.choices(spec):
            if self.enough(spec, choice) and self.some_order_is_legal(spec, choice):
                yield choice
