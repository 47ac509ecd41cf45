"""Server-sent events, read from lines (WHATWG HTML, section 9.2.6): the part of the format that a server of ours uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """name ("message" unless the server says otherwise), data, and the id to continue after ("" when none was ever sent)."""

    name: str
    data: str
    id: str = ""


def parse(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events in a stream of lines without line ends. Comments (heartbeats) and empty events vanish."""
    name, last_id = "", ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(name or "message", "\n".join(data), last_id)
            name, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id" and "\0" not in value:
            last_id = value
