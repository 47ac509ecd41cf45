"""Canonical JSON: one text per value, whatever the process.

Keys are sorted, no spaces, no floats. Frozen records become objects with a `type` where the reader could not know it otherwise
(events, decisions); plain fields are read back by the annotations of their class, so a field added with a default reads old texts.
"""

from __future__ import annotations

import json
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from heliostat_scheduler.core import decisions, events, reasons

TAGGED: dict[str, type] = {
    cls.__name__: cls
    for cls in (*get_args(events.Event), *get_args(decisions.Decision), decisions.Plan, reasons.Reason)
}


_PLAIN = frozenset({str, int, bool, type(None)})
_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


class BadText(ValueError):
    """The text is not what this codec writes."""


def encode(value: Any) -> Any:  # Any: JSON in and out
    """Records to plain JSON values. Events, decisions, plans and reasons carry their `type`."""
    kind: Any = type(value)  # Any: some class
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return [item if type(item) in _PLAIN else encode(item) for item in value]
    names = _names(kind)
    if names is not None:
        body = {name: item if type(item := getattr(value, name)) in _PLAIN else encode(item) for name in names}
        if kind.__name__ in TAGGED:
            body["type"] = kind.__name__
        return body
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    raise BadText(f"cannot write a {kind.__name__}")


@cache
def _names(cls: type) -> tuple[str, ...] | None:
    """The fields of a record; None of what is none."""
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else None


def decode(cls: Any, data: Any) -> Any:  # Any: a type annotation and JSON
    """Plain JSON values to a record of class `cls` (or a union of tagged records)."""
    if isinstance(data, dict) and data.get("type") in TAGGED:
        cls = TAGGED[data["type"]]
    if data is None:
        return None
    origin = get_origin(cls)
    if origin in (Union, types.UnionType):
        choices = [arg for arg in get_args(cls) if arg is not type(None)]
        if len(choices) > 1 and all(choice in (int, str) for choice in choices):
            return data
        return decode(choices[0], data)
    if origin is tuple:
        args = get_args(cls)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(decode(args[0], item) for item in data)
        return tuple(decode(arg, item) for arg, item in zip(args, data, strict=True))
    if isinstance(cls, type) and issubclass(cls, Enum):
        return cls(data)
    if is_dataclass(cls) and isinstance(cls, type):
        hints = _hints(cls)
        known = {name: decode(hints[name], item) for name, item in data.items() if name in hints}
        try:
            return cls(**known)
        except TypeError as error:
            raise BadText(f"{cls.__name__}: {error}") from None
    return data


@cache
def _hints(cls: type) -> dict[str, Any]:  # Any: type annotations
    return get_type_hints(cls)


def to_json(value: Any) -> str:  # Any: whatever `encode` takes
    """The canonical text of an event, a decision, a plan, a reason or a snapshot."""
    return _WRITER.encode(encode(value))


def loads(text: str | bytes) -> Any:  # Any: JSON
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadText(f"not JSON: {error}") from None


def from_json(text: str | bytes) -> Any:  # Any: one of the tagged records
    """Back to the event, decision, plan or reason that `to_json` wrote."""
    data = loads(text)
    if not isinstance(data, dict) or data.get("type") not in TAGGED:
        raise BadText("the text carries no known type")
    return decode(TAGGED[data["type"]], data)


def event_from_json(text: str | bytes) -> events.Event:
    found = from_json(text)
    if not isinstance(found, get_args(events.Event)):
        raise BadText(f"{type(found).__name__} is not an event")
    return found  # type: ignore[no-any-return]  # checked against the union above


__all__ = ["TAGGED", "BadText", "decode", "encode", "event_from_json", "from_json", "loads", "to_json"]
