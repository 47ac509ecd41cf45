"""/api/v1/nodes: take a node out of use, and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Request

from heliostat.access import Action
from heliostat.api.answers import PROBLEMS
from heliostat.api.doors import Caller, Doors, TheDoors, need, request_id
from heliostat.api.problems import Problem
from heliostat.store import audit

router = APIRouter(prefix="/api/v1/nodes", tags=["cluster"], responses=PROBLEMS)


class NodeOrder(StrEnum):
    CORDON = "cordon"
    DRAIN = "drain"
    UNCORDON = "uncordon"


@router.post("/{node_id}/{what}", operation_id="order_node")
def order_node(
    node_id: str, what: NodeOrder, request: Request, doors: TheDoors, caller: Caller
) -> dict[str, Any]:  # Any: JSON
    """`cordon`: nothing new starts there. `drain`: what runs there moves away too, then its GPUs are given back. `uncordon`: both end.

    The beginning of a node's id is enough where only one begins so. Answers with the node as it is now.
    """
    need(caller, Action.PLATFORM)
    full_id = _found(doors, node_id)["id"]
    doors.control.node(what.value, full_id, caller.user)
    now, rid = doors.clock_ms(), request_id(request)
    doors.store.write(
        lambda session: audit.append(
            session, at_ms=now, actor=caller.user, action=f"node_{what.value}", object=full_id, request_id=rid
        )
    )
    return _found(doors, full_id)


def _found(doors: Doors, node_id: str) -> dict[str, Any]:  # Any: JSON
    """The one live node whose id begins so."""
    nodes = [node for node in doors.control.cluster().get("nodes") or () if node["state"] not in ("lost", "down")]
    found = [node for node in nodes if node["id"].startswith(node_id)]
    if len(found) == 1:
        return dict(found[0])
    if found:
        raise Problem(409, "ambiguous_node", f"{len(found)} nodes begin with {node_id}.", "Type more of the id.")
    raise Problem(404, "unknown_node", f"There is no node {node_id}.", "List them with: helio nodes")
