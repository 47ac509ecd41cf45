"""From YAML text to values that remember their lines. Knows YAML, not queues.

Works on PyYAML's node graph (`compose`) instead of its objects: nodes carry line numbers, show duplicate keys, and never run
constructors.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import yaml

MAX_CHARS = 262_144


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the file. `line` counts from 1."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class BadQueueFile(Exception):
    """The file cannot be used; `problems` lists everything that was found, in order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Value:
    """A YAML node: exactly one of `scalar`, `items`, `entries` is not None. `line` counts from 1."""

    line: int
    scalar: str | None = None
    quoted: bool = False
    items: tuple[Value, ...] | None = None
    entries: tuple[tuple[str, Value], ...] | None = None

    def kind(self) -> str:
        if self.scalar is not None:
            return f"'{self.scalar}'"
        return "a list" if self.items is not None else "a mapping"


def read(text: str) -> Value:
    """The document's root. Raises BadQueueFile where it is no YAML, has duplicate keys or uses aliases."""
    if len(text) > MAX_CHARS:
        raise BadQueueFile([Problem(1, f"the file has more than {MAX_CHARS} characters")])
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise BadQueueFile([Problem(1, "YAML aliases (*name) are not allowed here")])
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadQueueFile([Problem(mark.line + 1 if mark else 1, f"not valid YAML: {what}")]) from error
    except RecursionError as error:
        raise BadQueueFile([Problem(1, "nested too deeply")]) from error
    if root is None:
        return Value(1, entries=())
    problems: list[Problem] = []
    value = _value(root, problems)
    if problems:
        raise BadQueueFile(problems)
    return value


def _value(node: yaml.Node, problems: list[Problem]) -> Value:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return Value(line, scalar=str(node.value), quoted=node.style is not None)
    if isinstance(node, yaml.SequenceNode):
        return Value(line, items=tuple(_value(item, problems) for item in node.value))
    entries: dict[str, Value] = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(key.start_mark.line + 1, "a key must be a word"))
            continue
        value = _value(item, problems)
        if key.value in entries:
            problems.append(
                Problem(
                    key.start_mark.line + 1, f"'{key.value}' is here twice (first in line {entries[key.value].line})"
                )
            )
        entries[key.value] = Value(key.start_mark.line + 1, value.scalar, value.quoted, value.items, value.entries)
    return Value(line, entries=tuple(entries.items()))


def number(text: str) -> Decimal | None:
    """A plain decimal number, or None."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
