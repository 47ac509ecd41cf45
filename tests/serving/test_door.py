"""The ingress of an endpoint: keys, limits, choice of version, protocols' own errors, books."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from heliostat_serving.spec import GatewayConfig, Limits
from heliostat_serving.wire.faults import Fault

from tests.serving.builders import SMALL, TEXT, House, config, key, target

ROW = {"inputs": {"x": [[1, 2]]}}


async def test_a_prediction() -> None:
    house = House(config())
    answer = await house.call("/predict", ROW)
    assert answer.status == 200
    assert answer.json() == {"outputs": {"y": [[2.0, 4.0]]}, "model": "iris", "version": 11, "deployment": "v1"}
    assert answer.headers["x-heliostat-version"] == "v1"
    assert house.backend.asked == [("v1", 1)]


ERRORS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("our own", "/predict", "detail", {"code": "wrong_shape", "status": 400, "request_id": "r-1"}),
    ("the Open Inference Protocol's", "/v2/models/iris/infer", "error", {"code": "missing_input"}),
    ("MLflow's", "/invocations", "message", {"error_code": "BAD_REQUEST", "code": "wrong_shape"}),
]


@pytest.mark.parametrize(("path", "text", "more"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
async def test_errors_in_the_form_of_the_protocol(path: str, text: str, more: dict[str, Any]) -> None:
    house = House(config())
    answer = await house.call(path, {"inputs": {"x": [[1, 2, 3]]}}, x_request_id="r-1")
    assert answer.status == 400
    assert answer.json()[text]
    assert more.items() <= answer.json().items()
    assert answer.headers["x-heliostat-code"] == more["code"]
    assert house.backend.asked == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"authorization": ""}, "unauthenticated"),
        ({"authorization": "Basic abc"}, "unauthenticated"),
        ({"authorization": "Bearer hk_other"}, "unauthenticated"),
        ({"authorization": "bearer " + TEXT}, ""),
        ({"authorization": "", "x_api_key": TEXT}, ""),
    ],
    ids=["none", "another scheme", "unknown", "small letters", "the other header"],
)
async def test_keys(headers: dict[str, str], code: str) -> None:
    answer = await House(config()).call("/predict", ROW, **headers)
    assert answer.headers.get("x-heliostat-code", "") == code
    assert ("www-authenticate" in answer.headers) == (code == "unauthenticated")


async def test_an_expired_key() -> None:
    house = House(config(keys=(key(expires_ms=2_000_000),)))
    assert (await house.call("/predict", ROW)).status == 200
    house.hand.wall = 2_000_000
    assert (await house.call("/predict", ROW)).json()["code"] == "key_expired"


async def test_a_revoked_key_stops_with_the_next_configuration() -> None:
    house = House(config())
    house.door.configure(config(keys=()))
    assert (await house.call("/predict", ROW)).status == 401


async def test_limits_say_when_to_come_back() -> None:
    house = House(config(keys=(key(rate_per_s=0.5, burst=2),)))
    assert [(await house.call("/predict", ROW)).status for _ in range(3)] == [200, 200, 429]
    answer = await house.call("/predict", ROW)
    assert (answer.json()["code"], answer.headers["retry-after"]) == ("rate_limited", "2")
    house.hand.now_s += 2
    assert (await house.call("/predict", ROW)).status == 200


async def test_a_change_of_configuration_does_not_refill_a_limit() -> None:
    conf = config(keys=(key(rate_per_s=0.01, burst=1),))
    house = House(conf)
    await house.call("/predict", ROW)
    house.door.configure(conf)
    assert (await house.call("/predict", ROW)).status == 429


async def test_replicas_share_a_limit() -> None:
    house = House(config(keys=(key(rate_per_s=4, burst=4),), replicas=2))
    assert [(await house.call("/predict", ROW)).status for _ in range(3)] == [200, 200, 429]


async def test_a_large_body_is_refused_by_what_it_declares() -> None:
    house = House(config(limits=SMALL))
    answer = await house.call("/predict", b"{}", content_length="5000")
    assert (answer.status, answer.json()["code"]) == (413, "body_too_large")


async def test_a_large_body_in_parts_is_refused_when_it_is_too_much() -> None:
    house = House(config(limits=SMALL))
    parts = [{"type": "http.request", "body": bytes(600), "more_body": True}] * 5
    assert (await house.send("/predict", parts)).status == 413


async def test_a_slow_body_is_refused() -> None:
    house = House(config(limits=SMALL))
    answer = await house.send("/predict", [{"type": "http.request", "body": b"{", "more_body": True}], wait=True)
    assert (answer.status, answer.json()["code"]) == (408, "body_timeout")


async def test_only_so_many_calls_at_once() -> None:
    house = House(config(limits=SMALL))
    house.backend.pause = asyncio.Event()
    calls = [asyncio.create_task(house.call("/predict", ROW)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await house.call("/predict", ROW)).json()["code"] == "too_many_in_flight"
    house.backend.pause.set()
    assert [answer.status for answer in await asyncio.gather(*calls)] == [200, 200]
    assert (await house.call("/predict", ROW)).status == 200


async def test_a_model_that_takes_too_long() -> None:
    house = House(config(limits=Limits(predict_timeout_s=0.01)))
    house.backend.pause = asyncio.Event()
    assert (await house.call("/predict", ROW)).json()["code"] == "predict_timeout"


async def test_a_fault_of_the_model_and_one_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    house = House(config())
    house.backend.error = Fault("model_failed", "iris version 11 failed on this input.")
    assert (await house.call("/predict", ROW)).status == 500
    house.backend.error = ZeroDivisionError("secret")
    answer = await house.call("/predict", ROW)
    assert (answer.status, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["remedy"] == "Its log has the traceback."
    assert b"secret" not in answer.body
    assert (await house.call("/predict", ROW, x_request_id="r7")).json()["remedy"] == "Its log knows request r7."
    assert "ZeroDivisionError" in caplog.text


TARGETS = (target(1, 90), target(2, 10), target(3, 0, aliases=("next",)))


@pytest.mark.parametrize(("drawn", "label"), [(0.0, "v1"), (0.899, "v1"), (0.9, "v2"), (0.999, "v2")])
async def test_weights(drawn: float, label: str) -> None:
    house = House(config(*TARGETS))
    house.hand.drawn = drawn
    assert (await house.call("/predict", ROW)).json()["deployment"] == label


@pytest.mark.parametrize("sticky", ["key", "header:X-User"])
async def test_a_sticky_caller_stays(sticky: str) -> None:
    house = House(config(target(1, 50), target(2, 50), sticky=sticky))
    found = set()
    for drawn in (0.1, 0.4, 0.6, 0.9):
        house.hand.drawn = drawn
        found.add((await house.call("/predict", ROW, x_user="ada")).json()["deployment"])
    assert len(found) == 1


async def test_a_change_of_weights_moves_only_who_must() -> None:
    before = House(config(target(1, 90), target(2, 10), sticky="header:u"))
    after = House(config(target(1, 70), target(2, 30), sticky="header:u"))
    moves = []
    for user in range(300):
        old, new = [(await house.call("/predict", ROW, u=str(user))).json()["deployment"] for house in (before, after)]
        moves.append((old, new))
    assert ("v2", "v1") not in moves
    assert 30 <= moves.count(("v1", "v2")) <= 90


@pytest.mark.parametrize(
    ("pin", "pins", "expected"),
    [("v2", False, "v2"), ("12", False, "v2"), ("v3", True, "v3"), ("next", True, "v3"), ("v3", False, "pin_forbidden"),
     ("v9", True, "unknown_version")],
)  # fmt: skip
async def test_a_named_version(pin: str, pins: bool, expected: str) -> None:
    house = House(config(*TARGETS, keys=(key(pin=pins),)))
    for answer in (
        await house.call("/predict", ROW, x_heliostat_version=pin),
        await house.call(f"/v2/models/iris/versions/{pin}/infer", {"inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}),
    ):  # fmt: skip
        assert answer.headers.get("x-heliostat-version", answer.headers.get("x-heliostat-code")) == expected


FIRST, SECOND = {"model_version": 1, "aliases": ("champion",)}, {"model_version": 2, "aliases": ("next",)}
OIP_ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((100, 0), "v1"), ((0, 100), "v2"), ((50, 50), "v2"), ((90, 0), "v1")],
    ids=["during a rollout or after a rollback", "after the rollout", "both: the newest", "beside another version"],
)
@pytest.mark.parametrize("name", ["1", "champion"])
async def test_a_version_deployed_twice_is_the_deployment_with_traffic(
    weights: tuple[int, int], expected: str, name: str
) -> None:
    first, second = weights
    house = House(config(target(1, first, **FIRST), target(2, second, **FIRST), target(3, 10, **SECOND)))
    assert (await house.call("/predict", ROW, x_heliostat_version=name)).headers["x-heliostat-version"] == expected
    answer = await house.call(f"/v2/models/iris/versions/{name}/infer", OIP_ROW)
    assert answer.headers["x-heliostat-version"] == expected


async def test_a_label_is_one_deployment_and_no_alias_of_another() -> None:
    house = House(config(target(1, 90, aliases=("v2",)), target(2, 10)))
    assert (await house.call("/predict", ROW, x_heliostat_version="v2")).headers["x-heliostat-version"] == "v2"


TWO_MODELS = (target(1, 90, model="a", model_version=1), target(2, 10, model="b", model_version=1))


@pytest.mark.parametrize("drawn", [0.0, 0.95])
@pytest.mark.parametrize(
    ("path", "expected"),
    [("a", "v1"), ("b", "v2"), ("a/versions/1", "v1"), ("b/versions/1", "v2"), ("a/versions/v1", "v1"),
     ("a/versions/v2", "unknown_version"), ("c", "not_found"), ("iris/versions/v1", "v1")],
)  # fmt: skip
async def test_of_two_models_the_one_in_the_path_answers(path: str, expected: str, drawn: float) -> None:
    house = House(config(*TWO_MODELS))
    house.hand.drawn = drawn
    answer = await house.call(f"/v2/models/{path}/infer", OIP_ROW)
    assert answer.headers.get("x-heliostat-version", answer.headers.get("x-heliostat-code")) == expected


@pytest.mark.parametrize(("drawn", "label"), [(0.0, "v1"), (0.95, "v2")])
async def test_the_endpoints_own_name_stands_for_all_its_models(drawn: float, label: str) -> None:
    house = House(config(*TWO_MODELS))
    house.hand.drawn = drawn
    assert (await house.call("/v2/models/iris/infer", OIP_ROW)).headers["x-heliostat-version"] == label


async def test_a_model_that_has_the_endpoints_name_is_meant_by_a_version_of_it() -> None:
    house = House(config(target(1, 10, model="iris", model_version=1), target(2, 90, model="b", model_version=1)))
    answer = await house.call("/v2/models/iris/versions/1/infer", OIP_ROW)
    assert answer.headers["x-heliostat-version"] == "v1"


async def test_metadata_of_each_model() -> None:
    house = House(config(*TWO_MODELS))
    for model in ("a", "b"):
        for path in (f"/v2/models/{model}", f"/v2/models/{model}/versions/1"):
            told = (await house.call(path, method="GET")).json()
            assert (told["name"], told["versions"]) == (model, ["1"])


async def test_a_model_without_traffic_says_so() -> None:
    house = House(config(target(1, 100, model="a"), target(2, 0, model="b")))
    answer = await house.call("/v2/models/b/infer", OIP_ROW)
    assert answer.headers["x-heliostat-code"] == "no_version_ready"
    assert b"No version of b takes traffic" in answer.body


async def test_no_weight_at_all_is_not_ready() -> None:
    house = House(config(target(1, 0)))
    answer = await house.call("/predict", ROW)
    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "no_version_ready", "5")
    assert (await house.call("/ping", method="GET")).status == 503


async def test_a_paused_version_is_not_asked() -> None:
    house = House(config(target(1, 1, paused=True)))
    answer = await house.call("/predict", ROW)
    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (429, "no_grant", "5")
    assert house.backend.asked == []


async def test_not_configured_yet() -> None:
    assert (await House().call("/predict", ROW)).status == 503


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405), ("DELETE", "/v2", 405), ("GET", "/v2/models/iris/infer", 405), ("GET", "/", 404),
        ("GET", "/v2/models/other", 404), ("GET", "/v2/models/iris/versions/7", 404), ("GET", "/v2/models/iris/", 200),
        ("GET", "/v2/models/iris/versions/11/ready", 200), ("POST", "/v2/repository/index", 200), ("HEAD", "/v2", 200),
        ("GET", "/openapi.json", 200), ("GET", "/version", 200), ("GET", "/v2/health/live", 200),
    ],
)  # fmt: skip
async def test_pages(method: str, path: str, status: int) -> None:
    answer = await House(config()).call(path, method=method)
    assert answer.status == status
    assert (answer.body == b"") == (method == "HEAD")
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/v2", "/openapi.json", "/v2/models/iris", "/version", "/nothing"])
async def test_pages_need_a_key(path: str) -> None:
    assert (await House(config()).call(path, method="GET", authorization="")).status == 401


async def test_a_large_answer_is_compressed_for_those_who_accept_it() -> None:
    house = House(config())
    body = {"inputs": {"x": [[1, 2]] * 200}}
    assert (await house.call("/predict", body, accept_encoding="gzip")).headers["content-encoding"] == "gzip"
    assert "content-encoding" not in (await house.call("/predict", body, accept_encoding="gzip;q=0")).headers
    assert "content-encoding" not in (await house.call("/predict", ROW, accept_encoding="gzip")).headers


def spooled(folder: Path, pattern: str = "*.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]


async def test_calls_are_written_down(tmp_path: Path) -> None:
    house = House(config(keys=(key(), key("hk_smoke", id="smoke", metered=False)), spool_dir=str(tmp_path / "iris")))
    await house.call("/predict", ROW, x_request_id='odd "id"')
    await house.call("/predict", {"inputs": {}})
    await house.call("/predict", ROW, authorization="Bearer hk_smoke")
    await house.call("/ping", method="GET")
    house.books.flush(0.0)
    assert spooled(tmp_path / "iris") == []
    assert len(spooled(tmp_path / "iris", "*.open")) == 3
    house.books.flush(3.0)
    good, bad, smoke = spooled(tmp_path / "iris")
    assert good == {"at_ms": 1_000_000, "key": "k1", "v": "v1", "status": 200, "code": "", "ms": 0.0, "bytes_in": 27,
                    "bytes_out": 75, "route": "predict", "request_id": 'odd "id"', "rows": 1}  # fmt: skip
    assert (bad["status"], bad["code"], bad["rows"]) == (400, "missing_input", 0)
    assert smoke["smoke"] is True
    counted = house.books.counter.take()
    assert counted.calls["v1", "predict", 200, ""] == 2
    assert counted.rows["v1"] == 2


async def test_nobody_fills_a_disk_without_a_key(tmp_path: Path) -> None:
    house = House(config(spool_dir=str(tmp_path)))
    for _ in range(300):
        await house.call("/predict", ROW, authorization="")
    house.books.close()
    assert len(spooled(tmp_path)) == 50
    assert house.books.counter.take().calls["", "predict", 401, "unauthenticated"] == 300


async def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    house = House(config(spool_dir=str(tmp_path / "file" / "x")))
    assert (await house.call("/predict", ROW)).status == 200
    house.books.flush(0.0)
    assert "cannot be written" in caplog.text
    (tmp_path / "file").unlink()
    house.books.flush(1.0)
    house.books.flush(4.0)
    assert len(spooled(tmp_path / "file" / "x")) == 1


async def test_a_client_that_leaves_is_written_down() -> None:
    house = House(config())
    await house.gone("/predict", [{"type": "http.request", "body": b"{", "more_body": True}])
    assert house.books.counter.take().calls["v1", "predict", 499, "client_gone"] == 1


def test_a_configuration_survives_json() -> None:
    conf = config(*TARGETS, sticky="header:X-User", limits=SMALL)
    assert GatewayConfig.from_json(json.loads(json.dumps(conf.to_json()))) == conf
