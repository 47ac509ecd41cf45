"""Columns that line up. Plain text: it goes through pipes, `grep` and `column` as it is, and costs no import."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

GAP = "  "


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset(), width: int = 0
) -> str:
    """Rows under their heads, two spaces apart. The last column is never padded, and cut to `width` when that is given."""
    lines = [list(head), *[[_one_line(cell) for cell in row] for row in rows]]
    widths = [max(_columns(line[index]) for line in lines) for index in range(len(head))]
    return "\n".join(_line(line, widths, [name in right for name in head], width) for line in lines)


def pairs(items: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """`name  value` lines with the values under each other."""
    widest = max((len(name) for name, _ in items), default=0)
    return "\n".join(f"{indent}{name:<{widest}}  {value}".rstrip() for name, value in items)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], width: int) -> str:
    padded = []
    for index, cell in enumerate(cells):
        fill = " " * (widths[index] - _columns(cell))
        last = index == len(cells) - 1
        padded.append(fill + cell if right[index] else cell if last else cell + fill)
    line = GAP.join(padded).rstrip()
    return line if not width or _columns(line) <= width else _cut(line, width - 1) + "…"


def _cut(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _columns(char)
        if used > width:
            return text[:index]
    return text


def _one_line(text: str) -> str:
    """User text (names, errors) cannot break the table or send control sequences to the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _columns(text: str) -> int:
    """Terminal columns of a text: wide East Asian characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
