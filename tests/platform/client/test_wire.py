"""Calls: what is repeated, what is not, and which exception an answer becomes."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from heliostat.client.client import Client
from heliostat.settings import Settings
from heliostat.wire.call import Caller
from heliostat.wire.errors import (
    BadRequest,
    Conflict,
    ConnectionFailed,
    ExitCode,
    Forbidden,
    HeliostatError,
    IncompatibleServer,
    NeverFits,
    NotFound,
    ServiceError,
    Unauthenticated,
    from_problem,
)
from heliostat.wire.sse import ServerEvent, parse
from heliostat.wire.transport import Response

from tests.platform.client.conftest import Clock
from tests.platform.client.fake_server import FakeServer

PROBLEMS = [
    pytest.param(400, "unknown_queue", BadRequest, ExitCode.USAGE, id="a wrong value is yours"),
    pytest.param(422, "malformed", BadRequest, ExitCode.USAGE, id="so is a malformed body"),
    pytest.param(401, "unauthenticated", Unauthenticated, ExitCode.AUTH, id="no token"),
    pytest.param(403, "queue_forbidden", Forbidden, ExitCode.AUTH, id="a rule says no"),
    pytest.param(404, "not_found", NotFound, ExitCode.NOT_FOUND, id="nothing there"),
    pytest.param(409, "wrong_state", Conflict, ExitCode.CONFLICT, id="the state does not allow it"),
    pytest.param(412, "stale", Conflict, ExitCode.CONFLICT, id="somebody was faster"),
    pytest.param(422, "NeverFits", NeverFits, ExitCode.NEVER_FITS, id="never fits, by code"),
    pytest.param(403, "LimitReached", NeverFits, ExitCode.NEVER_FITS, id="the code decides before the status"),
    pytest.param(503, "store_unavailable", ServiceError, ExitCode.SERVICE, id="ours"),
    pytest.param(418, "", BadRequest, ExitCode.USAGE, id="an unknown status stays in its family"),
]


@pytest.mark.parametrize(("status", "code", "kind", "exit_code"), PROBLEMS)
def test_a_problem_becomes_an_exception(
    status: int, code: str, kind: type[HeliostatError], exit_code: ExitCode
) -> None:
    error = from_problem(status, {"code": code, "detail": "Told.", "remedy": "Do it.", "request_id": "r1"})
    assert type(error) is kind
    assert (error.exit_code, error.remedy, error.request_id) == (exit_code, "Do it.", "r1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.remedy, str(again)) == (kind, error.code, "Do it.", "Told. Do it.")


def test_the_fields_of_a_problem_are_named() -> None:
    error = from_problem(
        400, {"detail": "Bad file.", "errors": [{"pointer": "line 3", "detail": "unknown key quotaa"}]}
    )
    assert error.message == "Bad file. (line 3: unknown key quotaa)"


def test_a_submission_whose_answer_was_lost_is_not_done_twice(client: Client, server: FakeServer) -> None:
    lost = server.send

    def lose_first_answer(request: object) -> Response:
        server.send = lost  # type: ignore[method-assign]
        lost(request)  # type: ignore[arg-type]
        return server._broken()

    server.send = lose_first_answer  # type: ignore[method-assign]
    job = client.submit(["true"])
    assert list(server.jobs) == [job.id]
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert len(server.requests) == 2 and len(keys) == 1


def test_each_submission_has_its_own_key(client: Client, server: FakeServer) -> None:
    client.submit(["true"])
    client.submit(["true"])
    assert len(server.jobs) == 2


def test_a_server_that_restarts_is_waited_for_but_not_for_ever(
    client: Client, server: FakeServer, clock: Clock
) -> None:
    server.refuse(2)
    client.queues()
    assert clock.slept == [0.2, 0.4]
    server.refuse(50)
    with pytest.raises(ConnectionFailed, match="No control plane answers") as caught:
        client.queues()
    assert "helio up" in caught.value.remedy
    assert clock.now - 1000.6 <= 3.0


def test_retry_after_is_respected_and_bounded(client: Client, server: FakeServer, clock: Clock) -> None:
    server.break_next(1, 503, **{"retry-after": "2"})
    client.queues()
    assert clock.slept == [2.0]
    server.break_next(1, 503, **{"retry-after": "600"})
    with pytest.raises(ServiceError):
        client.queues()


def test_what_you_asked_wrongly_is_not_repeated(client: Client, server: FakeServer) -> None:
    with pytest.raises(BadRequest):
        client.submit(["true"], queue="nowhere")
    assert len(server.requests) == 1


def test_somebody_elses_server_is_recognised(client: Client, server: FakeServer) -> None:
    server.break_next(1, 404)
    with pytest.raises(ServiceError, match="no Heliostat control plane"):
        client.queues()


def test_another_version_of_the_api_is_refused(client: Client, server: FakeServer) -> None:
    server.failures.append(lambda: Response(200, {"heliostat-api-version": "2"}, b"{}"))
    with pytest.raises(IncompatibleServer, match="version 2"):
        client.queues()


def test_a_wrong_token_is_told(make_caller: Callable[[Settings], Caller], client: Client) -> None:
    stranger = Client(client.settings, caller=make_caller(Settings(client.settings.home, token="wrong")))
    with pytest.raises(Unauthenticated):
        stranger.queues()


def test_server_sent_events() -> None:
    lines = [": hi", "", "id: 7", "event: log", "data: a", "data:b", "", "data: c", "", "event: end", ""]
    assert list(parse(lines)) == [ServerEvent("log", "a\nb", "7"), ServerEvent("message", "c", "7")]
