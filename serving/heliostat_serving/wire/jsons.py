"""JSON of a request body, bounded and told apart: what is no JSON is `bad_json`, never a 500."""

from __future__ import annotations

import json
from typing import Any  # Any: JSON

from heliostat_serving.wire.faults import Fault

ENCODER = json.JSONEncoder(separators=(",", ":"))


def parse(raw: bytes | memoryview) -> dict[str, Any]:
    """The object that a request's body is."""
    try:
        value = json.loads(bytes(raw))
    except RecursionError as error:
        raise Fault("bad_json", "The body is nested too deeply.") from error
    except ValueError as error:
        raise Fault("bad_json", f"The body is not JSON: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise Fault("bad_json", "The body is not a JSON object.")
    return value


def dump(value: object) -> bytes:
    return ENCODER.encode(value).encode()
