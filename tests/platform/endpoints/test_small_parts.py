"""Metering, the access log, retries of a prediction, comparison of documents: pure parts, one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from heliostat.client.endpoints import Endpoints, replica_range
from heliostat.client.prediction import Predictor, named, plain
from heliostat.endpoints import access_log
from heliostat.endpoints.render import Folders
from heliostat.endpoints.smoke import DOOR_PAUSE_S, DOOR_TRIES, SmokeRequest, send
from heliostat.endpoints.usage import Collector, add_up
from heliostat.endpoints.wishes import Calm
from heliostat.endpoints.writer import contains
from heliostat.store import Store
from heliostat.store.endpoint_tables import Endpoint, EndpointUsage
from heliostat.wire.call import Caller, Retry
from heliostat.wire.errors import BadRequest, ConnectionFailed, HeliostatError, Unauthenticated
from heliostat.wire.transport import Request, Response, Stream, TransportError
from sqlalchemy import select

HOUR = 3_600_000
NOW = 500_000 * HOUR + 1_000


def line(**more: Any) -> dict[str, Any]:
    return {
        "at_ms": NOW,
        "key": "key-1",
        "v": "v2",
        "status": 200,
        "ms": 1.5,
        "bytes_in": 10,
        "bytes_out": 20,
        "rows": 3,
        **more,
    }


def test_lines_add_up_by_hour_version_key_and_status() -> None:
    batch = add_up("f", [line(), line(), line(status=429), line(key="", v="", status=401), line(smoke=True)])
    assert {place: total.requests for place, total in batch.sums.items()} == {
        (500_000 * HOUR, 2, "key-1", 2): 2,
        (500_000 * HOUR, 2, "key-1", 4): 1,
        (500_000 * HOUR, 0, "", 4): 1,
    }
    assert batch.sums[500_000 * HOUR, 2, "key-1", 2].busy_us == 3_000
    assert batch.used == {"key-1": NOW}


@pytest.fixture
def collector(tmp_path: Path, migrated_store: Path) -> Iterator[tuple[Collector, Store, Folders]]:
    store = Store(f"sqlite:///{migrated_store}")
    store.write(
        lambda session: session.add(
            Endpoint(name="e", project="p", mode="gateway", weights={}, weights_before={}, settings={}, created_ms=1)
        )
    )
    folders = Folders(tmp_path / "serving")
    folders.spool("e").mkdir(parents=True)
    yield Collector(store, folders, lambda: NOW), store, folders
    store.close()


def spool(folder: Path, name: str, lines: list[dict[str, Any]], cut: str = "") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + cut)
    return path


def requests(store: Store) -> int:
    with store.read() as session:
        return sum(row.requests for row in session.execute(select(EndpointUsage)).scalars())


def test_a_spool_file_counts_once(collector: tuple[Collector, Store, Folders]) -> None:
    collect, store, folders = collector
    path = spool(folders.spool("e"), "a-1.jsonl", [line(), line()], cut='{"at_ms": 1')
    assert collect.collect(["e"]) == 2 and not path.exists()
    spool(folders.spool("e"), "a-1.jsonl", [line(), line()])  # we died between the commit and the deletion
    collect.collect(["e"])
    assert requests(store) == 2
    spool(folders.spool("e"), "a-2.jsonl", [line()])
    collect.collect(["e"])
    assert requests(store) == 3
    assert len(access_log.tail(folders.log("e"), 10)) == 3


def test_a_file_that_is_still_written_is_left_alone(collector: tuple[Collector, Store, Folders]) -> None:
    import os

    collect, store, folders = collector
    path = spool(folders.spool("e"), "a-1.open", [line()])
    os.utime(path, (NOW / 1000 - 1, NOW / 1000 - 1))
    assert collect.collect(["e"]) == 0
    os.utime(path, (NOW / 1000 - 60, NOW / 1000 - 60))  # its gateway has died
    assert collect.collect(["e"]) == 1 and requests(store) == 1


def test_the_access_log_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MAX_BYTES", 500)
    path = tmp_path / "e.jsonl"
    for number in range(40):
        access_log.append(path, [line(request_id=str(number))])
    assert [entry["request_id"] for entry in access_log.tail(path, 1)] == ["39"]
    assert len(list(tmp_path.iterdir())) <= access_log.KEPT + 1
    access_log.remove(path)
    assert list(tmp_path.iterdir()) == []


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


def endpoints(*answers: Response) -> Endpoints:
    time = Time()
    caller = Caller(
        Script(*answers), token="t", url="http://h:2", user_agent="test", sleep=time.sleep, clock=time.clock
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
