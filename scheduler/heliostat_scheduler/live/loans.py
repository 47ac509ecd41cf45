"""Who may hold a lent GPU. Pure over Ray's tables and the ledger.

A lease of kind `serve` with slots is a *loan*: the groups of its slots are removed, so that Ray Serve, which knows no slots, can
place the replicas of one application on their GPUs. Whoever else takes such a GPU has no right to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from heliostat_scheduler.live.protocol import Lease, SlotRef
from heliostat_scheduler.live.tables import ActorRow

SERVE = "serve"
SERVE_NAMESPACE = "serve"
_REPLICA = re.compile(r"^SERVE_REPLICA::(?P<app>[^#]+)#")


def is_loan(lease: Lease) -> bool:
    return lease.kind == SERVE and bool(lease.held)


def application_of(actor: ActorRow) -> str:
    """The Serve application that an actor is a replica of; "" for none."""
    match = _REPLICA.match(actor.name) if actor.namespace == SERVE_NAMESPACE else None
    return match["app"] if match else ""


def borrowers(actors: Iterable[ActorRow], lease: Lease) -> list[ActorRow]:
    """The replicas of the loan's application that hold GPUs outside of every group."""
    return [
        actor
        for actor in actors
        if not actor.groups() and actor.asks_for_gpu() and actor.state == "ALIVE" and application_of(actor) == lease.app
    ]


def granted(actors: Iterable[ActorRow], leases: Iterable[Lease]) -> set[str]:
    """Ids of the actors that hold a lent GPU by right: of each loan's application at most as many as it has slots, oldest first."""
    known = list(actors)
    found: set[str] = set()
    for lease in leases:
        if is_loan(lease):
            rightful = sorted(borrowers(known, lease), key=lambda actor: actor.pid)
            found |= {actor.id for actor in rightful[: len(lease.held)]}
    return found


def sitting_on(actors: Iterable[ActorRow], refs: Iterable[SlotRef]) -> list[ActorRow]:
    """Whoever holds the very devices of these slots, outside of every group."""
    devices = {(ref.node, ref.device) for ref in refs}
    return [
        actor
        for actor in actors
        if not actor.groups()
        and actor.state == "ALIVE"
        and actor.asks_for_gpu()
        and any((actor.node, device) in devices for device in actor.devices)
    ]
