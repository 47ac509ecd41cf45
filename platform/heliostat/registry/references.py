"""How a version is named: `digits:3` by number, `digits@champion` by alias, `digits` or `digits@latest` the newest."""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_jobs.spec import ALIAS_NAME, MODEL_NAME

from heliostat.registry.errors import RegistryError

LATEST = "latest"
MAX_VERSION = 2**31


@dataclass(frozen=True, slots=True)
class Reference:
    """name, and either a number or an alias (`latest` by default)."""

    name: str
    version: int | None = None
    alias: str = LATEST

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version is not None else f"{self.name}@{self.alias}"


def parse_reference(text: str) -> Reference:
    """Raises RegistryError (bad_reference)."""
    name, colon, number = text.partition(":")
    if colon:
        return Reference(_name(name, text), version=_number(number, text))
    name, at, alias = text.partition("@")
    return Reference(_name(name, text), alias=_alias(alias, text) if at else LATEST)


def which_version(name: str, which: str) -> Reference:
    """The reference of a path: model `name`, and `3`, `v3`, `champion` or `@champion`."""
    bare = which.removeprefix("@")
    digits = which.removeprefix("v")
    if digits.isascii() and digits.isdigit():
        return Reference(name, version=_number(digits, f"{name}:{which}"))
    return Reference(name, alias=_alias(bare, f"{name}@{bare}"))


def _name(name: str, text: str) -> str:
    if not MODEL_NAME.fullmatch(name):
        raise _bad(text)
    return name


def _alias(alias: str, text: str) -> str:
    if not ALIAS_NAME.fullmatch(alias):
        raise _bad(text)
    return alias


def _number(number: str, text: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 11 and 0 < int(number) < MAX_VERSION):
        raise _bad(text)
    return int(number)


def _bad(text: str) -> RegistryError:
    remedy = "Write NAME:NUMBER, NAME@ALIAS, or NAME for the newest version."
    return RegistryError("bad_reference", f"'{text[:200]}' names no model version.", remedy)
