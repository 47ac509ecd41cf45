"""Names of endpoints and versions, and the texts of keys."""

from __future__ import annotations

import re

ENDPOINT = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
KEY_PREFIX = "hk_"


def endpoint_ok(name: str) -> bool:
    """Lower-case letters, digits and '-', at most 40, as in a host name. Names are unique in the whole installation: they are URLs."""
    return ENDPOINT.fullmatch(name) is not None


def version_label(number: int) -> str:
    return f"v{number}"


def version_number(text: str) -> int | None:
    """`v2` or `2` -> 2; None for anything else."""
    match = VERSION.fullmatch(text)
    return int(match[1]) if match else None


def model_label(model: str, version: int) -> str:
    return f"{model}:{version}"
