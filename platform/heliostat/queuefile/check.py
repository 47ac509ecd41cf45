"""From values to a QueueFile: every key, number and relation is checked, and all problems are reported together with their lines.

The format is documented in docs/queues.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from heliostat_scheduler.core.model import MEMORY, PRIORITY_CLASSES, UNLIMITED

from heliostat.queuefile.pools import Pool, pool
from heliostat.queuefile.reading import BadQueueFile, Problem, Value, number, read
from heliostat.queuefile.tree import DEFAULT_QUEUE, EVERYTHING, Queue, QueueFile, Rule

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
FLAVOR = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
ROLES = ("viewer", "member", "admin")
AMOUNT_KEYS = ("quota", "limit", "lending_limit", "user_limit")
QUEUE_KEYS = ("parent", *AMOUNT_KEYS, "weight", "priority", "rotate", "preemption_budget", "submit")
RULE_KEYS = ("project", "user", "role", "up_to")
BYTES = {
    "": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
SIZE = re.compile(r"([0-9.]+)\s*([KMGT]i?B|)")
MAX_AMOUNT = 10**15

DEFAULT_TEXT = """\
# One queue with the whole cluster. The format is described in docs/queues.md.
queues:
  default:
    quota: unlimited
"""


def parse(text: str) -> QueueFile:
    """The queue file that `text` is, or BadQueueFile with every problem and its line."""
    return Check().file(text)


def with_quotas(file: QueueFile, changes: Mapping[str, Mapping[str, int]]) -> QueueFile:
    """The file with other quotas (of known queues, by resource), or BadQueueFile with what is wrong between the queues then."""
    queues = dict(file.queues)
    for name, amounts in changes.items():
        queues[name] = replace(queues[name], quota={**queues[name].quota, **amounts})
    check = Check()
    check.sums(queues)
    if check.problems:
        raise BadQueueFile(sorted(check.problems, key=lambda problem: problem.line))
    return replace(file, queues=queues)


class Check:
    """One reading of a file, with all that is wrong in it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, text))

    def file(self, text: str) -> QueueFile:
        root = read(text)
        queues: dict[str, Queue] = {}
        pools: dict[str, Pool] = {}
        default = ""
        for key, value in self.entries(root, ("queues", "default", "nodes"), "the file"):
            if key == "default":
                default = self.word(value, "default")
            elif key == "nodes":
                pools = {
                    name: pool(self, name, item) for name, item in self.pairs(value, "nodes") if self.flavor(name, item)
                }
            else:
                queues = {name: self.queue(name, item) for name, item in self.pairs(value, "queues")}
        if not queues and not self.problems:
            self.wrong(root.line, "there is no queue; write at least: queues: {default: {quota: unlimited}}")
        self.tree(queues)
        if not self.problems:
            self.sums(queues)
        file = QueueFile(text, queues, default or _fallback(queues), pools)
        if not self.problems and default and default not in file.leaves():
            self.wrong(dict(root.entries or ())["default"].line, f"default: '{default}' is no queue without children")
        if self.problems:
            raise BadQueueFile(sorted(self.problems, key=lambda problem: problem.line))
        return file

    def queue(self, name: str, value: Value) -> Queue:
        if not NAME.fullmatch(name):
            self.wrong(value.line, f"queue name '{name}': lower-case letters, digits, '-', '_' and '.', at most 63")
        amounts: dict[str, Mapping[str, int]] = {}
        plain = {"parent": "", "weight": 1, "priority": 100, "rotate": True}
        rules: tuple[Rule, ...] | None = None
        entries = () if value.scalar == "" else self.entries(value, QUEUE_KEYS, f"queue {name}")
        for key, item in entries:
            where = f"{name}: {key}"
            if key in AMOUNT_KEYS:
                amounts[key] = self.amounts(item, where)
            elif key == "submit":
                rules = tuple(self.rule(entry, where) for entry in self.list(item, where))
            elif key == "parent":
                plain[key] = self.word(item, where)
            elif key == "rotate":
                plain[key] = self.one_of(item, where, {"true": True, "false": False})
            else:
                plain[key] = self.whole(item, where, (0, 1_000) if key == "priority" else (1, 1_000_000))
        return Queue(name, value.line, rules=rules, **amounts, **plain)  # type: ignore[arg-type]  # plain: checked by key above

    def rule(self, value: Value, where: str) -> Rule:
        found: dict[str, tuple[str, ...]] = {}
        up_to = "critical"
        for key, item in self.entries(value, RULE_KEYS, where):
            if key == "up_to":
                up_to = self.one_of(item, f"{where}: up_to", {name: name for name in PRIORITY_CLASSES})
            elif key == "role":
                found[key] = tuple(self.one_of(entry, f"{where}: role", {r: r for r in ROLES}) for entry in _many(item))
            else:
                found[key] = tuple(self.word(entry, f"{where}: {key}") for entry in _many(item))
        return Rule(value.line, up_to, found.get("project", ()), found.get("user", ()), found.get("role", ()))

    def amounts(self, value: Value, where: str) -> dict[str, int]:
        if value.scalar is not None:
            if value.scalar == "unlimited":
                return {EVERYTHING: UNLIMITED}
            self.wrong(value.line, f"{where}: write amounts by resource, for example {{gpu: 4, cpu: 8}}, or unlimited")
            return {}
        found = {}
        for key, item in self.pairs(value, where):
            self.flavor(key, item, f"{where}: ", ", cpu or memory")
            found[key] = self.amount(item, key, f"{where}: {key}")
        return found

    def flavor(self, name: str, value: Value, where: str = "nodes: ", or_else: str = "") -> bool:
        good = FLAVOR.fullmatch(name) is not None
        if not good:
            self.wrong(value.line, f"{where}'{name}' is no name of a flavor{or_else}")
        return good

    def amount(self, value: Value, key: str, where: str) -> int:
        text = value.scalar if value.scalar is not None else ""
        if text == "unlimited":
            return UNLIMITED
        size = SIZE.fullmatch(text) if key == MEMORY else None
        exact = number(size.group(1)) if size else number(text)
        factor = BYTES[size.group(2)] if size else (1 if key == MEMORY else 1000)
        result = None if exact is None else exact * factor
        if result is None or result < 0 or result != int(result) or result > MAX_AMOUNT:
            unit = "a size such as 64GiB" if key == MEMORY else "a number with at most three decimals, 0 or more"
            self.wrong(value.line, f"{where}: {value.kind()} is not {unit}, nor unlimited")
            return 0
        return int(result)

    def tree(self, queues: dict[str, Queue]) -> None:
        for queue in queues.values():
            if queue.parent and queue.parent not in queues:
                self.wrong(queue.line, f"{queue.name}: parent '{queue.parent}' is no queue of this file")
        if self.problems:
            return
        for queue in queues.values():
            seen = [queue.name]
            while (parent := queues[seen[-1]].parent) and parent not in seen:
                seen.append(parent)
            if parent == queue.name:
                self.wrong(queue.line, f"{queue.name}: is its own ancestor ({' -> '.join([*seen, parent])})")

    def sums(self, queues: dict[str, Queue]) -> None:
        file = QueueFile("", queues)
        for queue in queues.values():
            for key, quota in queue.quota.items():
                self.at_most(queue, f"quota of {key}", quota, "its own limit", file.bound(queue.name, key)[0], key)
            for key, lent in queue.lending_limit.items():
                self.at_most(
                    queue,
                    f"lending_limit of {key}",
                    lent,
                    "its quota",
                    queue.quota.get(key, queue.quota.get(EVERYTHING, 0)),
                    key,
                )
            for key, limit in queue.limit.items():
                above = file.bound(queue.parent, key)[0] if queue.parent else UNLIMITED
                self.at_most(queue, f"limit of {key}", limit, f"the limit of its parent {queue.parent}", above, key)
            self.children(file, queue)

    def children(self, file: QueueFile, queue: Queue) -> None:
        children = [child for child in file.queues.values() if child.parent == queue.name]
        if not children:
            return
        for key in sorted({key for child in children for key in child.quota} - {EVERYTHING}):
            parts = [file.quota_of(child.name, (key,)).get(key, 0) for child in children]
            total = UNLIMITED if UNLIMITED in parts else sum(parts)
            stated = queue.quota.get(key, queue.quota.get(EVERYTHING))
            told = f"sum of its children's quotas of {key}"
            if stated is not None:
                self.at_most(queue, told, total, "its own quota", stated, key)
            self.at_most(queue, told, total, "its limit", file.bound(queue.name, key)[0], key)

    def at_most(self, queue: Queue, what: str, amount: int, than: str, bound: int, key: str) -> None:
        if bound == UNLIMITED or (amount != UNLIMITED and amount <= bound):
            return
        self.wrong(queue.line, f"{queue.name}: {what} ({shown(key, amount)}) is above {than} ({shown(key, bound)})")

    # ---- shapes ---------------------------------------------------------------------------------------------------------

    def entries(self, value: Value, known: tuple[str, ...], where: str) -> Iterator[tuple[str, Value]]:
        for key, item in self.pairs(value, where):
            if key in known:
                yield key, item
            else:
                self.wrong(item.line, f"{where}: unknown key '{key}'; known: {', '.join(known)}")

    def pairs(self, value: Value, where: str) -> tuple[tuple[str, Value], ...]:
        if value.entries is None:
            self.wrong(value.line, f"{where}: expected a mapping (key: value), found {value.kind()}")
            return ()
        return value.entries

    def list(self, value: Value, where: str) -> tuple[Value, ...]:
        if value.items is None:
            self.wrong(value.line, f"{where}: expected a list, found {value.kind()}")
            return ()
        return value.items

    def word(self, value: Value, where: str) -> str:
        if not value.scalar:
            self.wrong(value.line, f"{where}: expected a word, found {value.kind()}")
        return value.scalar or ""

    def whole(self, value: Value, where: str, span: tuple[int, int]) -> int:
        found = number(value.scalar or "")
        if found is None or found != int(found) or not span[0] <= found <= span[1]:
            self.wrong(value.line, f"{where}: {value.kind()} is no whole number from {span[0]} to {span[1]}")
            return span[0]
        return int(found)

    def one_of(self, value: Value, where: str, known: Mapping[str, T]) -> T:
        if value.scalar is None or value.scalar not in known:
            self.wrong(value.line, f"{where}: {value.kind()} is none of {', '.join(known)}")
            return next(iter(known.values()))
        return known[value.scalar]


def shown(key: str, amount: int) -> str:
    """An amount as the file writes it."""
    if amount == UNLIMITED:
        return "unlimited"
    if key == MEMORY:
        unit = next((u for u in ("TiB", "GiB", "MiB", "KiB") if amount and amount % BYTES[u] == 0), "")
        return f"{amount // BYTES[unit]}{unit}"
    return f"{(Decimal(amount) / 1000).normalize():f}"


def _many(value: Value) -> tuple[Value, ...]:
    return value.items if value.items is not None else (value,)


def _fallback(queues: Mapping[str, Queue]) -> str:
    """Where submissions without a queue go when the file does not say: `default`, else the only leaf, else nowhere."""
    leaves = QueueFile("", queues).leaves()
    if DEFAULT_QUEUE in leaves:
        return DEFAULT_QUEUE
    return leaves[0] if len(leaves) == 1 else ""
