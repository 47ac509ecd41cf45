"""Endpoints as text: the table of `helio endpoint ls`, the card of `show`, lines of the access log, keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from heliostat.render.amounts import age, count, parse_time, seconds_between
from heliostat.render.table import pairs, table
from heliostat.wire.shapes import AccessJson, DeploymentJson, EndpointJson, KeyJson, UsageJson

TRACE_LINES = 60


def endpoint_table(endpoints: Sequence[EndpointJson], now: datetime, width: int = 0) -> str:
    rows = [
        (
            endpoint["name"],
            endpoint["state"],
            _shares(endpoint),
            _replicas(endpoint["deployments"]),
            age(seconds_between(endpoint["created_at"], now)),
            endpoint["url"],
        )
        for endpoint in endpoints
    ]
    return table(("ENDPOINT", "STATE", "TRAFFIC", "REPLICAS", "AGE", "URL"), rows, width=width)


def deployment_table(deployments: Sequence[DeploymentJson], now: datetime, width: int = 0) -> str:
    rows = [
        (
            row["version"],
            f"{row['model']['name']}:{row['model']['version']}",
            row["state"],
            f"{row['share']:.0%}" if row["share"] else "-",
            _running(row),
            age(seconds_between(row["state_since"], now)),
            row["reason"],
        )
        for row in deployments
    ]
    return table(("VERSION", "MODEL", "STATE", "TRAFFIC", "REPLICAS", "SINCE", "WHY"), rows, width=width)


def endpoint_card(endpoint: EndpointJson, now: datetime, width: int = 0) -> str:
    """Everything about one endpoint; the traceback of a version that cannot start stands at the end."""
    items = [
        ("state", endpoint["state"]),
        ("url", endpoint["url"]),
        ("mode", _mode(endpoint)),
        ("owner", f"{endpoint['created_by']} in project {endpoint['project']}"),
    ]
    if endpoint["weights_before"]:
        items.append(
            (
                "before",
                ", ".join(f"{v}={w}" for v, w in endpoint["weights_before"].items()) + "  (helio endpoint rollback)",
            )
        )
    if endpoint.get("trouble"):
        items.append(("trouble", str(endpoint["trouble"]).splitlines()[-1]))
    parts = [endpoint["name"], pairs(items)]
    if endpoint["deployments"]:
        parts += ["", deployment_table(endpoint["deployments"], now, width)]
    for row in endpoint["deployments"]:
        if row["traceback"]:
            lines = row["traceback"].splitlines()[-TRACE_LINES:]
            parts += ["", f"{row['version']} cannot start:", *(f"  {line}" for line in lines)]
    return "\n".join(parts)


def key_table(keys: Sequence[KeyJson], now: datetime, width: int = 0) -> str:
    rows = [
        (
            key["id"],
            key["endpoint"],
            key["name"] or "-",
            f"{count(key['rate_per_s'])}/s" if key["rate_per_s"] else "none",
            _standing(key, now),
            age(seconds_between(key["last_used_at"], now)) if key["last_used_at"] else "never",
        )
        for key in keys
    ]
    return table(("KEY", "ENDPOINT", "NAME", "LIMIT", "STATE", "USED"), rows, width=width)


def access_line(line: AccessJson) -> str:
    said = f" {line['code']}" if line["code"] else ""
    who = line["key"] or "-"
    return f"{line['at']}  {line['status']}{said}  {line['ms']:.1f} ms  {line['version'] or '-'}  {who}  {line['route']}  {line['request_id']}"


def usage_table(rows: Sequence[UsageJson], width: int = 0) -> str:
    cells = [
        (
            row["hour"],
            row["version"] or "-",
            row["key"] or "-",
            f"{row['status']}xx",
            str(row["requests"]),
            str(row["rows"]),
            f"{row['busy_s']:.2f} s",
        )
        for row in rows
    ]
    return table(("HOUR", "VERSION", "KEY", "STATUS", "REQUESTS", "ROWS", "BUSY"), cells, width=width)


def _mode(endpoint: EndpointJson) -> str:
    gateways = endpoint.get("gateways", 1)
    several = f", {gateways} gateways" if gateways > 1 else ""
    return endpoint["mode"] + several + (", sticky by key" if endpoint["sticky"] else "")


def _shares(endpoint: EndpointJson) -> str:
    shares = [f"{row['version']} {row['share']:.0%}" for row in endpoint["deployments"] if row["share"]]
    return ", ".join(shares) or "-"


def _replicas(deployments: Sequence[DeploymentJson]) -> str:
    return str(sum(row["replicas"]["running"] for row in deployments))


def _running(row: DeploymentJson) -> str:
    """`2/1..3`: runs 2, asked for 1 to 3; `2/1..3, wants 3` when the load asks for more than is granted."""
    replicas = row["replicas"]
    asked = str(replicas["min"]) if replicas["min"] == replicas["max"] else f"{replicas['min']}..{replicas['max']}"
    wants = f", wants {replicas['wish']}" if replicas["wish"] > max(1, replicas["granted"]) else ""
    return f"{replicas['running']}/{asked}{wants}"


def _standing(key: KeyJson, now: datetime) -> str:
    if key["revoked_at"]:
        return "revoked"
    pins = ", may pin" if key["pin"] else ""
    expires = parse_time(key["expires_at"])
    if expires is None:
        return f"valid{pins}"
    return "expired" if expires <= now else f"valid for {age((expires - now).total_seconds())}{pins}"
