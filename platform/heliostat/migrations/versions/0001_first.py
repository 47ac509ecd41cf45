"""The first schema.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Make every table."""
    _attempt()
    _audit()
    _decision_log()
    _event()
    _idempotency()
    _job()
    _lease()
    _lease_span()
    _metric()
    _node()
    _package()
    _project()
    _queue_file()
    _setting()
    _snapshot()
    _token()


def _attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("n", Big, autoincrement=False, nullable=False),
        sa.Column("epoch", Big, nullable=False),
        sa.Column("started_ms", Big, nullable=False),
        sa.Column("ended_ms", Big, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("exit_code", Big, nullable=True),
        sa.Column("ray_submission_id", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("log_path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "n", name=op.f("pk_attempt")),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", Big, autoincrement=True, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )


def _decision_log() -> None:
    op.create_table(
        "decision_log",
        sa.Column("cycle", Big, autoincrement=False, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("events", sa.LargeBinary(), nullable=False),
        sa.Column("decisions", sa.LargeBinary(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("state_digest", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cycle", name=op.f("pk_decision_log")),
    )


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("seq", Big, autoincrement=True, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("attempt", Big, nullable=True),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("reason", Json, nullable=True),
        sa.Column("data", Json, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_event_job_seq"), "event", ["job", "seq"], unique=False)
    op.create_index(op.f("ix_event_project_seq"), "event", ["project", "seq"], unique=False)


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("principal", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("status", Big, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_ms"), "idempotency", ["created_ms"], unique=False)


def _job() -> None:
    op.create_table(
        "job",
        sa.Column("seq", Big, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", Big, nullable=False),
        sa.Column("priority_class", sa.Text(), nullable=False),
        sa.Column("preemptibility", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_since_ms", Big, nullable=False),
        sa.Column("deadline_ms", Big, nullable=True),
        sa.Column("version", Big, nullable=False),
        sa.Column("min_tasks", Big, nullable=False),
        sa.Column("max_tasks", Big, nullable=False),
        sa.Column("gpu_milli", Big, nullable=False),
        sa.Column("cpu_milli", Big, nullable=False),
        sa.Column("memory_bytes", Big, nullable=False),
        sa.Column("flavor", sa.Text(), nullable=False),
        sa.Column("nodes", Big, nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("argv", Json, nullable=False),
        sa.Column("env", Json, nullable=False),
        sa.Column("runtime_env", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("package_uri", sa.Text(), nullable=False),
        sa.Column("dependencies", Json, nullable=False),
        sa.Column("max_runtime_ms", Big, nullable=True),
        sa.Column("submitted_ms", Big, nullable=False),
        sa.Column("first_started_ms", Big, nullable=True),
        sa.Column("finished_ms", Big, nullable=True),
        sa.Column("attempts", Big, nullable=False),
        sa.Column("ray_submission_id", sa.Text(), nullable=False),
        sa.Column("reason", Json, nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("exit_code", Big, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("result", Json, nullable=True),
        sa.Column("gpu_ms_held", Big, nullable=False),
        sa.Column("gpu_ms_used", Big, nullable=True),
        sa.Column("waited_ms", Big, nullable=False),
        sa.Column("ran_ms", Big, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_job")),
        sa.UniqueConstraint("id", name=op.f("uq_job_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_job_project_queue_state_seq"), "job", ["project", "queue", "state", "seq"], unique=False)
    op.create_index(op.f("ix_job_project_state_seq"), "job", ["project", "state", "seq"], unique=False)
    op.create_index(op.f("ix_job_queue_state_seq"), "job", ["queue", "state", "seq"], unique=False)
    op.create_index(op.f("ix_job_state_seq"), "job", ["state", "seq"], unique=False)
    op.create_index(op.f("ix_job_user_seq"), "job", ["user", "seq"], unique=False)


def _lease() -> None:
    op.create_table(
        "lease",
        sa.Column("job", sa.String(length=200), nullable=False),
        sa.Column("attempt", Big, nullable=False),
        sa.Column("epoch", Big, nullable=False),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("places", Json, nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("deadline_ms", Big, nullable=False),
        sa.Column("since_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_lease")),
    )


def _lease_span() -> None:
    op.create_table(
        "lease_span",
        sa.Column("id", Big, autoincrement=True, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("attempt", Big, nullable=False),
        sa.Column("epoch", Big, nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("flavor", sa.Text(), nullable=False),
        sa.Column("gpu_milli", Big, nullable=False),
        sa.Column("from_ms", Big, nullable=False),
        sa.Column("to_ms", Big, nullable=True),
        sa.Column("used_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease_span")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_lease_span_job"), "lease_span", ["job"], unique=False)


def _metric() -> None:
    op.create_table(
        "metric",
        sa.Column("id", Big, autoincrement=True, nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("attempt", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("step", Big, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_metric_job_id"), "metric", ["job", "id"], unique=False)


def _node() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("flavor", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("is_head", sa.Boolean(), nullable=False),
        sa.Column("spec", Json, nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("joined_ms", Big, nullable=False),
        sa.Column("seen_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )


def _package() -> None:
    op.create_table(
        "package",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", Big, nullable=False),
        sa.Column("entries", Big, nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_package")),
    )


def _project() -> None:
    op.create_table(
        "project",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_project")),
    )


def _queue_file() -> None:
    op.create_table(
        "queue_file",
        sa.Column("version", Big, autoincrement=True, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_queue_file")),
        sqlite_autoincrement=True,
    )


def _setting() -> None:
    op.create_table(
        "setting",
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_setting")),
    )


def _snapshot() -> None:
    op.create_table(
        "snapshot",
        sa.Column("cycle", Big, autoincrement=False, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cycle", name=op.f("pk_snapshot")),
    )


def _token() -> None:
    op.create_table(
        "token",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_ms", Big, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_ms", Big, nullable=True),
        sa.Column("revoked_ms", Big, nullable=True),
        sa.Column("last_used_ms", Big, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_token_hash")),
    )
    op.create_index(op.f("ix_token_project"), "token", ["project"], unique=False)
