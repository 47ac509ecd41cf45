"""What endpoints can answer instead of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EndpointError(Exception):
    """A request that cannot be done as it stands; nothing was changed. `code` is stable, `remedy` says what to do."""

    def __init__(
        self,
        code: str,
        text: str,
        remedy: str,
        status: int = 400,
        *,
        field: str = "",
        facts: Mapping[str, Any] | None = None,  # Any: JSON
    ) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy
        self.status = status
        self.field = field
        self.facts = dict(facts or {})


def unknown_endpoint(name: str) -> EndpointError:
    remedy = "helio endpoint ls shows those of your project."
    return EndpointError("unknown_endpoint", f"There is no endpoint {name}.", remedy, 404)


def unknown_deployment(endpoint: str, label: str) -> EndpointError:
    remedy = f"helio endpoint show {endpoint} lists its versions."
    return EndpointError("unknown_deployment", f"Endpoint {endpoint} has no version {label}.", remedy, 404)


def unknown_key(key_id: str) -> EndpointError:
    return EndpointError("unknown_key", f"There is no key {key_id}.", "helio key ls ENDPOINT shows them.", 404)
