"""What the invariants look up: who holds what, and what the queues and nodes allow, by the world's own books (not the engine's)."""

from __future__ import annotations

from heliostat_scheduler.core import JobSpec, Preemptibility, QueueSpec

from tests.scheduler.world import GPU, World

WHOLE = 1000


def specs_of(world: World) -> dict[str, QueueSpec]:
    return {spec.name: spec for spec in world.engine.state.book.tree.specs}


def chain(world: World, name: str) -> list[str]:
    """The queue and its ancestors."""
    specs, found = specs_of(world), []
    while name:
        found.append(name)
        name = specs[name].parent
    return found


def below_common(world: World, one: str, other: str) -> tuple[list[str], list[str]]:
    mine, theirs = chain(world, one), chain(world, other)
    return [q for q in mine if q not in theirs], [q for q in theirs if q not in mine]


def owned(world: World, job_id: str, flavor: str) -> int:
    """Milli-GPU of the flavor that a job will have once everybody who was told to leave has left and every promise is kept."""
    places = world.target.get(job_id, ()) if job_id in world.held and world.runs(job_id) else ()
    claim = world.engine.state.book.jobs[job_id].claim
    count = sum(len(some) for some in (places, claim) if world.flavor(some) == flavor)
    return count * world.specs[job_id].shape.gpu_milli


def planned(world: World, flavor: str = GPU) -> dict[str, int]:
    """What jobs will have of a flavor, per queue (ancestors included)."""
    total: dict[str, int] = {}
    for job_id in world.engine.state.book.jobs:
        amount = owned(world, job_id, flavor)
        for name in chain(world, world.specs[job_id].queue):
            total[name] = total.get(name, 0) + amount
    return total


def core_held(world: World, flavor: str) -> dict[str, int]:
    """Milli-GPU of a flavor per queue (ancestors included) that may never be evicted."""
    total: dict[str, int] = {}
    for job_id, places in world.held.items():
        spec = world.specs[job_id]
        if world.flavor(places) != flavor:
            continue
        for name in chain(world, spec.queue):
            total[name] = total.get(name, 0) + core_of(spec, world.tasks(job_id))
    return total


def core_of(spec: JobSpec, tasks: int) -> int:
    if spec.preemptibility is Preemptibility.SEMI_PREEMPTIBLE:
        tasks = min(tasks, spec.min_tasks)
    return 0 if spec.preemptibility is Preemptibility.PREEMPTIBLE else tasks * spec.shape.gpu_milli


def opened(world: World) -> list[str]:
    return [name for name, rec in world.engine.state.book.nodes.items() if rec.up and not rec.cordoned]


def capacity(world: World, flavor: str) -> int:
    """Milli-GPU of the open nodes of a flavor, and of what still runs on closed ones."""
    usable = opened(world)
    nodes = {name: rec for name, rec in world.engine.state.book.nodes.items() if rec.spec.flavor == flavor}
    closed = {slot.id for name, rec in nodes.items() if rec.up and name not in usable for slot in rec.spec.slots}
    held = sum(milli for slot, milli in world.used().items() if slot in closed)
    return held + sum(WHOLE * len(world.nodes[name].slots) for name in usable if name in nodes)


def free_whole(world: World, flavor: str) -> dict[str, int]:
    """Devices per open node of a flavor that nobody holds and that are promised to nobody."""
    taken = dict(world.used())
    for job_id, rec in world.engine.state.book.jobs.items():
        for place in rec.claim:
            for slot in place.slots:
                taken[slot] = taken.get(slot, 0) + min(WHOLE, world.specs[job_id].shape.gpu_milli)
    nodes = [world.nodes[name] for name in opened(world) if world.nodes[name].flavor == flavor]
    return {spec.id: sum(1 for slot in spec.slots if not taken.get(slot.id)) for spec in nodes}


def accepted(world: World, spec: JobSpec) -> list[str]:
    return [flavor for flavor in world.flavors() if flavor in (spec.flavors or (flavor,))]


def quota(spec: QueueSpec, flavor: str = GPU) -> int:
    return dict(spec.quota).get(flavor, 0)


def guarantee(world: World, name: str, flavor: str) -> int:
    """What nobody may take from the queue: its quota, where the quotas at its level and above can be kept all together; else 0. What its
    limit forbids is no part of it."""
    specs = specs_of(world)
    for at in chain(world, name):
        parent = specs[at].parent
        promised = sum(quota(spec, flavor) for spec in specs.values() if spec.parent == parent)
        if promised > (quota(specs[parent], flavor) if parent else capacity(world, flavor)):
            return 0
    return min(min(quota(specs[at], flavor), _limit(specs[at], flavor)) for at in chain(world, name))


def _limit(spec: QueueSpec, flavor: str) -> int:
    return dict(spec.limit).get(flavor, 1 << 62)


def domain(world: World, node: str, spread: str) -> str:
    """What all tasks of a gang must have in common."""
    return "" if spread == "any" else node if spread == "one_node" else dict(world.nodes[node].labels)[spread]


def allowed(world: World, spec: JobSpec, flavor: str) -> bool:
    """The flavor is accepted, and no limit is in the way."""
    need, plan, specs = spec.shape.gpu_milli * spec.min_tasks, planned(world, flavor), specs_of(world)
    if flavor not in accepted(world, spec):
        return False
    mine = [job.id for job in world.specs.values() if (job.queue, job.user) == (spec.queue, spec.user)]
    held = sum(owned(world, job_id, flavor) for job_id in mine)
    rows = [(dict(specs[spec.queue].user_limit).get(flavor), held)]
    rows += [(dict(specs[name].limit).get(flavor), plan.get(name, 0)) for name in chain(world, spec.queue)]
    return all(limit is None or has + need <= limit for limit, has in rows)
