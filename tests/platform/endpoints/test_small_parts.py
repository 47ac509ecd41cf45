"""Smoke requests, retries of a prediction, comparison of documents: pure parts, one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from heliostat.cli import endpoints as commands
from heliostat.client.endpoints import Endpoints, replica_range
from heliostat.client.prediction import Predictor, named, plain
from heliostat.endpoints.smoke import DOOR_PAUSE_S, DOOR_TRIES, SmokeDesk, SmokeRequest, send
from heliostat.endpoints.wishes import Calm
from heliostat.endpoints.writer import contains
from heliostat.wire.call import Caller, Retry
from heliostat.wire.errors import BadRequest, ConnectionFailed, HeliostatError, Unauthenticated
from heliostat.wire.transport import Request, Response, Stream, TransportError


@pytest.mark.parametrize(
    ("shown", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": 1.0}, {"a": 1}, True),
    ],
    ids=["defaults added", "another value", "a key is missing", "inside of a list", "a longer list", "an equal number"],
)
def test_what_serve_shows_contains_what_was_put(shown: Any, wanted: Any, same: bool) -> None:
    assert contains(shown, wanted) is same


def test_a_wish_rises_at_once_and_falls_when_it_stays_low() -> None:
    calm = Calm()
    assert calm.steadied(1, 1, 3, 0) == 3
    assert calm.steadied(1, 3, 1, 1_000) == 3
    assert calm.steadied(1, 3, 3, 20_000) == 3, "a dip"
    assert calm.steadied(1, 3, 1, 25_000) == 3
    assert calm.steadied(1, 3, 2, 60_000) == 2


def test_a_smoke_request_is_one_row_of_zeros() -> None:
    signature = {
        "inputs": [
            {"name": "x", "dtype": "FP32", "shape": [-1, 2]},
            {"name": "t", "dtype": "BYTES", "shape": [-1, 1]},
            {"name": "n", "dtype": "INT64", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1]}],
    }
    request = SmokeRequest("http://h:1", "e", 2, "a model", signature, "hk_x")
    assert request.url == "http://h:1/endpoints/e/v2/models/a%20model/infer"
    assert [(t["name"], t["shape"], t["data"]) for t in request.body()["inputs"]] == [
        ("x", [1, 2], [0.0, 0.0]),
        ("t", [1, 1], [""]),
        ("n", [1], [0]),
    ]


def test_a_smoke_request_sends_the_signatures_example() -> None:
    inputs = [
        {"name": "c", "dtype": "BYTES", "shape": [-1, 1], "example": ["red"]},
        {"name": "n", "dtype": "FP32", "shape": [-1, 2], "example": [1, 2.5]},
        {"name": "old", "dtype": "INT8", "shape": [-1], "example": None},
    ]
    signature = {"inputs": inputs, "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1]}]}
    body = SmokeRequest("http://h:1", "e", 2, "m", signature, "hk_x").body()
    assert [tensor["data"] for tensor in body["inputs"]] == [["red"], [1, 2.5], [0]]


def smoke(*answers: httpx.Response | Exception) -> tuple[str, int, list[float]]:
    """What became of it, how many answers it took, and the pauses; the last answer is repeated."""
    given, pauses = list(answers), list[float]()
    asked = 0

    def post(*_: Any, **__: Any) -> httpx.Response:
        nonlocal asked
        asked += 1
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    signature = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 2]}]}
    signature["outputs"] = [{"name": "y", "dtype": "FP32", "shape": [-1]}]
    trouble = send(SmokeRequest("http://h:1", "e", 2, "m", signature, "hk_x"), post, pauses.append)
    return trouble, asked, pauses


ANSWERED = httpx.Response(200, json={"outputs": [{"name": "y"}]})


def test_a_smoke_request_waits_for_the_door() -> None:
    not_yet = httpx.Response(404, text="Path '/endpoints/e' not found.")
    assert smoke(not_yet, httpx.ConnectError("refused"), httpx.Response(503), ANSWERED) == ("", 4, [DOOR_PAUSE_S] * 3)


def test_a_smoke_request_gives_up_a_door_that_never_opens() -> None:
    trouble, asked, pauses = smoke(httpx.Response(404, text="not found"))
    assert (asked, len(pauses)) == (DOOR_TRIES, DOOR_TRIES - 1) and "HTTP 404" in trouble and "not found" in trouble


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(500, text="the model broke"), "the model broke"),
        (httpx.Response(400, text="wrong shape"), "wrong shape"),
        (httpx.Response(200, json={"outputs": []}), "no outputs"),
        (httpx.Response(200, text="<html>"), "no outputs"),
        (httpx.ReadTimeout("30 s"), "ReadTimeout"),
    ],
)
def test_a_smoke_request_that_was_answered_is_not_repeated(answer: httpx.Response | Exception, words: str) -> None:
    trouble, asked, pauses = smoke(answer, ANSWERED)
    assert words in trouble and (asked, pauses) == (1, [])


def test_a_smoke_request_that_cannot_be_sent_is_a_failed_try() -> None:
    def broken(request: SmokeRequest) -> str:
        raise RuntimeError("no such URL")

    calls: list[Callable[[], None]] = []
    desk = SmokeDesk(broken, calls.append)
    place, request = ("e", 1, 1), SmokeRequest("http://h:1", "e", 1, "m", {}, "hk_x")
    for tries in (1, 2):
        desk.ask(place, request)
        calls.pop()()
        assert desk.results[place].tries == tries and "no such URL" in desk.results[place].text


# ---- the command line ------------------------------------------------------------------------------------------------------


def test_inputs_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = [param for param in commands.call.params if param.name == "path"]
    monkeypatch.setattr("sys.stdin", io.StringIO('{"inputs": {"x": [1]}}'))
    path = option.type.convert("-", option, None)
    assert commands._inputs(path, None) == {"x": [1]}


# ---- predictions of the SDK --------------------------------------------------------------------------------------------------

GOOD = Response(200, {"content-type": "application/json"}, b'{"outputs": {"y": [1]}}')
JSON = {"content-type": "application/problem+json"}


class Script:
    """A transport that gives these answers, one after the other."""

    def __init__(self, *answers: Response | TransportError) -> None:
        self.answers = list(answers)
        self.sent: list[Request] = []

    def send(self, request: Request) -> Response:
        self.sent.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def stream(self, request: Request) -> Stream:
        raise NotImplementedError

    def close(self) -> None: ...


class Time:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


def predict(*answers: Response | TransportError, fresh_key: bool = False) -> tuple[dict[str, Any], int]:
    script, time = Script(*answers), Time()
    caller = Predictor(
        "http://h:1/endpoints/e", "hk_x", transport=script, retry=Retry(5.0), sleep=time.sleep, clock=time.clock
    )
    return caller.predict({"x": [[1]]}, fresh_key=fresh_key), len(script.sent)


REPEATED: list[Any] = [
    pytest.param(TransportError("reset"), id="the gateway died with the call"),
    pytest.param(Response(503, JSON, b'{"code": "replica_lost", "detail": "x"}'), id="no replica now"),
    pytest.param(
        Response(429, {**JSON, "retry-after": "1"}, b'{"code": "rate_limited", "detail": "x"}'), id="too fast"
    ),
    pytest.param(Response(404, {"content-type": "text/plain"}, b"Path '/e' not found."), id="a proxy without routes"),
    pytest.param(Response(500, {"content-type": "text/plain"}, b"Internal Server Error"), id="Serve's own failure"),
    pytest.param(Response(502, {}, b""), id="no backend"),
]


@pytest.mark.parametrize("answer", REPEATED)
def test_a_call_is_repeated_where_that_helps(answer: Response | TransportError) -> None:
    assert predict(answer, answer, GOOD) == ({"outputs": {"y": [1]}}, 3)


REFUSED: list[Any] = [
    pytest.param(Response(400, JSON, b'{"code": "wrong_shape", "detail": "x"}'), HeliostatError, id="a wrong shape"),
    pytest.param(
        Response(401, JSON, b'{"code": "unauthenticated", "detail": "x"}'), Unauthenticated, id="an unknown key"
    ),
    pytest.param(
        Response(500, JSON, b'{"code": "model_failed", "detail": "x"}'), HeliostatError, id="the model failed"
    ),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSED)
def test_what_the_endpoint_refuses_is_not_repeated(answer: Response, kind: type[HeliostatError]) -> None:
    with pytest.raises(kind):
        predict(answer, GOOD)


def test_a_key_made_a_moment_ago_gets_its_time() -> None:
    early = Response(401, JSON, b'{"code": "unauthenticated", "detail": "x"}')
    assert predict(early, early, GOOD, fresh_key=True)[1] == 3


def test_in_the_end_the_call_fails_with_the_address() -> None:
    with pytest.raises(ConnectionFailed, match="http://h:1/endpoints/e"):
        predict(TransportError("refused", refused=True))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(2, (2, 2)), ("1..3", (1, 3)), ("0", (0, 0)), ((1, 4), (1, 4)), (range(1, 4), (1, 3))],
)
def test_replicas_in_every_form(given: Any, expected: tuple[int, int]) -> None:
    assert replica_range(given) == expected


@pytest.mark.parametrize("given", ["three", "1-3", range(0), "3..x"])
def test_what_is_no_number_of_replicas(given: Any) -> None:
    with pytest.raises(BadRequest):
        replica_range(given)


def test_the_only_input_needs_no_name() -> None:
    signature = {"inputs": [{"name": "x"}]}
    assert named([[1]], signature) == {"x": [[1]]} and named({"a": 1}, signature) == {"a": 1}
    with pytest.raises(BadRequest):
        named([[1]], {"inputs": [{"name": "x"}, {"name": "y"}]})


def test_arrays_become_lists() -> None:
    class Array:
        def tolist(self) -> list[int]:
            return [1, 2]

    assert plain([Array(), (3, Array())]) == [[1, 2], [3, [1, 2]]]


# ---- deployments by the SDK --------------------------------------------------------------------------------------------------


def answer(document: dict[str, Any]) -> Response:  # Any: JSON
    return Response(200, {"content-type": "application/json"}, json.dumps(document).encode())


def endpoint_with(**states: str) -> Response:
    rows = [{"version": version, "state": state, "reason": ""} for version, state in states.items()]
    return answer({"name": "digits", "url": "http://h:1/endpoints/digits", "state": "ready", "deployments": rows})


def endpoints(*answers: Response, script: Script | None = None) -> Endpoints:
    time = Time()
    caller = Caller(
        script or Script(*answers), token="t", url="http://h:2", user_agent="test", sleep=time.sleep, clock=time.clock
    )
    return Endpoints(caller)


def test_a_deployment_waits_for_its_own_version_when_somebody_deployed_after_it() -> None:
    told: list[str] = []
    made = endpoints(
        answer({"version": "v1"}),
        endpoint_with(v1="waiting", v2="ready"),
        endpoint_with(v1="checking", v2="ready"),
        endpoint_with(v1="ready", v2="ready"),
    ).deploy("digits:1", "digits")
    made.wait_ready("1m", told=told.append)
    assert made.deployed == "v1" and told == ["v1 checking"]


def test_a_name_that_no_path_carries_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadRequest, match="no name of an endpoint"):
        endpoints(answer({})).deploy("digits:1", "../x")


def test_the_version_to_scale_is_one_that_lives() -> None:
    script = Script(endpoint_with(v1="waiting", v2="ready", v3="failed", v4="retiring"))
    endpoints(script=script).get("digits").scale(2)
    assert script.sent[-1].path.endswith("/endpoints/digits/deployments/v2")
