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


def read_rows(path: Path, required: Iterable[str]) -> list[Row]:
    """All rows of a CSV table. Cells are strings: ids like 6214e9 parse as numbers, so no cell is converted here."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: not a readable CSV table: {error}") from error
    if not rows:
        raise BadInput(f"{path}: the table has no rows")
    missing = [column for column in required if column not in rows[0]]
    if missing:
        raise BadInput(f"{path}: column {', '.join(missing)} is missing; found {', '.join(rows[0])}")
    return rows


def _rows(path: Path) -> Iterator[Row]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    yield from csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))


def number(row: Row, column: str, where: str, least: float = 0) -> float:
    """A finite number >= least, or BadInput. A Parquet row lacks the columns that are null in it."""
    cell = row.get(column)
    try:
        value = float(cell or "")
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
