"""Calls of an endpoint: POST /predict with a key, tried again where a repetition is harmless.

A prediction changes nothing, so every call may be repeated. Repeated are: no answer or a broken connection (a gateway died), 429,
502, 503, 504, a 500 that is not the endpoint's own word, and the 404 of a proxy that has just started and knows no route yet.
What the endpoint itself refuses (wrong shape, unknown key, a model that fails) is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from heliostat.version import VERSION
from heliostat.wire.call import Retry
from heliostat.wire.errors import (
    BadRequest,
    ConnectionFailed,
    HeliostatError,
    ServiceError,
    Unauthenticated,
    from_problem,
)
from heliostat.wire.transport import HttpTransport, Request, Response, Transport, TransportError

REPEATABLE = frozenset({429, 502, 503, 504})
MAX_RETRY_AFTER_S = 5.0
NEW_KEY_S = 5.0
"""How long a key may be unknown to a gateway after it was made."""


class Predictor:
    """Speaks with one endpoint. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: Transport | None = None,
        timeout_s: float = 60.0,
        retry: Retry = Retry(give_up_s=20.0),  # noqa: B008 - frozen
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self._path = parts.path.rstrip("/")
        self._transport = transport or HttpTransport(f"{parts.scheme}://{parts.netloc}")
        self._key = key
        self._timeout_s = timeout_s
        self._retry = retry
        self._sleep = sleep
        self._clock = clock

    def predict(
        self, inputs: Mapping[str, Any], *, version: str = "", fresh_key: bool = False
    ) -> dict[str, Any]:  # Any: JSON
        """The endpoint's whole answer: outputs by name, model, version, deployment.

        version: of several with weights, this one (`v2`). fresh_key: the key was made a moment ago, so a 401 may be too early.
        """
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"heliostat/{VERSION}",
        }
        if version:
            headers["X-Heliostat-Version"] = version
        body = json.dumps({"inputs": {name: plain(value) for name, value in inputs.items()}}).encode()
        return self._post(Request("POST", f"{self._path}/predict", headers, body, self._timeout_s), fresh_key)

    def close(self) -> None:
        self._transport.close()

    def _post(self, request: Request, fresh_key: bool) -> dict[str, Any]:  # Any: JSON
        started, pause_s = self._clock(), self._retry.first_pause_s
        while True:
            failure: TransportError | None = None
            answer: Response | None = None
            wait_s = pause_s
            try:
                answer = self._transport.send(request)
                if answer.status == 200:
                    return _document(answer, self.url)
                early = fresh_key and answer.status == 401 and self._clock() - started < NEW_KEY_S
                if not early and not _again(answer):
                    raise _refusal(answer, self.url)
                wait_s = max(pause_s, _retry_after(answer))
            except TransportError as error:
                failure = error
            if self._clock() - started + wait_s > self._retry.give_up_s:
                if answer is not None:
                    raise _refusal(answer, self.url)
                raise ConnectionFailed(
                    f"No answer from {self.url}: {failure}.", remedy="Is it ready? helio endpoint ls shows it."
                ) from failure
            self._sleep(wait_s)
            pause_s = min(pause_s * 2, self._retry.longest_pause_s)


def named(inputs: Any, signature: Mapping[str, Any]) -> dict[str, Any]:  # Any: arrays, nested lists, JSON
    """The inputs by name: as they are, or the only input of the model where no name is given."""
    names = [str(tensor["name"]) for tensor in signature.get("inputs", ())]
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if len(names) != 1:
        text = (
            f"The model has the inputs {', '.join(names)}." if names else "The endpoint has no version that is ready."
        )
        raise BadRequest(
            text, remedy=f"Give a dictionary, for example predict({{'{names[0] if names else 'x'}': [[...]]}})."
        )
    return {names[0]: inputs}


def plain(value: Any) -> Any:  # Any: arrays of numpy or torch, nested lists
    """Nested lists; arrays and tensors know how to become them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _again(answer: Response) -> bool:
    if answer.status in REPEATABLE:
        return True
    ours = "json" in answer.headers.get("content-type", "")
    return not ours and answer.status in (404, 500)


def _refusal(answer: Response, url: str) -> HeliostatError:
    try:
        problem = json.loads(answer.body)
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        if answer.status == 401:
            remedy = str(problem.get("remedy") or "Make one: helio key create ENDPOINT")
            return Unauthenticated(
                str(problem.get("detail")), code=str(problem.get("code", "")), remedy=remedy, status=401
            )
        return from_problem(answer.status, problem)
    if answer.status == 404:
        remedy = "helio endpoint ls shows which there are, and whether they are ready."
        return ServiceError(f"Nothing is served at {url}.", code="not_served", remedy=remedy, status=404)
    return from_problem(answer.status, {"detail": answer.body[:300].decode("utf-8", "replace")})


def _document(answer: Response, url: str) -> dict[str, Any]:  # Any: JSON
    try:
        document = json.loads(answer.body)
    except ValueError as error:
        raise ServiceError(f"{url} sent an answer that is no JSON.", code="bad_answer") from error
    if not isinstance(document, dict):
        raise ServiceError(f"{url} sent an answer of an unknown form.", code="bad_answer")
    return document


def _retry_after(answer: Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdigit() else 0.0
