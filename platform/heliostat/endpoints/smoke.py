"""The smoke request: a real inference through the endpoint's own door, pinned to one version, before traffic may follow.

It speaks the Open Inference Protocol with one row: the signature's example, or zeros. Whoever answers it with outputs has loaded
the model, knows the gateway, and computes. A door that is not there yet says nothing about the version: Serve's proxies and gateways
hear of a new route a moment after it was put, later on a busy machine, so the request is repeated for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from heliostat_serving.spec import Signature, TensorSpec, route, version_label

from heliostat.endpoints.steps import SmokeResult

TIMEOUT_S = 30.0
PIN_HEADER = "X-Heliostat-Version"
NO_DOOR = frozenset((404, 502, 503, 504))
"""What a proxy or a gateway answers that does not know the route or the version yet, or has just lost its replica."""
DOOR_TRIES = 40
DOOR_PAUSE_S = 0.5
SENDERS = 8
"""At once, so that an endpoint whose door stays shut holds up nobody else's version."""


@dataclass(frozen=True, slots=True)
class SmokeRequest:
    """base_url: of Serve's HTTP."""

    base_url: str
    endpoint: str
    number: int
    model: str
    signature: Mapping[str, Any]  # Any: JSON
    key: str

    @property
    def url(self) -> str:
        return f"{self.base_url}{route(self.endpoint)}/v2/models/{quote(self.model, safe='')}/infer"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", PIN_HEADER: version_label(self.number)}

    def body(self) -> dict[str, Any]:  # Any: JSON
        return {"inputs": [_row(tensor) for tensor in Signature.from_json(self.signature).inputs]}


Pause = Callable[[float], None]
Send = Callable[[SmokeRequest], str]
"""Sends it; returns "" when it was answered as it should be, else what was wrong."""


def send(request: SmokeRequest, post: Callable[..., httpx.Response] = httpx.post, pause: Pause = time.sleep) -> str:
    for _ in range(DOOR_TRIES - 1):
        trouble, no_door = _try(request, post)
        if not no_door:
            return trouble
        pause(DOOR_PAUSE_S)
    return _try(request, post)[0]


def _try(request: SmokeRequest, post: Callable[..., httpx.Response]) -> tuple[str, bool]:
    """What was wrong, and whether that was only that nobody stood at the door."""
    try:
        reply = post(request.url, json=request.body(), headers=request.headers, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        text = f"No answer from {request.url}: {type(error).__name__} {error}"
        return text, isinstance(error, httpx.ConnectError | httpx.RemoteProtocolError)
    if reply.status_code != httpx.codes.OK:
        text = f"HTTP {reply.status_code} from {request.url}: {reply.text[:2000]}"
        return text, reply.status_code in NO_DOOR
    try:
        outputs = reply.json().get("outputs")
    except ValueError:
        outputs = None
    return ("" if outputs else f"The answer has no outputs: {reply.text[:2000]}"), False


class SmokeDesk:
    """Sends smoke requests beside the service's own thread and remembers what came of them."""

    def __init__(self, send: Send, run: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._send = send
        self.done: Callable[[], None] = lambda: None
        self._pool = ThreadPoolExecutor(SENDERS, "smoke") if run is None else None
        self._run = run or self._in_pool
        self._under_way: set[tuple[str, int, int]] = set()
        self.results: dict[tuple[str, int, int], SmokeResult] = {}

    def ask(self, place: tuple[str, int, int], request: SmokeRequest) -> None:
        """place: (endpoint, number, attempt). Nothing happens while one is on its way."""
        if place in self._under_way:
            return
        self._under_way.add(place)

        def work() -> None:
            try:
                trouble = self._send(request)
            except Exception as error:  # noqa: BLE001  (a failed try like any other: it is told with the version)
                trouble = f"It could not be sent: {type(error).__name__}: {error}"
            before = self.results.get(place)
            tries = before.tries + 1 if before is not None else 1
            self.results[place] = SmokeResult(not trouble, trouble, tries)
            self._under_way.discard(place)
            self.done()

        self._run(work)

    def forget(self, keep: set[tuple[str, int, int]]) -> None:
        """Drop the results of attempts that are over."""
        self.results = {place: result for place, result in self.results.items() if place in keep}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_pool(self, work: Callable[[], None]) -> None:
        assert self._pool is not None
        self._pool.submit(work)


def _row(tensor: TensorSpec) -> dict[str, Any]:  # Any: JSON
    shape = [1 if size == -1 else size for size in tensor.shape]
    return {"name": tensor.name, "datatype": tensor.dtype, "shape": shape, "data": tensor.row()}
