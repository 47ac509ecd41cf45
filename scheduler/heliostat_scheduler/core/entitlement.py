"""How much of each resource every queue may call its own right now.

Top-down the tree, one resource at a time: each child gets `min(quota, what it wants)`; quotas that sum above what there is are
scaled in proportion (and an alarm says so). The surplus goes to the bands of queue priority, highest first; inside a band it is
filled like water: in proportion to weight, nobody above what it wants or its limit.

GPU shares are rounded to whole devices. What of a remainder somebody holds stays with the holder, so that shares do not flap and nobody
is displaced for a remainder; what nobody holds goes to the queue with the least decayed use (idle debt included) for its exact share.
A device that a job gives back thus goes to whoever is owed it, and what cannot be divided goes round.

The sum of the children never exceeds the parent. Integers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat_scheduler.core.model import MEMORY, UNLIMITED
from heliostat_scheduler.core.tree import QueueNode, QueueTree

UNIT = 1000


@dataclass(slots=True)
class _Share:
    node: QueueNode
    weight: int
    cap: int
    base: int
    kept: int
    got: int = 0
    whole: int = 0


def entitle(tree: QueueTree, capacity: dict[str, int], whole_devices: bool, strength_milli: int) -> list[str]:
    """Set `entitled` of every queue for every resource key; return the alarms. strength_milli: pull of decayed usage on weights."""
    alarms: list[str] = []
    for key in sorted(capacity):
        if not tree.root.want.get(key) and not tree.root.entitled.get(key):
            continue
        tree.root.entitled[key] = capacity[key] if tree.root.want.get(key) else 0
        _divide(tree.root, key, capacity, whole_devices and key != MEMORY, strength_milli, alarms)
    return alarms


def _divide(
    parent: QueueNode, key: str, capacity: dict[str, int], whole: bool, strength: int, alarms: list[str]
) -> None:
    total = parent.entitled.get(key, 0)
    shares = [_share(child, key, capacity, total, parent, strength) for child in parent.children]
    promised = sum(share.node.quota_of(key, 0) for share in shares)
    if promised > capacity.get(key, 0) and parent.name == "":
        alarms.append(
            f"quotas of {key} sum to {promised}, the cluster has {capacity.get(key, 0)}: scaled in proportion"
        )
    if sum(share.base for share in shares) > total:
        _scale(shares, key, capacity, total)
    for share in shares:
        share.got = share.base
    surplus = total - sum(max(share.base, share.kept) for share in shares)
    for priority in sorted({share.node.spec.priority for share in shares}, reverse=True):
        band = [share for share in shares if share.node.spec.priority == priority]
        surplus -= _fill(band, max(0, surplus))
    if whole:
        _round(shares, key, lambda node, share: _above(node, key, capacity, strength, share))
    for share in shares:
        share.node.entitled[key] = share.got
        share.node.secured[key] = min(share.got, share.node.quota_of(key, capacity.get(key, 0)))
        if share.node.children:
            _divide(share.node, key, capacity, whole, strength, alarms)


def _share(node: QueueNode, key: str, capacity: dict[str, int], total: int, parent: QueueNode, strength: int) -> _Share:
    want = node.want.get(key, 0)
    quota = node.quota_of(key, capacity.get(key, 0))
    cap = min(want, node.limit.get(key, want))
    lend = node.lend.get(key, UNLIMITED)
    kept = max(0, quota - lend) if lend != UNLIMITED else 0
    weight = node.spec.weight * UNIT
    if strength and weight:
        used = sum(child.pull.get(key, 0) for child in parent.children)
        weights = sum(
            child.spec.weight for child in parent.children if child.want.get(key, 0) or child.pull.get(key, 0)
        )
        if used and weights:
            fair = node.spec.weight * UNIT // weights
            taken = node.pull.get(key, 0) * UNIT // used
            weight = max(0, weight + strength * (fair - taken) * node.spec.weight // UNIT)
    return _Share(node, weight, cap, min(quota, cap), min(kept, total))


def _scale(shares: list[_Share], key: str, capacity: dict[str, int], total: int) -> None:
    """Guarantees above what there is: in proportion to quota, what one cannot use goes to the others."""
    left = total
    todo = [share for share in shares if share.base > 0]
    for share in shares:
        share.base = 0
    wants = {share.node.name: min(share.node.quota_of(key, capacity.get(key, 0)), share.cap) for share in todo}
    while todo and left > 0:
        quotas = sum(share.node.quota_of(key, capacity.get(key, 0)) for share in todo)
        given = 0
        for share in todo:
            part = left * share.node.quota_of(key, capacity.get(key, 0)) // quotas
            part = min(part, wants[share.node.name] - share.base)
            share.base += part
            given += part
        todo = [share for share in todo if share.base < wants[share.node.name]]
        left -= given
        if given == 0:
            for share in sorted(todo, key=lambda s: (-s.node.quota_of(key, capacity.get(key, 0)), s.node.rank)):
                part = min(left, wants[share.node.name] - share.base)
                share.base += part
                left -= part
            break


def _fill(band: list[_Share], surplus: int) -> int:
    """Water-filling by weight; returns what was given."""
    given_in_all = 0
    todo = [share for share in band if share.weight > 0 and share.got < share.cap]
    while todo and surplus > 0:
        weights = sum(share.weight for share in todo)
        level = min((share.cap - share.got) * weights // share.weight for share in todo)
        pour = min(surplus, max(level, 0))
        given = 0
        for share in todo:
            part = min(pour * share.weight // weights, share.cap - share.got)
            share.got += part
            given += part
        if given == 0:
            share = max(todo, key=lambda s: (s.weight, -s.node.rank))
            part = min(surplus, share.cap - share.got)
            share.got += part
            given = part
        surplus -= given
        given_in_all += given
        todo = [share for share in todo if share.got < share.cap]
    return given_in_all


def _round(shares: list[_Share], key: str, above: Callable[[QueueNode, int], int]) -> None:
    """Whole devices: the remainders of the shares that are not at their cap, first to who holds them, then to who is owed most.

    above: how much the queue would hold above this share of it.
    """
    loose = [share for share in shares if share.got < share.cap and share.got % UNIT]
    if len(loose) < 2:
        return
    holders, owed, pool = [], [], 0
    for share in loose:
        exact, share.whole = share.got, share.got - share.got % UNIT
        last = (share.whole - exact, -share.node.spec.priority, share.node.rank)
        held = min(UNIT, above(share.node, share.whole))
        if held > 0:
            holders.append((-held, last, share))
        owed.append((share.node.usage.get(key, 0) * UNIT // exact, last, share))
        share.got = share.whole
        pool += exact - share.whole
    for held, _, share in sorted(holders, key=lambda row: row[:2]):
        part = min(-held, pool, share.cap - share.got)
        share.got += part
        pool -= part
    for _, _, share in sorted(owed, key=lambda row: row[:2]):
        part = min(share.whole + UNIT - share.got, pool, share.cap - share.got)
        share.got += part
        pool -= part


def _above(node: QueueNode, key: str, capacity: dict[str, int], strength: int, share: int) -> int:
    """What the queue holds above `share`: if it has queues below it, what they hold above what `share` would give them."""
    if node.children:
        node.entitled[key] = share
        _divide(node, key, capacity, True, strength, [])
        return sum(_excess(child, key) for child in node.children)
    return node.plan.get(key, 0) - share


def _excess(node: QueueNode, key: str) -> int:
    if node.children:
        return sum(_excess(child, key) for child in node.children)
    return max(0, node.plan.get(key, 0) - node.entitled.get(key, 0))
