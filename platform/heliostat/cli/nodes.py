"""`helio node`: take a node out of use, and back."""

from __future__ import annotations

import time

import click

from heliostat.cli.app import App, json_option, pass_app, show, show_json
from heliostat.cli.cluster import show_nodes
from heliostat.wire.errors import WaitTimeout
from heliostat.wire.shapes import NodeJson

POLL_S = 0.5


@click.group()
def node() -> None:
    """Take nodes out of use, and back; `helio nodes` lists them."""


@node.command()
@json_option
@pass_app
def ls(app: App, as_json: bool) -> None:
    """Nodes, who holds what, which are idle, and which are on their way (the same as `helio nodes`)."""
    show_nodes(app, as_json)


@node.command()
@click.argument("node_id", metavar="NODE")
@json_option
@pass_app
def cordon(app: App, node_id: str, as_json: bool) -> None:
    """Start nothing new on NODE (the beginning of its id is enough). What runs there goes on."""
    _told(app.client().cordon(node_id), as_json, "nothing new starts there; back with: helio node uncordon")


@node.command()
@click.argument("node_id", metavar="NODE")
@click.option("--wait", type=float, metavar="SECONDS", help="Return when nothing runs there any more, at most so long.")
@json_option
@pass_app
def drain(app: App, node_id: str, wait: float | None, as_json: bool) -> None:
    """Move everything off NODE: its jobs save a checkpoint and go on elsewhere; then its GPUs are given back to Ray."""
    told = app.client().cordon(node_id, drain=True)
    if wait is not None:
        told = _drained(app, told.get("id", node_id), wait)
    _told(told, as_json, "its jobs save and leave; back with: helio node uncordon")


@node.command()
@click.argument("node_id", metavar="NODE")
@json_option
@pass_app
def uncordon(app: App, node_id: str, as_json: bool) -> None:
    """Use NODE again."""
    _told(app.client().uncordon(node_id), as_json, "jobs may start there again")


def _drained(app: App, node_id: str, seconds: float) -> NodeJson:
    deadline = time.monotonic() + seconds
    while True:
        found = next((node for node in app.client().nodes() if node.get("id") == node_id), None)
        if found is None or found.get("state") in ("drained", "lost"):
            return found or {"id": node_id, "state": "gone"}
        if time.monotonic() > deadline:
            raise WaitTimeout(
                f"Node {node_id[:12]} is not drained after {seconds:g} s.", remedy="See who is still there: helio nodes"
            )
        time.sleep(POLL_S)


def _told(node: NodeJson, as_json: bool, then: str) -> None:
    show_json(node) if as_json else show(f"{node.get('id', '?')[:12]} {node.get('state', '?')}: {then}")
