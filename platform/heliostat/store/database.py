"""Engines for the two databases: how connections behave. SQLite: WAL, synchronous=FULL, busy timeout 5 s, local disks only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import QueuePool, StaticPool

from heliostat.store.errors import StoreError

BUSY_MS = 5_000
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "ncpfs", "davfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.davfs2", "fuse.ceph"}
)


def is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def sqlite_path(url: str) -> Path:
    """The file of a SQLite url. In-memory databases are refused: readers and writer would each see their own."""
    name = make_url(url).database
    if not name or name == ":memory:":
        raise StoreError(
            "The store needs a database file; an in-memory database cannot be shared.", "Use sqlite:////path/file.db"
        )
    return Path(name)


def writer_engine(url: str) -> Engine:
    """The engine of the single writer: one connection, transactions begin with the write lock held."""
    if not is_sqlite(url):
        return create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
    engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    _prepare_sqlite(engine, begin="BEGIN IMMEDIATE", read_only=False)
    return engine


def reader_engine(url: str, pool_size: int) -> Engine:
    """The engine of the readers: a pool; each transaction is one snapshot."""
    if not is_sqlite(url):
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return create_engine(url, pool_size=pool_size, pool_pre_ping=True, execution_options=options)
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=pool_size, max_overflow=16, connect_args={"check_same_thread": False}
    )
    _prepare_sqlite(engine, begin="BEGIN", read_only=True)
    return engine


def _prepare_sqlite(engine: Engine, *, begin: str, read_only: bool) -> None:
    def connected(connection: Any, _record: Any) -> None:  # Any: sqlite3's connection, SQLAlchemy's pool record
        connection.isolation_level = None  # transactions are begun by us, below
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")  # pages; a checkpoint costs as much as 20 commits
            connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute("PRAGMA cache_size=-16384")

    def begun(connection: Any) -> None:  # Any: SQLAlchemy's Connection, untyped in events
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def refuse_network_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """SQLite's locks and WAL do not work over a network file system; where the system says what it is, refuse.

    Systems without /proc (macOS) cannot be asked this way and are let through.
    """
    if not mounts.exists():
        return
    folder = path.parent.resolve()
    best, kind = Path("/"), ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        where = Path(fields[1].replace("\\040", " "))
        if folder.is_relative_to(where) and len(where.parts) >= len(best.parts):
            best, kind = where, fields[2]
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on a network file system ({kind}, {best}); SQLite cannot lock there and would lose data.",
            "Set HELIOSTAT_HOME to a local disk, or use PostgreSQL for the store.",
        )
