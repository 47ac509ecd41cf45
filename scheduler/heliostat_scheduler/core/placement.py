"""Where the tasks of a gang go: all of them at once, or nowhere.

Hard filters first (flavor, device memory, what one node can hold, a common label), then fewest nodes, then best fit, then the
smaller id. `find` changes nothing; it returns places grouped by node and sorted by device, or None.
"""

from __future__ import annotations

from collections.abc import Iterable

from heliostat_scheduler.core.model import TaskPlace, TaskShape
from heliostat_scheduler.core.space import WHOLE, NodeSpace, Space

ANY = "any"
ONE_NODE = "one_node"


def flavors_of(space: Space, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The flavors to try, in order: as the job lists them, or all of the cluster by name."""
    return wanted or tuple(sorted({node.flavor for node in space.nodes.values()}))


def find(
    space: Space,
    shape: TaskShape,
    count: int,
    flavors: tuple[str, ...],
    spread: str,
    near: frozenset[str] = frozenset(),
) -> tuple[TaskPlace, ...] | None:
    """Places for `count` tasks. `near`: nodes that already hold tasks of the job (kept together where it costs nothing)."""
    if count <= 0:
        return ()
    if count == 1 and space.chooser is not None and spread in (ANY, ONE_NODE) and not near:
        place = space.chooser.choose(space, shape, flavors)
        return None if place is None else (place,)
    if shape.gpu_milli == 0:
        nodes = [n for n in space.nodes.values() if n.opened and (not flavors or n.flavor in flavors)]
        return _find_in(nodes, shape, count, spread, near)
    for flavor in flavors or tuple(sorted(space.by_whole)):
        if space.free_milli.get(flavor, 0) < shape.gpu_milli * count:
            continue
        places = _find_flavor(space, flavor, shape, count, spread, near)
        if places is not None:
            return places
    return None


def _find_flavor(
    space: Space, flavor: str, shape: TaskShape, count: int, spread: str, near: frozenset[str]
) -> tuple[TaskPlace, ...] | None:
    if spread == ANY and shape.gpu_milli >= WHOLE:
        return _find_whole(space, flavor, shape, count, spread, near)
    if spread == ONE_NODE and shape.gpu_milli >= WHOLE and not near:
        return _find_whole(space, flavor, shape, count, spread)
    if shape.gpu_milli < WHOLE and count == 1 and spread in (ANY, ONE_NODE) and not near:
        return _find_fraction(space, flavor, shape)
    nodes = [n for n in space.nodes.values() if n.opened and n.flavor == flavor]
    return _find_in(nodes, shape, count, spread, near)


def _find_whole(
    space: Space, flavor: str, shape: TaskShape, count: int, spread: str, near: frozenset[str] = frozenset()
) -> tuple[TaskPlace, ...] | None:
    """Whole devices through the index: the tightest node that holds all, else the emptiest nodes first."""
    per_task = shape.gpu_milli // WHOLE
    rows = space.by_whole.get(flavor, [])
    chosen: list[tuple[NodeSpace, int]] = []
    used: set[str] = set()
    left = count
    for held in sorted(near & space.nodes.keys(), key=lambda node_id: (-space.nodes[node_id].room(shape), node_id)):
        room = min(left, space.nodes[held].room(shape))
        if room and space.nodes[held].flavor == flavor:
            chosen.append((space.nodes[held], room))
            left -= room
        used.add(held)
    while left:
        node = _tightest(space, rows, per_task, left, shape, used)
        if node is not None:
            chosen.append((node, left))
            break
        if spread == ONE_NODE:
            return None
        node = _emptiest(space, rows, per_task, shape, used)
        if node is None:
            return None
        room = node.room(shape)
        chosen.append((node, room))
        used.add(node.id)
        left -= room
    return _places(chosen, shape)


def _tightest(
    space: Space, rows: list[list[str]], per_task: int, count: int, shape: TaskShape, used: set[str]
) -> NodeSpace | None:
    for row in rows[per_task * count :]:
        for node_id in row:
            if node_id not in used and space.nodes[node_id].room(shape) >= count:
                return space.nodes[node_id]
    return None


def _emptiest(space: Space, rows: list[list[str]], per_task: int, shape: TaskShape, used: set[str]) -> NodeSpace | None:
    best: NodeSpace | None = None
    best_room = 0
    for whole in range(len(rows) - 1, per_task - 1, -1):
        if best_room >= whole // per_task:
            break
        for node_id in rows[whole]:
            if node_id in used:
                continue
            room = space.nodes[node_id].room(shape)
            if room > best_room:
                best, best_room = space.nodes[node_id], room
                if room == whole // per_task:
                    break
    return best


def _find_fraction(space: Space, flavor: str, shape: TaskShape) -> tuple[TaskPlace, ...] | None:
    """One fraction: the tightest shared device, else a whole device of the fullest node."""
    for _left, node_id, index in _from(space.partial.get(flavor, []), shape.gpu_milli):
        node = space.nodes[node_id]
        if node.room(shape):
            return (TaskPlace(node_id, (node.slots[index],)),)
    node_or_none = _tightest(space, space.by_whole.get(flavor, []), 1, 1, shape, set())
    return None if node_or_none is None else _places([(node_or_none, 1)], shape)


def _from(rows: list[tuple[int, str, int]], least: int) -> Iterable[tuple[int, str, int]]:
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        if rows[middle][0] < least:
            low = middle + 1
        else:
            high = middle
    return rows[low:]


def _find_in(
    nodes: list[NodeSpace], shape: TaskShape, count: int, spread: str, near: frozenset[str]
) -> tuple[TaskPlace, ...] | None:
    """The general way: count the room of every node, then pack."""
    rooms = [(node, node.room(shape)) for node in nodes]
    rooms = [(node, room) for node, room in rooms if room > 0]
    if spread == ANY:
        return _pack(rooms, shape, count, near)
    if spread == ONE_NODE:
        fits = [(node, room) for node, room in rooms if room >= count and (not near or node.id in near)]
        return _pack(fits, shape, count, near)
    domains: dict[str, list[tuple[NodeSpace, int]]] = {}
    for node, room in rooms:
        value = dict(node.spec.labels).get(spread)
        if value is not None:
            domains.setdefault(value, []).append((node, room))
    held = {dict(node.spec.labels).get(spread) for node in nodes if node.id in near}
    fitting = sorted(
        (sum(room for _, room in members), value)
        for value, members in domains.items()
        if (not near or value in held) and sum(room for _, room in members) >= count
    )
    return _pack(domains[fitting[0][1]], shape, count, near) if fitting else None


def _pack(
    rooms: list[tuple[NodeSpace, int]], shape: TaskShape, count: int, near: frozenset[str]
) -> tuple[TaskPlace, ...] | None:
    """Nodes already used first, then the tightest node that takes the rest, else the roomiest."""
    if sum(room for _, room in rooms) < count:
        return None
    chosen: list[tuple[NodeSpace, int]] = []
    left = count
    todo = sorted(rooms, key=lambda item: (item[0].id not in near, -item[1], item[0].id))
    while left:
        whole = [item for item in todo if item[1] >= left]
        pick = min(whole, key=lambda item: _tight_key(item, shape, near)) if whole else todo[0]
        todo.remove(pick)
        chosen.append((pick[0], min(left, pick[1])))
        left -= min(left, pick[1])
    return _places(chosen, shape)


def _tight_key(item: tuple[NodeSpace, int], shape: TaskShape, near: frozenset[str]) -> tuple[bool, int, int, str]:
    node, room = item
    free = node.cpu if shape.gpu_milli == 0 else sum(max(0, left) for left in node.free)
    return (node.id not in near, min(room, 1_000), free, node.id)


def _places(chosen: list[tuple[NodeSpace, int]], shape: TaskShape) -> tuple[TaskPlace, ...]:
    places: list[TaskPlace] = []
    for node, count in sorted(chosen, key=lambda item: item[0].id):
        places += _on_node(node, shape, count)
    return tuple(places)


def _on_node(node: NodeSpace, shape: TaskShape, count: int) -> list[TaskPlace]:
    if shape.gpu_milli == 0:
        return [TaskPlace(node.id)] * count
    if shape.gpu_milli >= WHOLE:
        whole = [slot for slot, left in zip(node.slots, node.free, strict=True) if left >= WHOLE]
        per_task = shape.gpu_milli // WHOLE
        return [TaskPlace(node.id, tuple(whole[i * per_task : (i + 1) * per_task])) for i in range(count)]
    free = node.free.copy()
    picked: list[int] = []
    for _ in range(count):
        index = min((i for i, left in enumerate(free) if left >= shape.gpu_milli), key=lambda i: (free[i], i))
        free[index] -= shape.gpu_milli
        picked.append(index)
    return [TaskPlace(node.id, (node.slots[index],)) for index in sorted(picked)]


def canonical(space: Space, places: Iterable[TaskPlace]) -> tuple[TaskPlace, ...]:
    """Places grouped by node and sorted by device."""
    at = space.slot_at
    return tuple(sorted(places, key=lambda p: (p.node, tuple(at.get(s, 0) for s in p.slots), p.slots)))


def largest(space: Space, shape: TaskShape, flavors: tuple[str, ...], spread: str) -> int:
    """The largest gang of this shape that fits (0 when not even one task does)."""
    best = 0
    if shape.gpu_milli == 0:
        groups = [[n for n in space.nodes.values() if n.opened and (not flavors or n.flavor in flavors)]]
    else:
        names = flavors or tuple(sorted(space.by_whole))
        groups = [[n for n in space.nodes.values() if n.opened and n.flavor == flavor] for flavor in names]
    for nodes in groups:
        sums: dict[str, int] = {}
        for node in nodes:
            domain = ANY if spread == ANY else node.id if spread == ONE_NODE else dict(node.spec.labels).get(spread)
            if domain is not None:
                sums[domain] = sums.get(domain, 0) + node.room(shape)
        best = max([best, *sums.values()])
    return best


def compact(
    space: Space, flavor: str, shape: TaskShape, count: int, own: tuple[TaskPlace, ...], spread: str
) -> tuple[TaskPlace, ...] | None:
    """`count` whole-device tasks on as few nodes as any placement of that size could use; `own` places are kept where possible.

    One node if one can hold them all, else nodes that are entirely free and one for the rest. Of several domains the job's own first.
    """
    nodes = [node for node in space.nodes.values() if node.opened and node.flavor == flavor and node.slots]
    if spread in (ANY, ONE_NODE):
        return _compact_in(space, nodes, shape, count, own, spread)
    values = {node.id: dict(node.spec.labels).get(spread) for node in nodes}
    home = {values.get(place.node) for place in own}
    for domain in sorted({value for value in values.values() if value}, key=lambda value: (value not in home, value)):
        members = [node for node in nodes if values[node.id] == domain]
        places = _compact_in(space, members, shape, count, own, spread)
        if places is not None:
            return places
    return None


def _compact_in(
    space: Space, nodes: list[NodeSpace], shape: TaskShape, count: int, own: tuple[TaskPlace, ...], spread: str
) -> tuple[TaskPlace, ...] | None:
    per_task = shape.gpu_milli // WHOLE
    per_node = max((len(node.slots) // per_task for node in nodes), default=0)
    if not per_node or (spread == ONE_NODE and count > per_node):
        return None
    mine: dict[str, list[TaskPlace]] = {}
    for place in own:
        mine.setdefault(place.node, []).append(place)
    whole, rest = divmod(count, per_node) if count > per_node else (0, count)
    ranked = sorted(
        ((node, node.room(shape)) for node in nodes), key=lambda item: (item[0].id not in mine, item[1], item[0].id)
    )
    full = [node for node, room in ranked if room >= per_node][:whole]
    if len(full) < whole:
        return None
    chosen = [(node, per_node) for node in full]
    if rest:
        last = next((node for node, room in ranked if room >= rest and node not in full), None)
        if last is None:
            return None
        chosen.append((last, rest))
    places: list[TaskPlace] = []
    for node, tasks in sorted(chosen, key=lambda item: item[0].id):
        kept = mine.get(node.id, [])[:tasks]
        taken = {slot for place in kept for slot in place.slots}
        left = [slot for slot, free in zip(node.slots, node.free, strict=True) if free >= WHOLE and slot not in taken]
        more = [TaskPlace(node.id, tuple(left[i * per_task : (i + 1) * per_task])) for i in range(tasks - len(kept))]
        places += kept + more
    return canonical(space, places)
