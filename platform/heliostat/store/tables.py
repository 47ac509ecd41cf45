"""The tables of the store: rows only. Names of tables and columns are API between the store and the control plane.

Times are epoch milliseconds (`*_ms`), GPU and CPU amounts milli-units, JSON columns plain JSON. A row is neither an API model
nor a core specification; `store.jobs.core_spec` makes the latter. `job.seq` is the table's key on disk, so that newest-first
pages are a walk along the table; towards SQLAlchemy the identity of a job is its `id`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Big = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite numbers rows only in a column of type INTEGER."""

Json = JSON(none_as_null=True)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: Big, dict[str, Any]: Json, list[Any]: Json, str: Text}  # noqa: RUF012  (SQLAlchemy's protocol); Any: JSON


class Project(Base):
    __tablename__ = "project"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    created_ms: Mapped[int]


class Token(Base):
    __tablename__ = "token"
    __table_args__ = (Index(None, "project"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    name: Mapped[str] = mapped_column(default="")
    user: Mapped[str]
    project: Mapped[str]
    role: Mapped[str]
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]
    last_used_ms: Mapped[int | None]


class Job(Base):
    """One job. `version` rises with every write: a writer that read an older version changes nothing."""

    __tablename__ = "job"
    __table_args__ = (
        Index(None, "state", "seq"),
        Index(None, "queue", "state", "seq"),
        Index(None, "project", "state", "seq"),
        Index(None, "project", "queue", "state", "seq"),
        Index(None, "user", "seq"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(200), unique=True)
    project: Mapped[str]
    user: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    kind: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(default=100)
    priority_class: Mapped[str] = mapped_column(default="normal")
    preemptibility: Mapped[str] = mapped_column(default="preemptible")
    state: Mapped[str]
    state_since_ms: Mapped[int]
    deadline_ms: Mapped[int | None]
    version: Mapped[int] = mapped_column(default=1)
    min_tasks: Mapped[int] = mapped_column(default=1)
    max_tasks: Mapped[int] = mapped_column(default=1)
    gpu_milli: Mapped[int] = mapped_column(default=0)
    cpu_milli: Mapped[int] = mapped_column(default=0)
    memory_bytes: Mapped[int] = mapped_column(default=0)
    flavor: Mapped[str] = mapped_column(default="")
    nodes: Mapped[int] = mapped_column(default=1)
    entrypoint: Mapped[str] = mapped_column(default="")
    argv: Mapped[list[Any]] = mapped_column(default=list)  # Any: JSON
    env: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    runtime_env: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    job_metadata: Mapped[dict[str, Any]] = mapped_column(
        "metadata", default=dict
    )  # Any: JSON; `metadata` is SQLAlchemy's own name
    package_uri: Mapped[str] = mapped_column(default="")
    dependencies: Mapped[list[Any]] = mapped_column(default=list)  # Any: JSON
    max_runtime_ms: Mapped[int | None]
    submitted_ms: Mapped[int]
    first_started_ms: Mapped[int | None]
    finished_ms: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    ray_submission_id: Mapped[str] = mapped_column(default="")
    reason: Mapped[dict[str, Any] | None]  # Any: JSON
    message: Mapped[str] = mapped_column(default="")
    exit_code: Mapped[int | None]
    error: Mapped[str] = mapped_column(default="")
    result: Mapped[dict[str, Any] | None]  # Any: JSON
    gpu_ms_held: Mapped[int] = mapped_column(default=0)
    gpu_ms_used: Mapped[int | None]
    waited_ms: Mapped[int] = mapped_column(default=0)
    ran_ms: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)

    __mapper_args__ = {"primary_key": [id]}  # noqa: RUF012  (SQLAlchemy's protocol)


class Attempt(Base):
    __tablename__ = "attempt"

    job: Mapped[str] = mapped_column(String(200), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    started_ms: Mapped[int]
    ended_ms: Mapped[int | None]
    outcome: Mapped[str] = mapped_column(default="")
    exit_code: Mapped[int | None]
    ray_submission_id: Mapped[str] = mapped_column(default="")
    secret: Mapped[str] = mapped_column(default="")
    log_path: Mapped[str] = mapped_column(default="")
    gone_ms: Mapped[int | None]
    """When its driver was known to be gone and its log was saved; a job is queued again before that."""


class Lease(Base):
    __tablename__ = "lease"

    job: Mapped[str] = mapped_column(String(200), primary_key=True)
    attempt: Mapped[int]
    epoch: Mapped[int]
    order: Mapped[str]
    places: Mapped[list[Any]] = mapped_column(default=list)  # Any: JSON
    secret: Mapped[str]
    deadline_ms: Mapped[int] = mapped_column(default=0)
    since_ms: Mapped[int]


class LeaseSpan(Base):
    """One slot (or the CPUs of one node) held by one attempt without interruption: what usage is charged by."""

    __tablename__ = "lease_span"
    __table_args__ = (Index(None, "job"), Index(None, "to_ms", "from_ms"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job: Mapped[str]
    attempt: Mapped[int]
    epoch: Mapped[int]
    slot: Mapped[str] = mapped_column(default="")
    node: Mapped[str] = mapped_column(default="")
    flavor: Mapped[str] = mapped_column(default="")
    gpu_milli: Mapped[int] = mapped_column(default=0)
    from_ms: Mapped[int]
    to_ms: Mapped[int | None]
    used_ms: Mapped[int | None]


class Event(Base):
    """The outbox: everything that happened, in order. All histories and event streams are read from here."""

    __tablename__ = "event"
    __table_args__ = (Index(None, "job", "seq"), Index(None, "project", "seq"), {"sqlite_autoincrement": True})

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at_ms: Mapped[int]
    kind: Mapped[str]
    job: Mapped[str | None]
    project: Mapped[str] = mapped_column(default="")
    actor: Mapped[str] = mapped_column(default="")
    attempt: Mapped[int | None]
    from_state: Mapped[str | None]
    to_state: Mapped[str | None]
    reason: Mapped[dict[str, Any] | None]  # Any: JSON
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON


class Audit(Base):
    """Who changed what. Append-only; each row's hash covers the row and the hash before it."""

    __tablename__ = "audit"
    __table_args__ = ({"sqlite_autoincrement": True},)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at_ms: Mapped[int]
    actor: Mapped[str]
    project: Mapped[str] = mapped_column(default="")
    action: Mapped[str]
    object: Mapped[str]
    request_id: Mapped[str] = mapped_column(default="")
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class Package(Base):
    __tablename__ = "package"

    project: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    entries: Mapped[int]
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")


class Idempotency(Base):
    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "created_ms"),)

    principal: Mapped[str] = mapped_column(String(80), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str]
    body_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    body: Mapped[str]
    created_ms: Mapped[int]


class QueueFile(Base):
    """Every queue file that was ever in force; the last row is the present one."""

    __tablename__ = "queue_file"
    __table_args__ = ({"sqlite_autoincrement": True},)

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    text: Mapped[str]
    at_ms: Mapped[int]
    actor: Mapped[str] = mapped_column(default="")


class Node(Base):
    __tablename__ = "node"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    ip: Mapped[str] = mapped_column(default="")
    flavor: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="up")
    is_head: Mapped[bool] = mapped_column(Boolean, default=False)
    spec: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    joined_ms: Mapped[int]
    seen_ms: Mapped[int]
    cordon: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """What somebody ordered about it: empty, `cordoned` or `draining`."""


class DecisionLog(Base):
    """One engine cycle: what went in, what came out, digests, and the hash of the record before."""

    __tablename__ = "decision_log"

    cycle: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at_ms: Mapped[int]
    events: Mapped[bytes] = mapped_column(LargeBinary)
    decisions: Mapped[bytes] = mapped_column(LargeBinary)
    policy_digest: Mapped[str] = mapped_column(default="")
    state_digest: Mapped[str] = mapped_column(default="")
    previous: Mapped[str] = mapped_column(default="")
    hash: Mapped[str] = mapped_column(default="")


class Snapshot(Base):
    __tablename__ = "snapshot"

    cycle: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at_ms: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(default="")


class Metric(Base):
    __tablename__ = "metric"
    __table_args__ = (Index(None, "job", "id"), Index(None, "job", "name", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job: Mapped[str]
    attempt: Mapped[int]
    at_ms: Mapped[int]
    name: Mapped[str]
    value: Mapped[float] = mapped_column(Float)
    step: Mapped[int | None]


class Setting(Base):
    __tablename__ = "setting"

    key: Mapped[str] = mapped_column(String(120), primary_key=True)
    value: Mapped[str]
