"""Reading trace tables: CSV, plain or gzipped, checked once at the door.

Everything a user can get wrong (no such file, a missing column, a cell that is not a number) becomes one `BadInput` that
names the file, the line and the column. Nothing behind this module meets a malformed row.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path


class BadInput(Exception):
    """The trace or the command line is wrong; the message says where and what to do."""


Row = dict[str, str]
GZIP = b"\x1f\x8b"
"""How a gzipped file begins, whatever its name."""


def read_rows(path: Path, required: Iterable[str]) -> list[Row]:
    """All rows of a CSV table. Cells are strings: ids like 6214e9 parse as numbers, so no cell is converted here."""
    return [row for _, row in numbered_rows(path, required)]


def numbered_rows(path: Path, required: Iterable[str]) -> list[tuple[int, Row]]:
    """The same, each row with its line in the file."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        rows = list(_rows(path, required))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a readable CSV table: byte {error.start} is no UTF-8 text") from error
    except (OSError, csv.Error, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: not a readable CSV table: {error}") from error
    if not rows:
        raise BadInput(f"{path}: the table has no rows")
    return rows


def _rows(path: Path, required: Iterable[str]) -> Iterator[tuple[int, Row]]:
    """A quote that is not closed would swallow the rows behind it, so no cell goes over several lines."""
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = gzip.decompress(content)
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    names: list[str] = []
    while (line := lines.line_num + 1) and (cells := _next(lines, f"{path}, line {line}")) is not None:
        if not cells:
            continue
        if lines.line_num > line:
            raise BadInput(f"{path}, line {line}: a cell goes on to line {lines.line_num}; is a quote missing?")
        if not names:
            names = cells
            check_columns(path, names, required)
            continue
        if any(cells[len(names) :]):
            raise BadInput(f"{path}, line {line}: {len(cells)} cells under {len(names)} columns")
        yield line, dict(zip(names, cells, strict=False))


def _next(lines: Iterator[list[str]], where: str) -> list[str] | None:
    try:
        return next(lines, None)
    except csv.Error as error:
        raise BadInput(f"{where}: {error}; is a quote missing?") from error


def check_columns(path: Path, names: list[str], required: Iterable[str]) -> None:
    """Every required column, and no name twice."""
    missing = [column for column in required if column not in names]
    if missing:
        hint = "" if len(names) > 1 else " (columns are separated by commas)"
        raise BadInput(f"{path}: column {', '.join(missing)} is missing; found {', '.join(names)}{hint}")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: column {', '.join(twice)} is there twice")


def number(row: Row, column: str, where: str, least: float = 0) -> float:
    """A finite number >= least, or BadInput. A Parquet row lacks the columns that are null in it."""
    cell = row.get(column)
    try:
        value = float("" if cell is None or "_" in cell else cell)  # Python reads 1_0 as ten
    except ValueError:
        raise BadInput(f"{where}: column {column} holds {cell!r}, not a number") from None
    if not least <= value < float("inf"):
        limit = f" >= {least:g}" if least > float("-inf") else ""
        raise BadInput(f"{where}: column {column} holds {value:g}, which is not a finite number{limit}")
    return value


def whole(row: Row, column: str, where: str, least: int = 0) -> int:
    """An integer >= least, or BadInput."""
    value = number(row, column, where)
    if value != int(value) or value < least:
        raise BadInput(f"{where}: column {column} holds {row[column]!r}; a whole number >= {least} is needed")
    return int(value)
