"""What every store must do. Another database joins by another parameter of the fixture `store`."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heliostat.store import (
    StaleJob,
    Store,
    StoreError,
    StoreUnavailable,
    UnknownJob,
    audit,
    events,
    jobs,
    moves,
    schema,
)
from heliostat.store.database import is_sqlite, refuse_network_disk
from heliostat.store.jobs import JobFilter
from heliostat.store.tables import Audit, Base, Job
from heliostat_scheduler.core.lifecycle import DEADLINES_MS, IllegalMove, JobState
from heliostat_scheduler.core.model import Preemptibility
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from sqlalchemy import create_engine, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session


def values(job_id: str, **given: Any) -> dict[str, Any]:
    return {
        "id": job_id,
        "project": "vision",
        "user": "ada",
        "kind": "ray",
        "queue": "research",
        "state": "queued",
        "submitted_ms": 1_000,
        **given,
    }


def add(store: Store, job_id: str, **given: Any) -> int:
    return store.write(lambda session: jobs.add(session, values(job_id, **given)))


def read(store: Store, job_id: str) -> Job:
    with store.read() as session:
        return jobs.get(session, job_id)


def test_a_written_row_is_read_back_with_the_defaults_of_the_others(store: Store) -> None:
    seq = add(store, "a", job_metadata={"team": "x"}, argv=["python", "-V"])
    row = read(store, "a")
    assert (row.seq, row.version, row.job_metadata, row.argv, row.reason) == (
        seq,
        1,
        {"team": "x"},
        ["python", "-V"],
        None,
    )


def test_a_function_that_raises_takes_only_its_own_changes_back(store: Store) -> None:
    def failing(session: Session) -> None:
        jobs.add(session, values("b"))
        raise ValueError("no")

    blocked = threading.Event()
    first = store._writer.submit(lambda session: blocked.wait(5))  # the others join its group
    added = store._writer.submit(lambda session: jobs.add(session, values("a")))
    failed = store._writer.submit(failing)
    blocked.set()
    assert first.result() and added.result()
    with pytest.raises(ValueError, match="no"):
        failed.result()
    with store.read() as session:
        assert jobs.find(session, "a") is not None
        assert jobs.find(session, "b") is None


def test_writers_from_many_threads_share_commits(store: Store) -> None:
    commits = []
    store.subscribe(lambda: commits.append(1))
    threads = [threading.Thread(target=lambda k=k: [add(store, f"{k}-{i}") for i in range(50)]) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as session:
        assert sum(jobs.count_by_state(session).values()) == 400
    assert len(commits) < 400


async def test_awrite_answers_after_the_commit(store: Store) -> None:
    await store.awrite(lambda session: jobs.add(session, values("a")))
    assert read(store, "a").state == "queued"


def test_write_from_inside_a_write_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    with pytest.raises(RuntimeError, match="inside a write"):
        store.write(lambda session: store.write(lambda inner: None))


def test_an_id_is_used_once(store: Store) -> None:
    add(store, "a")
    with pytest.raises(IntegrityError):
        add(store, "a")


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises((StoreUnavailable, DBAPIError)), store.read() as session:
        session.execute(text("DELETE FROM job"))


class TestMoves:
    def test_a_move_writes_state_event_deadline_and_version_together(self, store: Store) -> None:
        add(store, "a")
        reason = Reason(ReasonCode.PLACED, (("gpus", 1000),))
        row = store.write(
            lambda s: moves.move(s, "a", JobState.ADMITTED, reason=reason, actor="scheduler", now_ms=5_000, attempts=1)
        )
        assert (row.state, row.version, row.waited_ms, row.attempts) == ("admitted", 2, 4_000, 1)
        assert row.deadline_ms == 5_000 + DEADLINES_MS[JobState.ADMITTED]
        with store.read() as session:
            (event,) = events.after(session, 0, job="a")
        assert (event.from_state, event.to_state, event.actor, event.attempt) == ("queued", "admitted", "scheduler", 1)
        assert event.reason is not None
        assert event.reason["code"] == "Placed"

    def test_times_add_up_over_the_story_of_a_job(self, store: Store) -> None:
        add(store, "a")
        story = [
            (JobState.ADMITTED, 2_000),
            (JobState.STARTING, 2_500),
            (JobState.RUNNING, 3_000),
            (JobState.PREEMPTING, 7_000),
        ]
        story += [
            (JobState.QUEUED, 8_000),
            (JobState.ADMITTED, 9_000),
            (JobState.STARTING, 9_100),
            (JobState.RUNNING, 9_200),
        ]
        for state, now in [*story, (JobState.SUCCEEDED, 10_200)]:
            store.write(lambda s, state=state, now=now: moves.move(s, "a", state, reason=None, actor="x", now_ms=now))  # type: ignore[misc]
        row = read(store, "a")
        assert (row.waited_ms, row.ran_ms, row.first_started_ms, row.finished_ms) == (2_000, 6_000, 3_000, 10_200)

    def test_a_move_that_the_table_does_not_know_changes_nothing(self, store: Store) -> None:
        add(store, "a")
        with pytest.raises(IllegalMove, match="queued to running"):
            store.write(lambda s: moves.move(s, "a", JobState.RUNNING, reason=None, actor="x", now_ms=1))
        assert read(store, "a").version == 1

    def test_a_row_that_somebody_changed_meanwhile_is_stale(self, store: Store) -> None:
        add(store, "a")
        old = read(store, "a")
        store.write(lambda s: moves.change(s, "a", kind="job_changed", actor="x", now_ms=1, priority=150))
        with pytest.raises(StaleJob):
            store.write(lambda s: moves.move(s, old, JobState.HELD, reason=None, actor="x", now_ms=1))
        assert read(store, "a").state == "queued"

    def test_an_unknown_job_is_named(self, store: Store) -> None:
        with pytest.raises(UnknownJob, match="nope"):
            store.write(lambda s: moves.move(s, "nope", JobState.HELD, reason=None, actor="x", now_ms=1))


class TestPages:
    @pytest.fixture(autouse=True)
    def _many(self, store: Store) -> None:
        states = ("queued", "running", "succeeded")
        for i in range(30):
            add(
                store,
                f"j{i:02}",
                state=states[i % 3],
                queue="q" + str(i % 2),
                project=("vision", "ocr")[i % 5 == 0],
                user=f"u{i % 4}",
            )

    @pytest.mark.parametrize(
        ("chosen", "keep"),
        [
            (JobFilter(), lambda i: True),
            (JobFilter(states=("queued",)), lambda i: i % 3 == 0),
            (JobFilter(states=("queued", "running")), lambda i: i % 3 != 2),
            (JobFilter(queue="q1"), lambda i: i % 2 == 1),
            (JobFilter(states=("running",), queue="q0"), lambda i: i % 3 == 1 and i % 2 == 0),
            (JobFilter(projects=("ocr",)), lambda i: i % 5 == 0),
            (JobFilter(projects=("vision",), states=("succeeded",)), lambda i: i % 5 != 0 and i % 3 == 2),
            (JobFilter(user="u3"), lambda i: i % 4 == 3),
            (JobFilter(projects=()), lambda i: False),
        ],
        ids=str,
    )
    def test_pages_walk_newest_first_without_gap_or_repetition(
        self, store: Store, chosen: JobFilter, keep: Callable[[int], bool]
    ) -> None:
        seen: list[str] = []
        before: int | None = None
        while True:
            with store.read() as session:
                rows = jobs.page(session, chosen, before_seq=before, limit=4)
            if not rows:
                break
            seen += [row.id for row in rows]
            before = rows[-1].seq
        assert seen == [f"j{i:02}" for i in reversed(range(30)) if keep(i)]

    def test_the_listed_filters_are_served_by_indexes(self, store: Store) -> None:
        if not is_sqlite(store.url):
            pytest.skip("another planner")
        with store.read() as session:
            plan = session.execute(
                text(
                    "EXPLAIN QUERY PLAN SELECT seq FROM job WHERE state='queued' AND queue='q1' ORDER BY seq DESC LIMIT 50"
                )
            ).all()
        assert "ix_job_queue_state_seq" in str(plan)
        assert "TEMP B-TREE" not in str(plan)


def test_core_spec_carries_what_the_engine_decides_on(store: Store) -> None:
    add(
        store,
        "a",
        gpu_milli=1000,
        min_tasks=2,
        max_tasks=4,
        flavor="a100",
        preemptibility="non-preemptible",
        priority=150,
        kind="command",
    )
    spec = jobs.core_spec(read(store, "a"))
    assert (spec.min_tasks, spec.max_tasks, spec.shape.gpu_milli, spec.flavors) == (2, 4, 1000, ("a100",))
    assert (spec.preemptibility, spec.priority, spec.spread) == (Preemptibility.NON_PREEMPTIBLE, 150, "one_node")


def test_forgetting_a_job_keeps_its_events_and_its_id_used(store: Store) -> None:
    add(store, "a", state="succeeded")
    store.write(lambda s: events.append(s, at_ms=1, kind="job_submitted", job="a"))
    store.write(lambda s: jobs.forget(s, "a"))
    with store.read() as session:
        assert jobs.find(session, "a") is None
        assert jobs.known(session, "a")


def test_ids_sort_by_time() -> None:
    assert jobs.new_id(1_000) < jobs.new_id(1_001) < jobs.new_id(2_000_000_000_000)
    assert len(jobs.new_id()) == len("job-") + 26


class TestAudit:
    def test_the_chain_is_whole_until_somebody_edits_a_row(self, store: Store) -> None:
        for i in range(5):
            store.write(lambda s, i=i: audit.append(s, at_ms=i, actor="ada", action="did", object=str(i)))  # type: ignore[misc]
        with store.read() as session:
            assert audit.first_broken(session) is None
        store.write(lambda s: s.execute(update(Audit).where(Audit.seq == 3).values(actor="eve")))
        with store.read() as session:
            assert audit.first_broken(session) == 3

    def test_a_missing_row_shows(self, store: Store) -> None:
        for i in range(3):
            store.write(lambda s, i=i: audit.append(s, at_ms=i, actor="ada", action="did", object=str(i)))  # type: ignore[misc]
        store.write(lambda s: s.execute(text("DELETE FROM audit WHERE seq = 2")))
        with store.read() as session:
            assert audit.first_broken(session) == 3


class TestFailures:
    def test_a_full_disk_is_store_unavailable_for_the_whole_group_and_nothing_is_half_written(
        self, sqlite_store: Store
    ) -> None:
        add(sqlite_store, "before")
        limit(sqlite_store, "PRAGMA max_page_count = 1")
        with pytest.raises(StoreUnavailable, match="disk is full") as caught:
            for i in range(2_000):
                add(sqlite_store, f"x{i}", entrypoint="y" * 4_000)
        assert "Free space" in caught.value.remedy
        limit(sqlite_store, "PRAGMA max_page_count = 1073741823")
        add(sqlite_store, "after")
        with sqlite_store.read() as session:
            assert jobs.find(session, "after") is not None

    def test_a_read_only_database_is_store_unavailable(self, sqlite_store: Store) -> None:
        limit(sqlite_store, "PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="read-only"):
            add(sqlite_store, "a")
        with pytest.raises(StoreUnavailable):
            sqlite_store.check()

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = Store(f"sqlite:///{tmp_path / 'x.db'}")
        store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            store.write(lambda session: None)

    def test_a_second_control_plane_is_refused(self, sqlite_store: Store) -> None:
        sqlite_store.lock_executor()
        other = Store(sqlite_store.url)
        with pytest.raises(StoreUnavailable, match="Another control plane"):
            other.lock_executor()
        other.close()

    def test_network_disks_are_refused(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
        with pytest.raises(StoreError, match="nfs4"):
            refuse_network_disk(tmp_path / "heliostat.db", mounts)
        refuse_network_disk(Path("/var/heliostat.db"), mounts)

    def test_a_memory_database_is_refused(self) -> None:
        with pytest.raises(StoreError, match="file"):
            Store("sqlite://")


def limit(store: Store, pragma: str) -> None:
    with store._write_engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        raw.execute(pragma)


class TestMigrations:
    def test_the_newest_migration_is_the_one_that_the_program_needs(self) -> None:
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]

    def test_migrations_make_what_the_tables_say(self, store: Store) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        with create_engine(store.url).connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []

    def test_opening_again_changes_nothing(self, store: Store) -> None:
        add(store, "a")
        again = Store(store.url)
        assert read(again, "a").id == "a"
        again.close()

    def test_a_database_of_a_newer_program_is_refused(self, store: Store, tmp_path: Path) -> None:
        store.write(lambda s: s.execute(text("UPDATE alembic_version SET version_num = '9999'")))
        with pytest.raises(StoreError, match="9999"):
            Store(store.url)

    def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        path.write_bytes(b"hello" * 1000)
        with pytest.raises(StoreUnavailable, match="no database"):
            Store(f"sqlite:///{path}")

    def test_the_database_is_in_wal_mode_with_full_synchronisation(self, sqlite_store: Store) -> None:
        with sqlite_store._write_engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert raw.execute("PRAGMA synchronous").fetchone() == (2,)


def test_why_a_job_waits_is_noted_only_while_it_waits(store: Store) -> None:
    add(store, "a", attempts=2)
    reason = Reason(ReasonCode.INSUFFICIENT_FREE, (("needed", 1000), ("free", 0)))
    assert store.write(lambda s: moves.note_reason(s, "a", reason)) == ("vision", 2)
    row = read(store, "a")
    assert row.reason is not None
    assert (row.reason["code"], row.version) == ("InsufficientFree", 1)
    assert row.message
    store.write(lambda s: moves.move(s, "a", JobState.ADMITTED, reason=None, actor="x", now_ms=2))
    assert store.write(lambda s: moves.note_reason(s, "a", reason)) is None
    assert read(store, "a").reason is None
