"""Bring a database to the present schema (Alembic, run from inside the program; no command line, no ini file)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from heliostat.store.errors import StoreError

HEAD = "0008"
"""The revision that this version of the program needs. A test holds it equal to the newest migration."""

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction. A database of a newer program is refused."""
    with engine.begin() as connection:
        found = revision(connection)
        if found == HEAD:
            return
        _run(connection, found)


def revision(connection: Connection) -> str:
    """The database's revision, empty for a new database."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _run(connection: Connection, found: str) -> None:
    from alembic import command  # only when there is something to do: the import takes half a second
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found and found not in known:
        raise StoreError(
            f"The database has schema {found}, which this version does not know.",
            "Install the version that wrote it, or a newer one.",
        )
    command.upgrade(config, HEAD)
