"""What an endpoint says of itself: health without a key, metadata and OpenAPI with one."""

from __future__ import annotations

import re
from importlib.metadata import version as distribution_version

from heliostat_serving.door import replies
from heliostat_serving.door.replies import Reply
from heliostat_serving.door.state import State
from heliostat_serving.spec import Key, Target
from heliostat_serving.wire import oip, openapi
from heliostat_serving.wire.faults import Fault

OPEN = frozenset({"/ping", "/health", "/v2/health/live", "/v2/health/ready"})
MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready)?")
RELEASE = distribution_version("heliostat")


def openly(path: str, method: str, now: State) -> Reply:
    """Health. Live: this replica answers. Ready: an ordinary call would be answered."""
    _only(method, path, "GET")
    if path != "/v2/health/live" and not now.split.ready:
        raise Fault(
            "no_version_ready", "No version takes traffic now.", "Try again later.", now.config.limits.retry_after_s
        )
    return replies.of_json({"live": True} if path == "/v2/health/live" else {"ready": True})


def show(path: str, method: str, now: State, key: Key, prefix: str) -> Reply:
    match path:
        case "/v2":
            _only(method, path, "GET")
            return replies.of_json(
                {"name": now.config.endpoint, "version": RELEASE, "extensions": ["binary_tensor_data"]}
            )
        case "/version":
            _only(method, path, "GET")
            return replies.of_json({"heliostat": RELEASE})
        case "/openapi.json":
            _only(method, path, "GET")
            return replies.of_json(
                openapi.document(now.config.endpoint, prefix, _main(now), now.config.limits.max_rows)
            )
        case "/v2/repository/index":
            _only(method, path, "POST")
            return replies.of_json(_index(now))
    found = MODEL.fullmatch(path)
    if found is None:
        raise Fault("not_found", f"There is no {path[:200]} here.", "Try /predict, /v2, /invocations or /openapi.json.")
    _only(method, path, "GET")
    target = now.split.choose(key, {}, found[2], found[1]) if found[2] else _main(now, found[1])
    if found[3]:
        if target.paused:
            raise Fault("no_grant", f"{target.label} has no replica granted now.", "", now.config.limits.retry_after_s)
        return replies.of_json({"name": target.model, "ready": True})
    versions = list(dict.fromkeys(str(it.model_version) for it in now.split.targets if it.model == target.model))
    return replies.of_json(oip.metadata(target, versions))


def _main(now: State, model: str = "") -> Target:
    target = now.split.group(model).main
    if target is None:
        raise Fault("no_version_ready", "No version is deployed.", "Try again later.", now.config.limits.retry_after_s)
    return target


def _index(now: State) -> list[dict[str, str]]:
    return [
        {
            "name": target.model,
            "version": str(target.model_version),
            "state": "UNAVAILABLE" if target.paused else "READY",
        }
        for target in now.split.targets
    ]


def _only(method: str, path: str, wanted: str) -> None:
    if method != wanted and (wanted, method) != ("GET", "HEAD"):
        raise Fault("method_not_allowed", f"{path} takes {wanted}, not {method}.", allow=wanted)
