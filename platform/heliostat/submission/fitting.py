"""NeverFits: refuse at the door what no amount of waiting can start, and name the largest request that would fit."""

from __future__ import annotations

from heliostat_scheduler.core.model import CPU, MEMORY, UNLIMITED

from heliostat.queuefile import QueueFile, shown
from heliostat.submission.capacity import Capacity
from heliostat.submission.request import Refused
from heliostat.submission.shape import Shape


def check_flavor(flavor: str, capacity: Capacity) -> None:
    if flavor and capacity.nodes and flavor not in capacity.flavors:
        known = ", ".join(capacity.flavors) or "none: the cluster has no GPUs"
        raise Refused(
            "unknown_flavor",
            f"There is no flavor '{flavor}' in this cluster.",
            f"Flavors here: {known}.",
            field="flavor",
        )


def check_fits(
    shape: Shape, *, queue: str, file: QueueFile, flavor: str, capacity: Capacity, one_node: bool, preemptibility: str
) -> None:
    """Refuse what is more than the queue may ever have or the cluster can ever give.

    A cluster of which nothing is known (no node has joined yet) refuses nothing.
    """
    if shape.gpu_milli:
        _gpus(shape, queue, file, flavor, capacity, one_node, preemptibility)
        _slot_share(shape, flavor, capacity)
    else:
        _cpus(shape, queue, file, capacity)


def _gpus(
    shape: Shape, queue: str, file: QueueFile, flavor: str, capacity: Capacity, one_node: bool, preemptibility: str
) -> None:
    flavors = (flavor,) if flavor else capacity.flavors
    rooms = [_room(name, queue, file, capacity, one_node, preemptibility) for name in flavors]
    if not rooms:
        if capacity.nodes:
            raise _never(
                f"the job needs {_n(shape.min_gpu_milli)} GPUs and the cluster has none", 0, "Submit it without GPUs."
            )
        return
    milli, why = _most(rooms)
    if milli == UNLIMITED or shape.min_gpu_milli <= milli:
        return
    largest = milli // shape.gpu_milli * shape.gpu_milli
    ways = []
    if largest:
        ways.append(
            f"ask for {_n(largest)} GPUs, the largest request that fits: --gpus {_n(largest)} (gpus={_n(largest)})"
        )
    if preemptibility == "non-preemptible":
        borrows, _ = _most([_room(name, queue, file, capacity, one_node, "preemptible") for name in flavors])
        if borrows == UNLIMITED or borrows >= shape.min_gpu_milli:
            ways.append(
                "make it preemptible, then it may borrow: --preemptibility preemptible (preemptibility='preemptible')"
            )
    if not largest:
        named = _other_queues(shape, queue, file, flavors, capacity, one_node, preemptibility)
        ways += [f"choose another queue: --queue {named[0]}"] if named else []
    remedy = "; or ".join(ways) or "no GPU request fits there, nor in another queue"
    remedy = f"{remedy[0].upper()}{remedy[1:]}."
    raise _never(f"the job needs {_n(shape.min_gpu_milli)} GPUs and {why}", largest, remedy)


def _most(rooms: list[tuple[int, str]]) -> tuple[int, str]:
    return max(rooms, key=lambda room: float("inf") if room[0] == UNLIMITED else room[0])


def _other_queues(
    shape: Shape,
    queue: str,
    file: QueueFile,
    flavors: tuple[str, ...],
    capacity: Capacity,
    one_node: bool,
    preemptibility: str,
) -> list[str]:
    """Leaves in which the request fits as it is."""
    found = []
    for name in file.leaves():
        most, _ = _most([_room(flavor, name, file, capacity, one_node, preemptibility) for flavor in flavors])
        if name != queue and (most == UNLIMITED or most >= shape.min_gpu_milli):
            found.append(name)
    return found


def _room(
    flavor: str, queue: str, file: QueueFile, capacity: Capacity, one_node: bool, preemptibility: str
) -> tuple[int, str]:
    """(milli-GPU of this flavor that the job could ever hold, what bounds it)."""
    bounds: list[tuple[int, str]] = []
    limit, owner = file.bound(queue, flavor)
    if limit != UNLIMITED:
        bounds.append(
            (limit, f"queue {owner} may never have more than {shown(flavor, limit)} of flavor {flavor} (its limit)")
        )
    if preemptibility == "non-preemptible":
        quota = file.quota_of(queue, (flavor,)).get(flavor, 0)
        if quota != UNLIMITED:
            told = f"a non-preemptible job never borrows: queue {queue} is guaranteed {shown(flavor, quota)} of flavor {flavor}"
            bounds.append((quota, told))
    if capacity.nodes:
        total = capacity.gpus(flavor) * 1000
        bounds.append((total, f"the cluster has {_n(total)} of flavor {flavor}"))
        if one_node:
            node = capacity.gpus_on_one_node(flavor) * 1000
            bounds.append((node, f"no node has more than {_n(node)} of flavor {flavor} (a command runs on one node)"))
    return min(bounds, default=(UNLIMITED, ""))


def _slot_share(shape: Shape, flavor: str, capacity: Capacity) -> None:
    cpu, memory = capacity.slot_cpu_milli(flavor), capacity.slot_memory_bytes(flavor)
    if cpu and shape.cpu_milli > cpu:
        raise _never(
            f"each task asks for {_n(shape.cpu_milli)} CPUs beside its GPU, and no slot has more than {_n(cpu)}",
            None,
            f"Ask for --cpus {_n(cpu)} (cpus={_n(cpu)}) or less, or leave it out: a task then gets its slot's share.",
            {"cpus": cpu / 1000},
        )
    if memory and shape.memory_bytes > memory:
        raise _never(
            f"each task asks for {shown(MEMORY, shape.memory_bytes)} of memory, and no slot has more than {shown(MEMORY, memory)}",
            None,
            f"Ask for --memory {shown(MEMORY, memory)} (memory_bytes={memory}) or less.",
            {"memory_bytes": memory},
        )


def _cpus(shape: Shape, queue: str, file: QueueFile, capacity: Capacity) -> None:
    for key, asked, node in (
        (CPU, shape.cpu_milli, capacity.cpu_milli_on_one_node()),
        (MEMORY, shape.memory_bytes, capacity.memory_on_one_node()),
    ):
        limit, owner = file.bound(queue, key)
        bounds = (
            [(limit, f"queue {owner} may never have more than {shown(key, limit)} (its limit)")]
            if limit != UNLIMITED
            else []
        )
        if capacity.nodes and (node or key == CPU):
            bounds.append((node, f"no node has more than {shown(key, node)} for jobs without GPUs"))
        bound, why = min(bounds, default=(UNLIMITED, ""))
        if bound != UNLIMITED and asked > bound:
            unit = "CPUs" if key == CPU else "of memory"
            name = "cpus" if key == CPU else "memory_bytes"
            option, given = ("cpus", shown(key, bound)) if key == CPU else ("memory", str(bound))
            raise _never(
                f"the job needs {shown(key, asked)} {unit} and {why}",
                None,
                f"The largest request that fits is {shown(key, bound)} {unit}: --{option} {shown(key, bound)} ({name}={given}).",
                {name: bound / 1000 if key == CPU else bound},
            )


def _never(why: str, gpu_milli: int | None, remedy: str, largest: dict[str, float] | None = None) -> Refused:
    facts = largest if largest is not None else {"gpus": (gpu_milli or 0) / 1000}
    return Refused("never_fits", f"NeverFits: {why}.", remedy, status=422, field="gpus", facts={"largest": facts})


def _n(milli: int) -> str:
    return f"{milli / 1000:g}"
