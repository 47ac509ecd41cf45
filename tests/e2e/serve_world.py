"""A Ray cluster with Serve as `helio up` starts it, endpoints put there by hand, and callers that count every answer.

The control plane is not part of it: these tests render Serve's document with `heliostat_serving.spec` and PUT it, as the single
writer does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from heliostat_serving.spec import (
    Batching,
    DirectConfig,
    GatewayConfig,
    GatewaySpec,
    Key,
    Limits,
    Scale,
    Signature,
    Target,
    TensorSpec,
    VersionSpec,
    direct_application,
    gateway_application,
    version_app,
    version_application,
)

from tests.e2e.ray_cluster import RayCluster, free_ports, start_ray

KEY = "hk_" + "a" * 40
CALLER = Key("tests", hashlib.sha256(KEY.encode()).hexdigest(), pin=True)
PLAIN = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))
CODE = '''
import os, time, torch


class Scaled(torch.nn.Module):
    """x * scale; sleeps `pause_s` per call; NaN-free inputs above 1e6 make it raise."""

    def __init__(self, pause_s=0.0, broken=False):
        super().__init__()
        if broken:
            raise ValueError("this model never loads")
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.pause_s = pause_s

    def forward(self, x):
        time.sleep(self.pause_s)
        if float(x.max()) > 1e6:
            raise RuntimeError("too much")
        return x * self.scale
'''


def serve_environ() -> dict[str, str]:
    """What `helio up` gives Ray for Serve, with ports of one's own."""
    stats, metrics = free_ports(2)
    return {
        "RAY_worker_niceness": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def write_scaled(folder: Path, scale: float, **args: Any) -> tuple[str, str]:
    """An artifact x -> x * scale; its address and digest."""
    import torch
    from safetensors.torch import save_file

    (folder / "code").mkdir(parents=True)
    (folder / "code" / "scaled.py").write_text(CODE)
    save_file({"scale": torch.full((4,), scale)}, folder / "model.safetensors")
    card = {"format": "safetensors", "factory": "scaled:Scaled", "args": args, "signature": PLAIN.to_json()}
    (folder / "model.json").write_text(json.dumps(card))
    return f"file://{folder}", write_manifest(folder)


def write_manifest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = [
        {"path": str(path.relative_to(folder)), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in files
    ]  # fmt: skip
    raw = json.dumps({"files": entries}).encode()
    (folder / "manifest.json").write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


@dataclass
class ServeWorld:
    cluster: RayCluster
    port: int
    folder: Path
    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, trust_env=False, timeout=60))
    """One for all: each new one would load certificates."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spec(self, endpoint: str, n: int, scale: float, **changes: Any) -> VersionSpec:
        args = changes.pop("args", {})
        uri, sha256 = write_scaled(self.folder / f"{endpoint}-{n}", scale, **args)
        made = VersionSpec(endpoint, n, "scaled", n, uri, sha256, PLAIN, num_cpus=0.1)
        return replace(made, **changes)

    def config(self, endpoint: str, weights: dict[int, int], **changes: Any) -> GatewayConfig:
        targets = tuple(
            Target(version_app(endpoint, n), n, "scaled", n, PLAIN, weight=weight) for n, weight in weights.items()
        )
        made = GatewayConfig(endpoint, (CALLER,), targets, spool_dir=str(self.folder / "spool" / endpoint))
        return replace(made, **changes)

    def version(self, spec: VersionSpec, scale: Scale | None = None) -> None:
        self.apps[spec.app] = version_application(spec, scale or Scale())

    def gateway(self, config: GatewayConfig, replicas: int = 1) -> None:
        spec = GatewaySpec(config.endpoint, replicas)
        self.apps[spec.app] = gateway_application(spec, replace(config, replicas=replicas))

    def direct(self, spec: VersionSpec, config: DirectConfig, scale: Scale | None = None) -> None:
        self.apps[spec.app] = direct_application(spec, scale or Scale(), config)

    def put(self) -> None:
        """The whole document, as the single writer sends it."""
        document = {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "proxy_location": "HeadOnly",
            "applications": list(self.apps.values()),
        }
        url = f"{self.cluster.dashboard}/api/serve/applications/"
        reply = self.http.put(url, json=document, headers=self.cluster.headers())
        assert reply.status_code == 200, reply.text

    def status(self) -> dict[str, Any]:
        url = f"{self.cluster.dashboard}/api/serve/applications/"
        reply = self.http.get(url, headers=self.cluster.headers())
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def application(self, app: str) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["applications"].get(app, {})
        return found

    def replicas(self, app: str) -> list[dict[str, Any]]:
        return [
            replica
            for deployment in self.application(app).get("deployments", {}).values()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        ]

    def until_running(self, *apps: str, limit_s: float = 90.0) -> None:
        def running() -> bool:
            found = self.status()["applications"]
            states = {app: found.get(app, {}).get("status") for app in apps or self.apps}
            failed = [app for app, state in states.items() if state == "DEPLOY_FAILED"]
            assert not failed, json.dumps(found[failed[0]], indent=1)[:3000]
            return all(state == "RUNNING" for state in states.values())

        until(running, "all applications run", limit_s)

    def call(self, endpoint: str, row: list[float], **headers: str) -> httpx.Response:
        return self.http.post(
            f"{self.url}/endpoints/{endpoint}/predict",
            json={"inputs": {"x": [row]}},
            headers={"Authorization": f"Bearer {KEY}", **headers},
        )

    def until_answers(self, endpoint: str, limit_s: float = 30.0) -> None:
        """HAProxy learns of a new ingress a moment after Serve calls it running."""

        def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return self.call(endpoint, [1, 2, 3, 4]).status_code == 200
            return False

        until(answers, f"endpoint {endpoint} answers", limit_s)


@dataclass
class Load:
    """Callers in a closed loop; every answer is counted, and when it came. `retry_s`: calls without an answer are sent again so
    long (as the SDK does); 0 counts them as failed."""

    world: ServeWorld
    endpoint: str
    clients: int = 8
    retry_s: float = 0.0
    answers: list[tuple[float, str]] = field(default_factory=list)
    """(when, "200 v1" or what went wrong)"""
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _client(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        url = f"{self.world.url}/endpoints/{self.endpoint}/predict"
        body = json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}})
        with httpx.Client(headers=headers, timeout=30, verify=False, trust_env=False) as client:
            while not self._end.is_set():
                self.answers.append(self._one(client, url, body))

    def _one(self, client: httpx.Client, url: str, body: str) -> tuple[float, str]:
        begun = time.monotonic()
        while True:
            try:
                reply = client.post(url, content=body)
                said = f"{reply.status_code} {reply.headers.get('x-heliostat-version', reply.text[:80])}"
            except httpx.TransportError as error:
                said = type(error).__name__
                if time.monotonic() - begun < self.retry_s:
                    time.sleep(0.05)
                    continue
            return time.monotonic(), said

    def failed(self) -> list[tuple[float, str]]:
        return [(at, said) for at, said in self.answers if not said.startswith("200")]

    def since(self, at: float) -> Counter[str]:
        return Counter(said for when, said in self.answers if when >= at)

    def longest_gap_s(self, since: float) -> float:
        """Between two good answers."""
        times = sorted(when for when, said in self.answers if said.startswith("200") and when >= since)
        return max((later - earlier for earlier, later in zip([since, *times], times, strict=False)), default=1e9)


@contextlib.contextmanager
def serve_world(folder: Path, num_cpus: int = 6) -> Iterator[ServeWorld]:
    with start_ray(num_cpus=num_cpus, environ=serve_environ()) as cluster:
        world = ServeWorld(cluster, free_ports(1)[0], folder)
        with world.http:
            yield world


def until(condition: Callable[[], bool], what: str, limit_s: float = 30.0) -> float:
    """Waits for it; returns the seconds it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit_s:
            raise AssertionError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - begun


def kill9(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def rows(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((count, 4), dtype=np.float32)


BATCHED = Batching(inline_ms=0.0)
SMALL = Limits(max_body_bytes=1 << 20, body_timeout_s=1.0, max_rows=1000)
