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
