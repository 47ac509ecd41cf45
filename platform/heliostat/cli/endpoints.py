"""`helio deploy`, `helio endpoint` and `helio key`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.client.asking import span_s
from heliostat.client.endpoints import Endpoint, Endpoints
from heliostat.client.files import text_of
from heliostat.client.prediction import Predictor, named
from heliostat.render.endpoints import (
    access_line,
    deployment_table,
    endpoint_card,
    endpoint_table,
    key_table,
    usage_table,
)
from heliostat.wire.errors import BadRequest, ExitCode, ServiceError

FOLLOW_S = 1.0
CALL_KEY_S = 120


@click.command()
@click.argument("model", metavar="MODEL[:N|@ALIAS]")
@click.option("--endpoint", "name", required=True, metavar="NAME", help="Made when it is new.")
@click.option("--replicas", default="1", show_default=True, metavar="N|LEAST..MOST", help="0..N lets it sleep.")
@click.option("--gpus", type=float, default=0, show_default=True, metavar="N", help="Per replica: 0 or 1.")
@click.option("--cpus", type=float, metavar="N", help="Per replica (default 0.5).")
@click.option("--memory", metavar="SIZE", help="Per replica, for example 2GiB.")
@click.option(
    "--weight", type=click.IntRange(0, 100), metavar="PERCENT", help="Its share once it is ready (default: all)."
)
@click.option("--direct", is_flag=True, help="One version without a gateway: no second hop, no split, no sleep.")
@click.option(
    "--sticky/--no-sticky", default=None, help="Whether all calls of a key go to one version (default: as it is)."
)
@click.option("--gateways", type=int, metavar="N", help="Replicas of the endpoint's gateway (a new endpoint has one).")
@click.option("--max-batch", type=int, metavar="ROWS", help="Put requests together up to this many rows.")
@click.option(
    "--batch-wait-ms", type=float, metavar="MS", help="How long a call waits for company (default: not at all)."
)
@click.option("--queue", metavar="NAME", help="Queue whose GPUs or CPUs its replicas use.")
@click.option("--priority", metavar="CLASS", help="low, normal, high, critical or a number.")
@click.option(
    "--preemptibility",
    type=click.Choice(["preemptible", "semi-preemptible", "non-preemptible"]),
    help="Whether its replicas may be taken away.",
)
@click.option("--flavor", metavar="NAME", help="Kind of GPU.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is ready or has failed.")
@click.option("--timeout", default="10m", show_default=True, metavar="TIME", help="How long to wait.")
@json_option
@pass_app
def deploy(
    app: App, /, model: str, name: str, wait: bool, timeout: str, as_json: bool, **asked: Any
) -> int:  # Any: options above
    """Serve a registered model at an endpoint. Exit 1 when its replica cannot start: helio endpoint show has the traceback."""
    endpoints = _endpoints(app)
    given = {key: value for key, value in asked.items() if value is not None}
    endpoint = endpoints.deploy(model, name, **given)
    if wait:
        try:
            endpoint.wait_ready(timeout, told=None if as_json else hint)
        except ServiceError as error:
            endpoint.refresh()
            if not error.code.startswith("deployment_"):
                raise
            show_json(endpoint.data) if as_json else show(_card(app, endpoint))
            return ExitCode.JOB_FAILED
    if as_json:
        show_json(endpoint.data)
        return ExitCode.OK
    found = next((row for row in endpoint.deployments if row["version"] == endpoint.deployed), None)
    show(f"{name} {endpoint.deployed} {found['state'] if found else 'gone'}  {endpoint.url}")
    if found and found["state"] == "ready" and not found["weight"] and asked["weight"] != 0:
        hint(found["reason"])
    hint(f"next: helio key create {name}   helio endpoint call {name} --file input.json")
    return ExitCode.OK


@click.group()
def endpoint() -> None:
    """Endpoints of your project: look, call, split traffic, go back, remove."""


@endpoint.command("ls")
@json_option
@pass_app
def list_endpoints(app: App, as_json: bool) -> None:
    """Endpoints, whether they answer, and how traffic is split."""
    found = _endpoints(app).ls()
    if as_json:
        show_json({"items": list(found)})
    elif not found:
        show("no endpoints")
        hint("serve a model:  helio deploy digits@latest --endpoint digits")
    else:
        show(endpoint_table(found, app.now(), width()))


@endpoint.command("show")
@click.argument("name")
@json_option
@pass_app
def show_endpoint(app: App, name: str, as_json: bool) -> None:
    """One endpoint: its versions, their state, and the traceback of one that cannot start."""
    found = _endpoints(app).get(name)
    show_json(found.data) if as_json else show(_card(app, found))


@endpoint.command("call")
@click.argument("name")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="JSON inputs (- or none: standard input).",
)
@click.option(
    "--inputs", "text", metavar="JSON", help='Inputs as text: {"images": [[...]]}, or the array of the only input.'
)
@click.option("--key", metavar="KEY", help="A key; without one, a key that lives two minutes is made and revoked.")
@click.option(
    "--version", default="", metavar="vN", help="This version of several; a made key may name one without traffic."
)
@json_option
@pass_app
def call(
    app: App, name: str, path: Path | None, text: str | None, key: str | None, version: str, as_json: bool
) -> None:
    """Send one prediction and print what comes back."""
    inputs = _inputs(path, text)
    endpoints = _endpoints(app)
    found = endpoints.get(name)
    ready = [row for row in found.deployments if row["state"] == "ready"]
    given = named(inputs, ready[-1]["signature"] if ready else {})
    made = None if key else endpoints.create_key(name, "helio endpoint call", expires=CALL_KEY_S, pin=bool(version))
    predictor = Predictor(found.url, key or (made["key"] if made else ""))
    try:
        answer = predictor.predict(given, version=version, fresh_key=made is not None)
    finally:
        predictor.close()
        if made is not None:
            endpoints.revoke_key(made["id"])
    show_json(answer) if as_json else show(json.dumps(answer["outputs"]))


@endpoint.command("traffic")
@click.argument("name")
@click.argument("shares", nargs=-1, required=True, metavar="vN=SHARE...")
@json_option
@pass_app
def traffic(app: App, name: str, shares: tuple[str, ...], as_json: bool) -> None:
    """Split traffic: helio endpoint traffic digits v1=90 v2=10."""
    _changed(app, _endpoints(app).get(name).traffic(_weights(shares)), as_json)


@endpoint.command("scale")
@click.argument("name")
@click.argument("version", required=False, default="", metavar="[vN]")
@click.option("--replicas", required=True, metavar="N|LEAST..MOST", help="0..N lets it sleep.")
@json_option
@pass_app
def scale(app: App, name: str, version: str, replicas: str, as_json: bool) -> None:
    """Another number of replicas of a version (the newest that has not failed): helio endpoint scale digits v2 --replicas 1..3."""
    _changed(app, _endpoints(app).get(name).scale(replicas, version), as_json)


@endpoint.command("rollback")
@click.argument("name")
@json_option
@pass_app
def rollback(app: App, name: str, as_json: bool) -> None:
    """Back to the split before the last change, at once."""
    _changed(app, _endpoints(app).get(name).rollback(), as_json)


@endpoint.command("rm")
@click.argument("name")
@click.argument("version", required=False, default="")
@json_option
@pass_app
def remove(app: App, name: str, version: str, as_json: bool) -> None:
    """Remove an endpoint, or a version of it that has no traffic."""
    data = _endpoints(app).remove(name, version)
    show_json(data) if as_json else show(f"{name} {version} is being removed".replace("  ", " "))


@endpoint.command("logs")
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@json_option
@pass_app
def logs(app: App, name: str, lines: int, follow: bool, as_json: bool) -> None:
    """The access log: one line per call, a few seconds behind."""
    endpoints = _endpoints(app)
    place = ""
    while True:
        found, place = endpoints.read_log(name, 10_000 if place else lines, place)
        for line in found:
            show_json(line) if as_json else show(access_line(line))
        if not follow:
            break
        endpoints.caller.pause(FOLLOW_S)
    if not found and not as_json:
        hint("no calls yet")


@endpoint.command("usage")
@click.argument("name")
@click.option("--since", default="24h", show_default=True, metavar="TIME", help="How far back.")
@json_option
@pass_app
def usage(app: App, name: str, since: str, as_json: bool) -> None:
    """What was answered, by hour, version, key and kind of status."""
    hours = max(1, round(span_s(since, "--since") / 3600))
    found = _endpoints(app).usage(name, hours)
    show_json({"items": found}) if as_json else show(usage_table(found, width()))


@click.group()
def key() -> None:
    """Keys with which endpoints are called."""


@key.command("create")
@click.argument("endpoint_name", metavar="ENDPOINT")
@click.option("--name", default="", metavar="TEXT", help="Whose it is, for people.")
@click.option("--rate", type=float, metavar="PER_S", help="Calls per second; more are answered with 429.")
@click.option("--burst", type=int, metavar="N", help="Calls at once (default: two seconds' worth).")
@click.option("--expires", metavar="TIME", help="30d, 12h (default: never).")
@click.option("--pin", is_flag=True, help="May name a version that has no traffic, to try it.")
@json_option
@pass_app
def create_key(
    app: App,
    endpoint_name: str,
    name: str,
    rate: float | None,
    burst: int | None,
    expires: str | None,
    pin: bool,
    as_json: bool,
) -> None:
    """Make a key. Its text is printed once and can never be read again."""
    made = _endpoints(app).create_key(endpoint_name, name, rate=rate, burst=burst, expires=expires, pin=pin)
    if as_json:
        show_json(made)
        return
    show(made["key"])
    hint(f"for endpoint {endpoint_name}; revoke it with: helio key revoke {made['id']}")


@key.command("ls")
@click.argument("endpoint_name", metavar="ENDPOINT", required=False, default="")
@json_option
@pass_app
def list_keys(app: App, endpoint_name: str, as_json: bool) -> None:
    """Keys, whether they are valid, and when they were last used."""
    found = _endpoints(app).keys(endpoint_name)
    show_json({"items": list(found)}) if as_json else show(key_table(found, app.now(), width()) if found else "no keys")


@key.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="KEY...")
@json_option
@pass_app
def revoke_key(app: App, ids: tuple[str, ...], as_json: bool) -> None:
    """Within 5 seconds these keys are refused."""
    endpoints = _endpoints(app)
    for id in ids:
        endpoints.revoke_key(id)
        show_json({"id": id, "revoked": True}) if as_json else show(f"{id} revoked")


def _endpoints(app: App) -> Endpoints:
    return app.client().endpoint_calls


def _card(app: App, found: Endpoint) -> str:
    return endpoint_card(found.data, app.now(), width())


def _changed(app: App, found: Endpoint, as_json: bool) -> None:
    if as_json:
        show_json(found.data)
    else:
        show(deployment_table(found.deployments, app.now(), width()))


def _weights(shares: tuple[str, ...]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for share in shares:
        version, equals, amount = share.partition("=")
        if not equals or not amount.isdigit():
            raise BadRequest(f"'{share}' is no share of traffic.", remedy="Write v1=90 v2=10.")
        weights[version] = int(amount)
    return weights


def _inputs(path: Path | None, text: str | None) -> Any:  # Any: JSON
    try:
        if text is None:
            text = sys.stdin.read() if path in (None, Path("-")) else text_of(path)
        value = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"The inputs are no JSON: {error}.", remedy='Write {"images": [[...]]}.') from error
    return value["inputs"] if isinstance(value, dict) and set(value) == {"inputs"} else value
