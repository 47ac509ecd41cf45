"""Frozen dataclasses from JSON and back. The types of the fields decide; a wrong or unknown field is a SpecError with its path."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast  # Any: JSON


class SpecError(ValueError):
    """A document that is not what the specification says; the text has the path of the field."""


class Plain:
    """Base of the specification's dataclasses."""

    IGNORES_MORE: ClassVar[bool] = False
    """Whether fields that are not known are passed over."""

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.fields(cast(Any, self))  # Any: every subclass is a dataclass
        return {field.name: _plain(getattr(self, field.name)) for field in fields}

    @classmethod
    def from_json(cls, value: object, where: str = "") -> Self:
        where = where or cls.__name__
        if not isinstance(value, Mapping):
            raise SpecError(f"{where} is not an object.")
        hints = typing.get_type_hints(cls)
        known = {field.name: field for field in dataclasses.fields(cast(Any, cls))}  # Any: as above
        if (unknown := sorted(set(value) - set(known))) and not cls.IGNORES_MORE:
            raise SpecError(f"{where} has no field {unknown[0]}; known are {', '.join(known)}.")
        given = {name: _read(hints[name], value[name], f"{where}.{name}") for name in known if name in value}
        try:
            return cls(**given)
        except TypeError as error:
            raise SpecError(f"{where}: {error}.") from error


def _plain(value: object) -> Any:  # Any: JSON
    if isinstance(value, Plain):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _read(kind: Any, value: Any, where: str) -> Any:  # Any: a type, and JSON
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        return _read_optional(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SpecError(f"{where} is not a list.")
        inner = typing.get_args(kind)[0]
        return tuple(_read(inner, entry, f"{where}[{at}]") for at, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SpecError(f"{where} is not an object.")
        return dict(value)
    if isinstance(kind, type) and issubclass(kind, Plain):
        return kind.from_json(value, where)
    if kind is object:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SpecError(f"{where} is not of type {kind.__name__}.")
    return value


def _read_optional(kind: Any, value: Any, where: str) -> Any:  # Any: as _read
    if value is None:
        return None
    return _read(next(inner for inner in typing.get_args(kind) if inner is not type(None)), value, where)
