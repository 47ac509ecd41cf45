"""An endpoint as its clients see it: unmodified tritonclient, MLflow's scoring request, our own /predict; bad input; keys; direct mode."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from heliostat_serving.spec import DirectConfig, GatewayConfig, Key

from tests.e2e.serve_world import BATCHED, KEY, SMALL, ServeWorld, rows, serve_world, until

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
AUTH = {"Authorization": f"Bearer {KEY}"}
"""Copied for tritonclient, which writes into the headers it is given."""
BOTH = pytest.mark.parametrize("endpoint", ["plain", "fast"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeWorld]:
    """`plain`: two versions behind a gateway, the second without weight. `fast`: one version in direct mode."""
    with serve_world(tmp_path_factory.mktemp("serve")) as world:
        world.version(world.spec("plain", 1, 2.0))
        world.version(world.spec("plain", 2, 3.0, batching=BATCHED))
        world.gateway(world.config("plain", {1: 1, 2: 0}, limits=SMALL))
        world.direct(world.spec("fast", 1, 2.0, direct=True), direct(world.config("fast", {1: 1}, limits=SMALL)))
        world.put()
        world.until_running()
        world.until_answers("plain")
        world.until_answers("fast")
        yield world


def direct(config: GatewayConfig) -> DirectConfig:
    return DirectConfig.from_json(config.to_json())


def client(world: ServeWorld, endpoint: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{world.port}/endpoints/{endpoint}")


@BOTH
def test_tritonclient_finds_health_and_metadata(world: ServeWorld, endpoint: str) -> None:
    talk = client(world, endpoint)
    assert talk.is_server_live()
    assert talk.is_server_ready()
    assert talk.is_model_ready("scaled", headers=dict(AUTH))
    assert not talk.is_model_ready("other", headers=dict(AUTH))
    assert talk.get_server_metadata(headers=dict(AUTH))["extensions"] == ["binary_tensor_data"]
    found = talk.get_model_metadata("scaled", headers=dict(AUTH))
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert found["versions"] == (["1", "2"] if endpoint == "plain" else ["1"])


@BOTH
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_tritonclient_infers(
    world: ServeWorld, endpoint: str, binary_in: bool, binary_out: bool, packing: str | None
) -> None:
    given = rows(100)
    tensor = triton.InferInput("x", list(given.shape), "FP32")
    tensor.set_data_from_numpy(given, binary_data=binary_in)
    wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
    answer = client(world, endpoint).infer(
        "scaled", [tensor], outputs=[wanted], headers=dict(AUTH), request_id="call-7",
        request_compression_algorithm=packing, response_compression_algorithm=packing,
    )  # fmt: skip
    assert np.array_equal(answer.as_numpy("y"), given * 2)
    assert answer.get_response()["id"] == "call-7"


def test_tritonclient_names_a_version(world: ServeWorld) -> None:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    talk = client(world, "plain")
    assert talk.infer("scaled", [tensor], model_version="2", headers=dict(AUTH)).as_numpy("y")[0, 0] == 3
    with pytest.raises(triton.InferenceServerException, match="no version 9"):
        talk.infer("scaled", [tensor], model_version="9", headers=dict(AUTH))
    with pytest.raises(triton.InferenceServerException, match="no model other"):
        talk.infer("other", [tensor], headers=dict(AUTH))


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": [[1, 2, 3, 4], [5, 6, 7, 8]]}},
        {"dataframe_records": [{"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 5, "b": 6, "c": 7, "d": 8}]},
        {"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        {"inputs": {"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}},
    ],
    ids=lambda body: next(iter(body)),
)
def test_an_mlflow_scoring_request(world: ServeWorld, endpoint: str, body: dict[str, Any]) -> None:
    reply = world.http.post(f"{world.url}/endpoints/{endpoint}/invocations", json=body, headers=dict(AUTH))
    assert reply.json() == {"predictions": [[2, 4, 6, 8], [10, 12, 14, 16]]}
    assert world.http.get(f"{world.url}/endpoints/{endpoint}/ping").status_code == 200


def test_openapi_describes_the_signature(world: ServeWorld) -> None:
    found = world.http.get(f"{world.url}/endpoints/plain/openapi.json", headers=dict(AUTH)).json()
    body = found["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["inputs"]["properties"]["x"]["items"]["maxItems"] == 4
    assert found["servers"] == [{"url": "/endpoints/plain"}]


BINARY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
HEAD = json.dumps(BINARY).encode()
INFER = "/v2/models/scaled/infer"
LENGTH = {"Inference-Header-Content-Length": str(len(HEAD))}
BAD: list[tuple[str, str, bytes, dict[str, str], int, str]] = [
    ("wrong shape", "/predict", b'{"inputs": {"x": [[1, 2, 3]]}}', {}, 400, "wrong_shape"),
    ("wrong dtype", "/predict", b'{"inputs": {"x": [["1", 2, 3, 4]]}}', {}, 400, "wrong_dtype"),
    ("ragged", "/predict", b'{"inputs": {"x": [[1, 2, 3, 4], [1]]}}', {}, 400, "bad_tensor"),
    ("NaN", "/predict", b'{"inputs": {"x": [[NaN, 2, 3, 4]]}}', {}, 400, "not_finite"),
    ("null", "/predict", b'{"inputs": {"x": [[null, 2, 3, 4]]}}', {}, 400, "not_finite"),
    ("too large for its type", "/predict", b'{"inputs": {"x": [[1e300, 2, 3, 4]]}}', {}, 400, "not_finite"),
    ("malformed JSON", "/predict", b'{"inputs": {"x": [[1, 2', {}, 400, "bad_json"),
    ("deep JSON", "/predict", b"[" * 100_000, {}, 400, "bad_json"),
    ("no UTF-8", "/predict", b'{"\xff": 1}', {}, 400, "bad_json"),
    ("missing input", "/predict", b'{"inputs": {}}', {}, 400, "missing_input"),
    ("unknown input", "/invocations", b'{"inputs": {"z": [1]}}', {}, 400, "unknown_input"),
    ("two forms", "/invocations", b'{"inputs": [], "instances": []}', {}, 400, "missing_input"),
    ("csv with too few columns", "/invocations", b"a,b\n1,2", {"Content-Type": "text/csv"}, 400, "wrong_shape"),
    ("a form", "/invocations", b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media"),
    ("truncated binary", INFER, HEAD + bytes(15), LENGTH, 400, "bad_binary"),
    ("oversized binary", INFER, HEAD + bytes(17), LENGTH, 400, "bad_binary"),
    ("header beyond the body", INFER, HEAD, {"Inference-Header-Content-Length": "99999"}, 400, "bad_header"),
    ("header no number", INFER, HEAD, {"Inference-Header-Content-Length": "-5"}, 400, "bad_header"),
    ("unknown version", "/v2/models/scaled/versions/77/infer", b"{}", {}, 404, "unknown_version"),
    ("unknown path", "/nothing", b"{}", {}, 404, "not_found"),
    ("gzip bomb", INFER, gzip.compress(bytes(50 << 20)), {"Content-Encoding": "gzip"}, 413, "body_too_large"),
    ("broken gzip", "/predict", b"\x1f\x8b\x08 nonsense", {"Content-Encoding": "gzip"}, 400, "bad_encoding"),
    ("unknown encoding", "/predict", b"{}", {"Content-Encoding": "zstd"}, 415, "unsupported_media"),
    ("large body", "/predict", bytes(2 << 20), {}, 413, "body_too_large"),
    ("many rows", "/predict", json.dumps({"inputs": {"x": [[1, 2, 3, 4]] * 1001}}).encode(), {}, 400, "too_many_rows"),
    ("no key", "/predict", b"{}", {"Authorization": ""}, 401, "unauthenticated"),
    ("wrong key", INFER, b"{}", {"Authorization": "Bearer hk_wrong"}, 401, "unauthenticated"),
]  # fmt: skip


@BOTH
def test_bad_input_is_the_callers_fault_and_harms_nobody(world: ServeWorld, endpoint: str) -> None:
    app = "ep-plain-v1" if endpoint == "plain" else "ep-fast-v1"
    before = [replica["pid"] for replica in world.replicas(app)]
    wrong = []
    for name, path, body, headers, status, code in BAD:
        url = f"{world.url}/endpoints/{endpoint}{path}"
        reply = world.http.post(url, content=body, headers={**AUTH, **headers})
        field = {"/v2": "error", "/in": "message"}.get(path[:3], "detail")
        if (reply.status_code, reply.headers.get("x-heliostat-code")) != (status, code) or not reply.json()[field]:
            wrong.append((name, reply.status_code, reply.text[:200]))
    assert wrong == []
    assert world.call(endpoint, [1, 2, 3, 4]).json()["outputs"] == {"y": [[2, 4, 6, 8]]}
    assert [replica["pid"] for replica in world.replicas(app)] == before


def test_a_slow_client_is_told_so(world: ServeWorld) -> None:
    with socket.create_connection(("127.0.0.1", world.port), timeout=10) as slow:
        head = f"POST /endpoints/plain/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
        slow.sendall(head.encode() + b'{"inputs"')
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]


def test_a_model_that_raises_is_a_500_and_lives_on(world: ServeWorld) -> None:
    for endpoint in ("plain", "fast"):
        reply = world.call(endpoint, [1e7, 2, 3, 4])
        assert (reply.status_code, reply.json()["code"]) == (500, "model_failed")
        assert "Traceback" not in reply.text
        assert world.call(endpoint, [1, 2, 3, 4]).status_code == 200


def test_a_limited_key_gets_429_and_a_revoked_one_401_within_5_s(world: ServeWorld) -> None:
    text = "hk_limited"
    few = Key("few", hashlib.sha256(text.encode()).hexdigest(), rate_per_s=0.5, burst=3)
    config = world.config("plain", {1: 1, 2: 0}, limits=SMALL)
    world.gateway(replace(config, keys=(*config.keys, few)))
    world.put()
    mine: Callable[[], httpx.Response] = lambda: world.call("plain", [1, 2, 3, 4], Authorization=f"Bearer {text}")  # noqa: E731
    assert until(lambda: mine().status_code != 401, "the new key works") < 5
    until(lambda: mine().status_code == 429, "the burst is spent")
    reply = mine()
    assert (reply.json()["code"], reply.headers["retry-after"].isdigit()) == ("rate_limited", True)
    world.gateway(config)
    world.put()
    assert until(lambda: mine().status_code == 401, "the key is revoked") < 5


def test_usage_is_spooled_and_counted(world: ServeWorld) -> None:
    world.call("fast", [1, 2, 3, 4], **{"X-Request-ID": "mark-1"})
    spool = Path(world.folder) / "spool" / "fast"

    def lines() -> list[dict[str, Any]]:
        closed = [line for path in spool.glob("*.jsonl") for line in path.read_text().splitlines()]
        return [found for line in closed if (found := json.loads(line))["request_id"] == "mark-1"]

    until(lambda: bool(lines()), "the call is in a closed usage file")
    found = lines()[0]
    assert (found["key"], found["v"], found["status"], found["rows"], found["route"]) == (
        "tests",
        "v1",
        200,
        1,
        "predict",
    )
    assert found["bytes_in"] > 10 < found["bytes_out"]
    metrics = world.cluster.metrics_url()
    wanted = (
        "ray_heliostat_endpoint_requests_total{",
        "ray_heliostat_endpoint_latency_seconds_bucket_total{",
        'endpoint="fast"',
    )

    def exported() -> bool:
        shown = world.http.get(metrics).text
        return all(words in shown for words in wanted)

    until(exported, "Prometheus has the calls", 30)


def test_a_version_that_cannot_load_shows_its_traceback_and_stops_nobody(world: ServeWorld) -> None:
    damaged = world.spec("bad", 1, 2.0)
    (world.folder / "bad-1" / "model.safetensors").write_bytes(b"something else")
    world.version(damaged)
    world.version(world.spec("bad", 2, 2.0, args={"broken": True}))
    world.put()

    def said(app: str, words: str) -> Callable[[], bool]:
        return lambda: words in json.dumps(world.application(app))

    until(said("ep-bad-v1", "the artifact is corrupt"), "the damaged artifact is refused by its digest", 60)
    until(said("ep-bad-v2", "this model never loads"), "the traceback of the broken model is there", 60)
    assert world.call("plain", [1, 2, 3, 4]).status_code == 200
    del world.apps["ep-bad-v1"], world.apps["ep-bad-v2"]
    world.put()


def test_a_paused_version_answers_429_and_is_not_woken(world: ServeWorld) -> None:
    config = world.config("plain", {1: 1, 2: 0}, limits=SMALL)
    paused = tuple(replace(target, paused=True) for target in config.targets)
    world.gateway(replace(config, targets=paused))
    world.put()
    until(lambda: world.call("plain", [1, 2, 3, 4]).status_code == 429, "the pause is in force", 10)
    reply = world.call("plain", [1, 2, 3, 4])
    assert (reply.json()["code"], reply.headers["retry-after"]) == ("no_grant", "5")
    world.gateway(config)
    world.put()
    begun = time.monotonic()
    until(lambda: world.call("plain", [1, 2, 3, 4]).status_code == 200, "the pause is over", 10)
    assert time.monotonic() - begun < 5
