"""What a new queue file would change, queue by queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from heliostat_scheduler.core.model import UNLIMITED

from heliostat.queuefile.check import AMOUNT_KEYS, shown
from heliostat.queuefile.tree import EVERYTHING, Queue, QueueFile


@dataclass(frozen=True, slots=True)
class Change:
    """`what`: added, removed or changed. For changed: the field with its old and new value as the file writes them."""

    queue: str
    what: str
    field: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        if self.what != "changed":
            return f"{'+' if self.what == 'added' else '-'} {self.queue}"
        return f"~ {self.queue}: {self.field} {self.old or '-'} -> {self.new or '-'}"


def diff(old: QueueFile, new: QueueFile) -> list[Change]:
    """All changes, in the order of the names."""
    queues = [change for name in sorted({*old.queues, *new.queues}) for change in _queue(name, old, new)]
    pools = [change for flavor in sorted({*old.pools, *new.pools}) for change in _pool(flavor, old, new)]
    return queues + pools + _default(old, new)


def _pool(flavor: str, old: QueueFile, new: QueueFile) -> Iterator[Change]:
    before, after, name = old.pools.get(flavor), new.pools.get(flavor), f"nodes.{flavor}"
    if before is None or after is None:
        yield Change(name, "removed" if after is None else "added")
        return
    was, now = asdict(before), asdict(after)
    for key in sorted(was.keys() - {"line", "flavor"}):
        if was[key] != now[key]:
            yield Change(name, "changed", key, str(was[key]), str(now[key]))


def _queue(name: str, old: QueueFile, new: QueueFile) -> Iterator[Change]:
    before, after = old.queues.get(name), new.queues.get(name)
    if before is None:
        yield Change(name, "added")
        before = Queue(name)
    if after is None:
        yield Change(name, "removed")
        return
    was, now = _fields(before), _fields(after)
    for key in sorted({*was, *now}):
        if was.get(key, "") != now.get(key, ""):
            yield Change(name, "changed", key, was.get(key, ""), now.get(key, ""))


def _fields(queue: Queue) -> dict[str, str]:
    fields = {
        "parent": queue.parent,
        "weight": str(queue.weight),
        "priority": str(queue.priority),
        "rotate": str(queue.rotate).lower(),
        "submit": "everybody" if queue.rules is None else "; ".join(map(str, queue.rules)) or "nobody",
    }
    if queue.preemption_budget != UNLIMITED:
        fields["preemption_budget"] = str(queue.preemption_budget)
    for name in AMOUNT_KEYS:
        amounts: Mapping[str, int] = getattr(queue, name)
        for key, amount in amounts.items():
            fields[name if key == EVERYTHING else f"{name}.{key}"] = shown(key, amount)
    return fields


def _default(old: QueueFile, new: QueueFile) -> list[Change]:
    if old.default == new.default:
        return []
    return [Change("(file)", "changed", "default", old.default, new.default)]
