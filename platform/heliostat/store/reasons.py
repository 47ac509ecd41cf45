"""A core Reason as JSON and back: the form in which jobs and events keep it."""

from __future__ import annotations

from typing import Any

from heliostat_scheduler.core import reasons
from heliostat_scheduler.core.reasons import Reason, ReasonCode


def reason_json(reason: Reason) -> dict[str, Any]:  # Any: JSON
    """Facts stay in their order: [[name, value], ...]."""
    return {
        "code": reason.code.value,
        "facts": [[name, value] for name, value in reason.facts],
        "blockers": list(reason.blockers),
        "until_ms": reason.until_ms,
    }


def sentence_of(reason: Reason) -> str:
    """What a person reads; made by the core from the same numbers, everywhere the same."""
    return reasons.sentence(reason)


def reason_from(body: dict[str, Any]) -> Reason:  # Any: JSON
    return Reason(
        code=ReasonCode(body["code"]),
        facts=tuple((name, value) for name, value in body.get("facts", ())),
        blockers=tuple(body.get("blockers", ())),
        until_ms=body.get("until_ms"),
    )
