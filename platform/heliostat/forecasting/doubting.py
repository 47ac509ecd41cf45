"""Whether what a what-if asks for could be put in force: its quotas are checked and doubted by the code of `helio queue apply`."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat_scheduler.core.model import CPU, MEMORY

from heliostat.forecasting.edits import DEFAULT_GPUS, NODES, QUOTA
from heliostat.queuefile import QueueFile, doubts, with_quotas
from heliostat.submission import Capacity


def quota_doubts(
    quotas: Sequence[str], nodes: Sequence[str], base: QueueFile, in_force: QueueFile, capacity: Capacity
) -> list[str]:
    """Warnings about `base` with these quotas on the cluster with these nodes, but for those that hold today.

    BadQueueFile where it would be refused. What cannot be read, or names no queue, is left to those who carry it out.
    """
    have = capacity.amounts()
    coming = dict(have)
    for text in nodes:
        if match := NODES.match(text):
            gpus = int(match["count"]) * int(match["gpus"] or DEFAULT_GPUS)
            coming[match["flavor"]] = coming.get(match["flavor"], 0) + 1000 * gpus
    flavors = tuple(sorted({*capacity.flavors, *coming} - {CPU, MEMORY}))
    changes: dict[str, dict[str, int]] = {}
    for text in quotas:
        match = QUOTA.match(text)
        if match is None or match["queue"] not in base.queues:
            continue
        flavor = match["flavor"] or _only(base, match["queue"], flavors)
        if flavor:
            changes.setdefault(match["queue"], {})[flavor] = round(1000 * float(match["gpus"]))
    today = doubts(in_force, have)
    return [text for text in doubts(with_quotas(base, changes), coming) if text not in today]


def _only(file: QueueFile, queue: str, flavors: tuple[str, ...]) -> str:
    """The flavor that a quota without one means: the only one the queue has a quota of, else the only one there is."""
    own = next(spec for spec in file.to_core(flavors) if spec.name == queue)
    named = [key for key, _ in own.quota if key not in (CPU, MEMORY)] or list(flavors)
    return named[0] if len(named) == 1 else ""
