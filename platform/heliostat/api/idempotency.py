"""Idempotency-Key: a repeated POST or PATCH is answered from memory instead of being done twice.

Kept for 24 hours per (caller, key) with the route and a hash of the body: the same key with another body or route is 422, with
the first request still on its way 409. A job and the memory of its submission are written in one transaction, so a crash in
between cannot make two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import Request, Response
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from heliostat.access import Principal
from heliostat.api.problems import Problem
from heliostat.store.inserting import insert_row
from heliostat.store.tables import Idempotency

MINE = select(
    Idempotency.route, Idempotency.body_hash, Idempotency.status, Idempotency.body, Idempotency.created_ms
).where(Idempotency.principal == bindparam("who"), Idempotency.key == bindparam("what"))
HEADER = "idempotency-key"
KEEP_MS = 24 * 3_600_000
PURGE_MS = 3_600_000
MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may be a repetition. key "": the caller asked for no memory."""

    principal: str
    key: str
    route: str
    body_hash: str
    now_ms: int

    def replay(self, session: Session) -> Response | None:
        """The answer that was given before, or None."""
        if not self.key:
            return None
        row = session.connection().execute(MINE, {"who": self.principal, "what": self.key}).one_or_none()
        if row is None:
            return None
        if row.created_ms < self.now_ms - KEEP_MS:
            session.execute(
                delete(Idempotency).where(Idempotency.principal == self.principal, Idempotency.key == self.key)
            )
            return None
        if row.body_hash != self.body_hash or row.route != self.route:
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request.",
                "Use a new key for each new request.",
            )
        return Response(row.body, row.status, media_type="application/json", headers={"Idempotency-Replayed": "true"})

    def remember(self, session: Session, status: int, body: str) -> None:
        """Keep the answer, in the transaction of what it is about."""
        if not self.key:
            return
        values = {
            "principal": self.principal,
            "key": self.key,
            "route": self.route,
            "body_hash": self.body_hash,
            "status": status,
            "body": body,
            "created_ms": self.now_ms,
        }
        insert_row(session, Idempotency, values)


@dataclass
class InFlight:
    """The keys of requests that are on their way in this process, and when old memories were last dropped."""

    keys: set[tuple[str, str]] = field(default_factory=set)
    purged_ms: int = 0

    @contextmanager
    def call(self, request: Request, principal: Principal, body: bytes, now_ms: int) -> Iterator[Call]:
        """Enter a request; 409 when the same key is on its way already."""
        key = request.headers.get(HEADER, "")
        if len(key) > MAX_KEY:
            raise Problem(400, "invalid_request", f"The Idempotency-Key is longer than {MAX_KEY}.", "Use a UUID.")
        route = f"{request.method} {request.url.path}?{request.url.query}"
        call = Call(principal.token_id, key, route, hashlib.sha256(body).hexdigest(), now_ms)
        held = (call.principal, key)
        if key and held in self.keys:
            raise Problem(
                409,
                "idempotency_in_flight",
                "The first request with this Idempotency-Key is still on its way.",
                "Repeat it in a second.",
                headers={"Retry-After": "1"},
            )
        if key:
            self.keys.add(held)
        try:
            yield call
        finally:
            self.keys.discard(held)

    def purge(self, session: Session, now_ms: int) -> None:
        """Drop what is older than a day, at most once an hour."""
        if now_ms - self.purged_ms >= PURGE_MS:
            self.purged_ms = now_ms
            session.execute(delete(Idempotency).where(Idempotency.created_ms < now_ms - KEEP_MS))
