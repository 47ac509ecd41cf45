"""Files that people name: what cannot be read or written is a wrong request with its remedy, not a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heliostat.wire.errors import BadRequest


def text_of(path: Path) -> str:
    """The text of a file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8 text.", remedy="Save it as UTF-8.") from error
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", remedy="Name another file.") from error


@contextmanager
def writing(what: str, remedy: str) -> Iterator[None]:
    """Around everything that writes `what`."""
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{what} cannot be written: {error}", remedy=remedy) from error


def check_place(path: Path, what: str, remedy: str) -> None:
    """Before the work for a new file is done: is there a folder that it can go to?"""
    if not path.parent.is_dir():
        raise BadRequest(f"{what} cannot be written: no folder {path.parent}", remedy=remedy)
    if path.is_dir():
        raise BadRequest(f"{what} cannot be written: {path} is a folder", remedy=remedy)
