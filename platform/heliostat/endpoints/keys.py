"""Keys of endpoints: 256 random bits with the prefix hk_, kept as SHA-256. The text is shown once.

A gateway gets hashes and limits only. One more key exists per endpoint and is in no table: the platform's own, with which it
sends smoke requests. It is derived from a secret in this installation's folder, so that it survives a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.orm import Session

from heliostat.endpoints import rows
from heliostat.endpoints.errors import EndpointError
from heliostat.endpoints.names import KEY_PREFIX
from heliostat.endpoints.rows import Actor
from heliostat.store.endpoint_tables import Endpoint, EndpointKey

MAX_RATE = 1_000_000.0
MAX_BURST = 10_000_000
MAX_NAME = 200
OWN_KEY = "key-platform"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """name: whose it is, for people.

    rate_per_s None: no limit; burst None: as many as two seconds give. expires_s: from now.
    pin: may name a version without traffic.
    """

    name: str = ""
    rate_per_s: float | None = None
    burst: int | None = None
    expires_s: float | None = None
    pin: bool = False

    def check(self) -> None:
        if self.rate_per_s is not None and not 0 < self.rate_per_s <= MAX_RATE:
            text = f"rate_per_s ({self.rate_per_s}) must be above 0 and at most {MAX_RATE:.0f}."
            raise EndpointError("bad_request", text, "Change it.", field="rate_per_s")
        if self.burst is not None and (not 1 <= self.burst <= MAX_BURST or self.rate_per_s is None):
            text = f"burst ({self.burst}) must be from 1 to {MAX_BURST} and stand beside rate_per_s."
            raise EndpointError("bad_request", text, "Change burst.", field="burst")
        if self.expires_s is not None and not 0 < self.expires_s <= 10**9:
            raise EndpointError("bad_request", "expires_s must be above 0.", "Change expires_s.", field="expires_s")
        if len(self.name) > MAX_NAME:
            raise EndpointError(
                "bad_request", f"The name has more than {MAX_NAME} characters.", "Shorten it.", field="name"
            )


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def create(
    session: Session, endpoint: Endpoint, asked: KeyRequest, actor: Actor, now_ms: int
) -> tuple[str, EndpointKey]:
    """The key's text, which is kept nowhere, and its row."""
    asked.check()
    text = KEY_PREFIX + secrets.token_urlsafe(32)
    rate = asked.rate_per_s or 0.0
    values = {
        "id": "key-" + secrets.token_hex(8),
        "endpoint": endpoint.name,
        "project": endpoint.project,
        "name": asked.name,
        "sha256": hash_of(text),
        "rate_per_s": rate,
        "pin": asked.pin,
        "burst": asked.burst or max(1, round(2 * rate)) if rate else 0,
        "created_ms": now_ms,
        "created_by": actor.user,
        "expires_ms": None if asked.expires_s is None else now_ms + round(asked.expires_s * 1000),
    }
    session.execute(insert(EndpointKey).values(**values))
    shown = {name: values[name] for name in ("name", "rate_per_s", "burst", "expires_ms", "pin")}
    rows.told(session, endpoint, "key_created", actor, now_ms, {"key": values["id"], **shown})
    return text, session.get_one(EndpointKey, values["id"])


def revoke(session: Session, key: EndpointKey, endpoint: Endpoint, actor: Actor, now_ms: int) -> None:
    """End a key now. Revoking twice keeps the first time."""
    if key.revoked_ms is None:
        key.revoked_ms = now_ms
        session.flush()
        rows.told(session, endpoint, "key_revoked", actor, now_ms, {"key": key.id})


def usable(key: EndpointKey, now_ms: int) -> bool:
    return key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms)


class OwnKeys:
    """The platform's own key of each endpoint."""

    def __init__(self, secret_path: Path) -> None:
        self._path = secret_path
        self._secret = b""

    def text(self, endpoint: str) -> str:
        digest = hmac.new(self._key(), endpoint.encode(), hashlib.sha256).digest()
        return KEY_PREFIX + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _key(self) -> bytes:
        if not self._secret:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                self._secret = self._path.read_bytes()
            else:
                with os.fdopen(handle, "wb") as out:
                    out.write(secrets.token_bytes(SECRET_BYTES))
                self._secret = self._path.read_bytes()
        if len(self._secret) != SECRET_BYTES:
            raise EndpointError("internal_error", f"{self._path} is damaged.", f"Remove {self._path}.", 500)
        return self._secret
