"""The OpenAPI of an endpoint is true: what it allows is answered, what it forbids is refused, nothing is a server error."""

from __future__ import annotations

from typing import Any  # Any: schemathesis leaves its case open

import schemathesis
from heliostat_serving.door.app import Door
from heliostat_serving.door.state import Books, Clock
from heliostat_serving.spec import GatewayConfig
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.serving.builders import TEXT, Doubling, config


def door(conf: GatewayConfig) -> Door:
    made = Door(Doubling(), Books("r1"), "/", Clock())
    made.configure(conf)
    return made


KEY = {"Authorization": f"Bearer {TEXT}"}
schema = schemathesis.openapi.from_asgi("/openapi.json", door(config()), headers=KEY)


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_call_is_a_server_error(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(
        headers=KEY, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
    )
