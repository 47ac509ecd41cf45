"""`helio key` over the SDK: what it asks for, and what it shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from click.testing import CliRunner
from heliostat.cli import endpoints as commands
from heliostat.cli.app import App
from heliostat.client.endpoints import Endpoints
from heliostat.render.endpoints import key_table
from heliostat.wire.call import Caller
from heliostat.wire.shapes import KeyJson
from heliostat.wire.transport import Request, Response, Stream

KEY: dict[str, Any] = {
    "id": "key-1", "endpoint": "digits", "project": "vision", "name": "", "rate_per_s": None, "burst": None, "pin": False,
    "created_at": "2026-01-01T00:00:00Z", "created_by": "ann", "expires_at": None, "revoked_at": None, "last_used_at": None,
    "key": "hk_x",
}  # fmt: skip


class Asked:
    """A transport that makes every key and keeps what was asked for."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def send(self, request: Request) -> Response:
        asked = json.loads(request.body or b"{}")
        self.bodies.append(asked)
        return Response(201, {"content-type": "application/json"}, json.dumps({**KEY, **asked}).encode())

    def stream(self, request: Request) -> Stream:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.mark.parametrize(("options", "body"), [((), {"name": ""}), (("--pin",), {"name": "", "pin": True})])
def test_a_key_that_may_pin_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], body: dict[str, Any]
) -> None:
    asked = Asked()
    sdk = Endpoints(Caller(asked, token="t", url="http://h:2", user_agent="test"))
    monkeypatch.setattr(commands, "_endpoints", lambda app: sdk)
    told = CliRunner().invoke(commands.key, ["create", "digits", *options], obj=App())
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("hk_x\n") and asked.bodies == [body]


def test_the_table_says_which_keys_may_pin() -> None:
    keys = [cast("KeyJson", key) for key in (KEY, {**KEY, "id": "key-2", "pin": True})]
    table = key_table(keys, datetime(2026, 1, 2, tzinfo=UTC))
    plain, pinning = table.splitlines()[1:]
    assert "may pin" not in plain and "valid, may pin" in pinning
