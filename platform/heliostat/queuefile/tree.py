"""What a queue file says, after validation: queues, their numbers, and who may submit to which up to which priority.

Amounts are the core's integers: flavors and `cpu` in milli-units, `memory` in bytes, -1 for no bound. The key `*` stands for
every resource that is not named; `to_core` spells it out for the flavors that the cluster has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliostat_scheduler.core.model import CPU, MEMORY, PRIORITY_CLASSES, UNLIMITED, Amounts, NodePool, QueueSpec

from heliostat.queuefile.pools import Pool

EVERYTHING = "*"
DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may submit, up to which class. Empty tuples: no condition; a rule without any is about everybody."""

    line: int
    up_to: str
    projects: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def covers(self, project: str, user: str, role: str) -> bool:
        asked = ((self.projects, project), (self.users, user), (self.roles, role))
        return all(not wanted or value in wanted for wanted, value in asked)

    def __str__(self) -> str:
        named = (("project", self.projects), ("user", self.users), ("role", self.roles))
        who = " and ".join(f"{kind} {' or '.join(names)}" for kind, names in named if names)
        return f"{who or 'everybody'} up to {self.up_to}"


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue as written; `line` is where it stands in the file. rules None: as the parent's; at the top: everybody."""

    name: str
    line: int = 1
    parent: str = ""
    quota: Mapping[str, int] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    lending_limit: Mapping[str, int] = field(default_factory=dict)
    user_limit: Mapping[str, int] = field(default_factory=dict)
    weight: int = 1
    priority: int = 100
    rotate: bool = True
    preemption_budget: int = UNLIMITED
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a submission is refused: `what` is queue or priority, `rule` the words of the file with their line."""

    what: str
    text: str
    rule: str
    remedy: str


@dataclass(frozen=True)
class QueueFile:
    """A valid queue file: its text and what it means. `default`: where submissions go that name no queue ("": they must)."""

    text: str
    queues: Mapping[str, Queue]
    default: str = DEFAULT_QUEUE
    pools: Mapping[str, Pool] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    def leaves(self) -> tuple[str, ...]:
        parents = {queue.parent for queue in self.queues.values()}
        return tuple(name for name in self.queues if name not in parents)

    def line_to_top(self, name: str) -> tuple[Queue, ...]:
        """The queue and its ancestors, the queue itself first."""
        path = [self.queues[name]]
        while path[-1].parent:
            path.append(self.queues[path[-1].parent])
        return tuple(path)

    def rules(self, name: str) -> tuple[Rule, ...] | None:
        """The rules that hold for a queue: its own, else the nearest ancestor's; None: no rule anywhere."""
        return next((queue.rules for queue in self.line_to_top(name) if queue.rules is not None), None)

    def denied(self, name: str, *, project: str, user: str, role: str, priority: int) -> Denied | None:
        """None when this principal may submit to the queue at this priority."""
        rules = self.rules(name)
        if rules is None:
            return None
        mine = [rule for rule in rules if rule.covers(project, user, role)]
        if not mine:
            told = "; ".join(str(rule) for rule in rules) or "nobody"
            return Denied(
                "queue",
                f"Queue {name} is not open to user {user} of project {project} ({role}).",
                f"queues.yaml{_line(rules)}: submit: {told}",
                f"Submit to another queue ({', '.join(self.open_to(project, user, role)) or 'none is open to you'}), "
                f"or ask an administrator for a rule in queues.yaml.",
            )
        best = max(mine, key=lambda rule: PRIORITY_CLASSES[rule.up_to])
        if priority <= PRIORITY_CLASSES[best.up_to]:
            return None
        return Denied(
            "priority",
            f"Priority {class_of(priority)} ({priority}) is above what user {user} of project {project} may use in queue {name}.",
            f"queues.yaml line {best.line}: submit: {best}",
            f"Submit with priority {best.up_to} or lower.",
        )

    def open_to(self, project: str, user: str, role: str) -> tuple[str, ...]:
        """The leaves that this principal may submit to at some priority."""
        return tuple(
            name
            for name in self.leaves()
            if (rules := self.rules(name)) is None or any(rule.covers(project, user, role) for rule in rules)
        )

    def bound(self, name: str, key: str) -> tuple[int, str]:
        """(hard bound for one resource on the way to the top, the queue that sets it); (-1, "") when there is none."""
        found = [
            (amount, queue.name)
            for queue in self.line_to_top(name)
            if (amount := _amount(queue.limit, key)) is not None and amount != UNLIMITED
        ]
        return min(found) if found else (UNLIMITED, "")

    def node_pools(self) -> tuple[NodePool, ...]:
        """The nodes that can be had, as the engine takes them."""
        return tuple(self.pools[flavor].to_core() for flavor in sorted(self.pools))

    def to_core(self, flavors: Iterable[str] = ()) -> tuple[QueueSpec, ...]:
        """The queues as the engine takes them, parents first. `flavors`: what the cluster has; `*` is spelled out for these.

        A parent without a quota of its own guarantees what its children are guaranteed.
        """
        keys = sorted({CPU, MEMORY, *flavors, *self.pools, *self._named()})
        ordered = sorted(self.queues.values(), key=lambda queue: (len(self.line_to_top(queue.name)), queue.name))
        return tuple(
            QueueSpec(
                name=queue.name,
                parent=queue.parent,
                quota=_spelled(self.quota_of(queue.name, keys), keys),
                limit=_spelled(queue.limit, keys),
                lending_limit=_spelled(queue.lending_limit, keys),
                weight=queue.weight,
                priority=queue.priority,
                rotate=queue.rotate,
                user_limit=_spelled(queue.user_limit, keys),
                preemption_budget=queue.preemption_budget,
            )
            for queue in ordered
        )

    def quota_of(self, name: str, keys: Iterable[str]) -> dict[str, int]:
        """A queue's guaranteed amounts; where it states none, the sum of its children's. `unlimited` ends at the hard limit."""
        own = self.queues[name].quota
        children = [queue.name for queue in self.queues.values() if queue.parent == name]
        quota: dict[str, int] = {}
        for key in keys:
            stated = _amount(own, key)
            parts = [self.quota_of(child, (key,)).get(key, 0) for child in children] if stated is None else [stated]
            quota[key] = self.bound(name, key)[0] if UNLIMITED in parts else sum(parts)
        return {key: amount for key, amount in quota.items() if amount}

    def _named(self) -> set[str]:
        groups = (part for q in self.queues.values() for part in (q.quota, q.limit, q.lending_limit, q.user_limit))
        return {key for amounts in groups for key in amounts} - {EVERYTHING}


def class_of(priority: int) -> str:
    """The class that a number belongs to: the highest that is not above it."""
    below = [name for name, value in PRIORITY_CLASSES.items() if value <= priority]
    return (
        max(below, key=lambda name: PRIORITY_CLASSES[name])
        if below
        else min(PRIORITY_CLASSES, key=lambda n: PRIORITY_CLASSES[n])
    )


def _line(rules: tuple[Rule, ...]) -> str:
    return f" line {rules[0].line}" if rules else ""


def _amount(amounts: Mapping[str, int], key: str) -> int | None:
    return amounts.get(key, amounts.get(EVERYTHING))


def _spelled(amounts: Mapping[str, int], keys: list[str]) -> Amounts:
    return tuple((key, value) for key in keys if (value := _amount(amounts, key)) is not None)
