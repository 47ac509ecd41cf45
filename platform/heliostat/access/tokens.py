"""Tokens: 256 random bits with the prefix hs_, stored as SHA-256 only. The text is shown once, when the token is made.

A SHA-256 is enough (no salt, no stretching): the input is random, not a password. Lookups are cached for a few seconds, by
hash; revoking through this class empties the cache at once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from heliostat.access.principal import ALL_PROJECTS, DEFAULT_PROJECT, Principal, Role
from heliostat.store import Store, audit
from heliostat.store.tables import Project, Token

PREFIX = "hs_"
CACHE_MS = 5_000
TOUCH_MS = 60_000
PROJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Unauthenticated(Exception):
    """No valid token. `code`: token_missing, token_invalid, token_expired or token_revoked."""

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Tokens:
    def __init__(self, store: Store, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._cache: dict[bytes, tuple[int, Principal]] = {}
        self._touched: dict[str, int] = {}

    def authenticate(self, token: str) -> Principal:
        """The principal of a token, or Unauthenticated."""
        if not token:
            raise Unauthenticated(
                "token_missing",
                "A token is needed.",
                "Send it as 'Authorization: Bearer hs_...'; helio login keeps one for you.",
            )
        now, digest = self._clock_ms(), hash_of(token)
        with self._lock:
            cached = self._cache.get(digest)
        if cached is not None and now < cached[0]:
            return self._unexpired(cached[1], now)
        principal = self._look_up(digest, now)
        with self._lock:
            self._cache[digest] = (now + CACHE_MS, principal)
        return self._unexpired(principal, now)

    def create(
        self,
        *,
        role: Role,
        project: str,
        user: str,
        name: str = "",
        expires_ms: int | None = None,
        by: str,
        request_id: str = "",
    ) -> tuple[str, Token]:
        """Make a token (and its project, when new). The returned text is kept nowhere."""
        if project != ALL_PROJECTS and not PROJECT_NAME.fullmatch(project):
            raise ValueError(f"'{project}' is no project name: lower-case letters, digits and '-', at most 63.")
        text, now = PREFIX + secrets.token_urlsafe(32), self._clock_ms()
        row = {
            "id": "tok-" + secrets.token_hex(8),
            "hash": hash_of(text),
            "name": name,
            "user": user,
            "project": project,
            "role": role.value,
            "created_ms": now,
            "created_by": by,
            "expires_ms": expires_ms,
        }

        def work(session: Session) -> Token:
            ensure_project(session, project, now)
            session.execute(insert(Token).values(**row))
            audit.append(
                session,
                at_ms=now,
                actor=by,
                project=project,
                action="token_created",
                object=str(row["id"]),
                request_id=request_id,
                data={"role": role.value, "user": user, "name": name, "expires_ms": expires_ms},
            )
            return session.execute(select(Token).where(Token.id == row["id"])).scalar_one()

        return text, self._store.write(work)

    def revoke(self, token_id: str, *, by: str, request_id: str = "") -> None:
        """End a token now. Revoking twice keeps the first time."""
        now = self._clock_ms()

        def work(session: Session) -> None:
            session.execute(
                update(Token).where(Token.id == token_id, Token.revoked_ms.is_(None)).values(revoked_ms=now)
            )
            audit.append(session, at_ms=now, actor=by, action="token_revoked", object=token_id, request_id=request_id)

        self._store.write(work)
        with self._lock:
            self._cache.clear()

    def find(self, token_id: str) -> Token | None:
        with self._store.read() as session:
            return session.execute(select(Token).where(Token.id == token_id)).scalar_one_or_none()

    def listed(self, projects: tuple[str, ...] | None) -> Sequence[Token]:
        """All tokens of these projects (None: all), oldest first, revoked ones too."""
        query = select(Token).order_by(Token.created_ms, Token.id)
        if projects is not None:
            query = query.where(Token.project.in_(projects))
        with self._store.read() as session:
            return session.execute(query).scalars().all()

    def ensure_admin(self, path: Path) -> str:
        """The platform administrator's token in the 0600 file at `path`; made when the file has no valid one."""
        if path.exists():
            text = path.read_text(encoding="utf-8").strip()
            try:
                if self.authenticate(text).role is Role.ADMIN:
                    return text
            except Unauthenticated:
                pass  # of another database, or revoked: replaced below
        text, _ = self.create(
            role=Role.ADMIN, project=ALL_PROJECTS, user="admin", name="local administrator", by="helio up"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(path)
        return text

    def touch(self, principal: Principal) -> bool:
        """Whether the token's last use should be written down now (at most once a minute)."""
        now = self._clock_ms()
        with self._lock:
            if now - self._touched.get(principal.token_id, 0) < TOUCH_MS:
                return False
            self._touched[principal.token_id] = now
        return True

    def used(self, session: Session, token_id: str) -> None:
        session.execute(update(Token).where(Token.id == token_id).values(last_used_ms=self._clock_ms()))

    def _look_up(self, digest: bytes, now: int) -> Principal:
        with self._store.read() as session:
            row = session.execute(select(Token).where(Token.hash == digest)).scalar_one_or_none()
        if row is None or not hmac.compare_digest(row.hash, digest):
            raise Unauthenticated(
                "token_invalid", "The token is not known here.", "Check it, or ask for a new one: helio token create"
            )
        if row.revoked_ms is not None:
            raise Unauthenticated("token_revoked", "The token was revoked.", "Ask for a new one: helio token create")
        return Principal(row.id, row.user, row.project, Role(row.role), row.expires_ms)

    def _unexpired(self, principal: Principal, now: int) -> Principal:
        if principal.expires_ms is not None and now >= principal.expires_ms:
            raise Unauthenticated(
                "token_expired", "The token has expired.", "Ask for a new one: helio token create --expires 30d"
            )
        return principal


def ensure_project(session: Session, name: str, now_ms: int) -> None:
    if name != ALL_PROJECTS and session.get(Project, name) is None:
        session.execute(insert(Project).values(name=name, created_ms=now_ms))


def project_exists(session: Session, name: str) -> bool:
    if name == DEFAULT_PROJECT:
        return True
    return session.connection().execute(select(Project.name).where(Project.name == name)).scalar() is not None
