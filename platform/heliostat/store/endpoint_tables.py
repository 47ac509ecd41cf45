"""The tables of endpoints: rows only, as in `store.tables`.

An endpoint is a stable URL; a deployment is one model version served there, numbered v1, v2, ... on its endpoint, never twice.
What Serve is told is rendered from these rows and nothing else. `Endpoint.version` rises with every write; `weights` is what
traffic follows now, `weights_before` what `rollback` returns to. Keys are kept as SHA-256 only.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from heliostat.store.tables import Base


class Endpoint(Base):
    """mode: `gateway` or `direct`. weights: {"1": 90, "2": 10}, by deployment number. settings: sticky, limits, replicas."""

    __tablename__ = "endpoint"
    __table_args__ = (Index(None, "project"),)

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(63))
    mode: Mapped[str] = mapped_column(String(10), default="gateway")
    weights: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    weights_before: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    last_number: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")
    removing_ms: Mapped[int | None]


class Deployment(Base):
    """One model version on one endpoint. job: the serving job that holds its replicas. trace: why it failed, whole.

    replicas_min, replicas_max: of its model; 0 as minimum lets it sleep. plan: weights to set once it is ready.
    """

    __tablename__ = "deployment"
    __table_args__ = (
        UniqueConstraint("endpoint", "number"),
        Index(None, "project", "model", "model_version"),
        Index(None, "state"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    endpoint: Mapped[str] = mapped_column(String(40))
    number: Mapped[int]
    project: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(100))
    model_version: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    artifact_uri: Mapped[str]
    signature: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    replicas_min: Mapped[int] = mapped_column(default=1)
    replicas_max: Mapped[int] = mapped_column(default=1)
    gpu_milli: Mapped[int] = mapped_column(default=0)
    cpu_milli: Mapped[int] = mapped_column(default=0)
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    job: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    state_since_ms: Mapped[int]
    reason: Mapped[str] = mapped_column(default="")
    trace: Mapped[str] = mapped_column(default="")
    plan: Mapped[dict[str, Any]] = mapped_column(default=dict)  # Any: JSON
    wish: Mapped[int] = mapped_column(default=0)
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")


class EndpointKey(Base):
    """A caller's key. sha256: of the whole text, hex. rate_per_s 0: no limit. pin: may name a version without traffic."""

    __tablename__ = "endpoint_key"
    __table_args__ = (Index(None, "endpoint"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(40))
    project: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(default="")
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    rate_per_s: Mapped[float] = mapped_column(Float, default=0.0)
    burst: Mapped[int] = mapped_column(default=0)
    pin: Mapped[bool] = mapped_column(default=False)
    created_ms: Mapped[int]
    created_by: Mapped[str] = mapped_column(default="")
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]
    last_used_ms: Mapped[int | None]


class EndpointUsage(Base):
    """What was answered in one hour: by endpoint, deployment number, key and class of status (2, 4, 5).

    It outlives its endpoint, whose name another project may take: so the project is part of the key.
    """

    __tablename__ = "endpoint_usage"

    endpoint: Mapped[str] = mapped_column(String(40), primary_key=True)
    project: Mapped[str] = mapped_column(String(63), primary_key=True)
    hour_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    status: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    requests: Mapped[int] = mapped_column(default=0)
    rows: Mapped[int] = mapped_column(default=0)
    bytes_in: Mapped[int] = mapped_column(default=0)
    bytes_out: Mapped[int] = mapped_column(default=0)
    busy_us: Mapped[int] = mapped_column(default=0)


class SpoolRead(Base):
    """A spool file whose lines were added up: written in the transaction that adds them, so none counts twice."""

    __tablename__ = "spool_read"

    file: Mapped[str] = mapped_column(String(300), primary_key=True)
    lines: Mapped[int]
    read_ms: Mapped[int]
