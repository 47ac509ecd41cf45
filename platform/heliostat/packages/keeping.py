"""Packages per project: Ray's clients choose the names, so the same name in two projects is two objects.

Ray's own store trusts client-chosen names and forgets packages that no running job refers to. Here a package stays, and is
given to Ray only when a job is admitted: a job that waited a day still starts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from heliostat.artifacts import Artifacts, Staged
from heliostat.packages.archive import BadPackage, Limits, check
from heliostat.store import Store
from heliostat.store.tables import Package

SCHEME = "gcs://"
DRAINED = 4
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}\.(zip|whl)|_ray_pkg_[A-Za-z0-9]{1,64}\.(zip|whl)")


def ray_name(uri: str) -> str | None:
    """The package name of a `gcs://` URI, None for other URIs."""
    return uri.removeprefix(SCHEME) if uri.startswith(SCHEME) else None


def uri_name(name: str) -> str:
    """`_ray_pkg_x.zip`, from this or from its gcs:// URI. BadPackage when it is no package name."""
    bare = name.removeprefix(SCHEME)
    if not NAME.fullmatch(bare):
        raise BadPackage(
            "package_name",
            f"'{name[:200]}' is no package name.",
            "Packages are called like _ray_pkg_<hash>.zip (or .whl).",
        )
    return bare


class Packages:
    def __init__(self, store: Store, artifacts: Artifacts, limits: Limits, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._artifacts = artifacts
        self._clock_ms = clock_ms
        self.limits = limits

    def exists(self, project: str, name: str) -> bool:
        with self._store.read() as session:
            return session.get(Package, (project, uri_name(name))) is not None

    def content(self, project: str, name: str) -> bytes | None:
        """The archive's bytes, verified, or None when the project has no such package."""
        with self._store.read() as session:
            row = session.get(Package, (project, uri_name(name)))
        return None if row is None else self._artifacts.read(row.digest)

    async def receive(self, body: AsyncIterable[bytes], staged: Staged) -> None:
        """Write an upload into `staged`; BadPackage (package_too_large) when it is over the limit.

        What is beyond the limit is read and dropped (up to a bound), because Ray's client looks at the answer only when it has
        sent everything.
        """
        total = 0
        async for chunk in body:
            total += len(chunk)
            if total <= self.limits.upload_bytes:
                staged.write(chunk)
            elif total > DRAINED * self.limits.upload_bytes:
                break
        if total > self.limits.upload_bytes:
            raise BadPackage(
                "package_too_large",
                f"The package is larger than {self.limits.upload_bytes / 2**20:g} MiB.",
                "Exclude data from the working directory; read it from storage in the job.",
            )

    def keep(self, project: str, name: str, staged: Staged, *, by: str) -> Package:
        """Check a received archive and keep it. Slow (reads every byte): not on the event loop."""
        bare = uri_name(name)
        entries = check(staged.rewound(), self.limits)
        digest = self._artifacts.keep(staged)
        row = {
            "project": project,
            "name": bare,
            "digest": digest,
            "size": staged.size,
            "entries": entries,
            "created_ms": self._clock_ms(),
            "created_by": by,
        }

        def work(session: Session) -> Package:
            session.execute(delete(Package).where(Package.project == project, Package.name == bare))
            session.execute(insert(Package).values(**row))
            return session.execute(select(Package).where(Package.project == project, Package.name == bare)).scalar_one()

        return self._store.write(work)
