"""What a valid file promises that the cluster cannot keep: warnings, not errors, for nodes come and go.

`have` is what the whole cluster has by key (flavors and `cpu` in milli-units, `memory` in bytes), nodes that can be had included. Where
the guarantees of siblings sum above it, the scheduler scales them in proportion. A parent with a quota of its own never
has children above it (the file is refused); under one that is `unlimited` the children are compared with the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping

from heliostat_scheduler.core.model import CPU, MEMORY, UNLIMITED

from heliostat.queuefile.check import shown
from heliostat.queuefile.tree import EVERYTHING, QueueFile


def doubts(file: QueueFile, have: Mapping[str, int]) -> list[str]:
    """What is legal but surely not meant, in words; nothing while no node is known."""
    return [*_unknown_flavors(file, have), *oversold(file, have)] if have else []


def _unknown_flavors(file: QueueFile, have: Mapping[str, int]) -> list[str]:
    known = {*have, *file.pools, CPU, MEMORY, EVERYTHING}
    named = {
        (queue.name, key)
        for queue in file.queues.values()
        for part in (queue.quota, queue.limit, queue.lending_limit, queue.user_limit)
        for key in part
    }
    return [f"{queue}: flavor {key} is on no node of this cluster" for queue, key in sorted(named) if key not in known]


def oversold(file: QueueFile, have: Mapping[str, int]) -> list[str]:
    """Guarantees of siblings that sum above what there is."""
    parents = ["", *(name for name in file.queues if name not in file.leaves())]
    told = []
    for parent in parents:
        children = [name for name, queue in file.queues.items() if queue.parent == parent]
        for key, amount in sorted(have.items()):
            if parent and file.quota_of(parent, (key,)).get(key) != UNLIMITED:
                continue  # its own quota is above theirs, or theirs count for it among its siblings
            parts = {name: file.quota_of(name, (key,)).get(key, 0) for name in children}
            total = sum(amount if part == UNLIMITED else part for part in parts.values())
            if total > amount:
                who = ", ".join(f"{name} {shown(key, part)}" for name, part in parts.items() if part)
                told.append(
                    f"quotas of {key} sum to {shown(key, total)} ({who}), the cluster has {shown(key, amount)}: "
                    "they are scaled in proportion when all ask"
                )
    return told
