"""The registrar: works off the models that finished jobs left behind. One thread of the control plane.

The list is in the store. A model is copied out of the run folder before it is looked at, so that what was checked is what is kept;
its version, its aliases and the tick on the list are one transaction. A crash anywhere before leaves the entry pending and at most a
copy that the next start sweeps away; after it the entry is done. What is wrong with a model is an event on its job, which has
succeeded all the same. What is wrong with the disk is told once and tried again.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from heliostat_jobs.spec import BadResult, ModelEntry
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from heliostat.artifacts import ArtifactsUnavailable, BadFolder, scan
from heliostat.artifacts.content import unavailable
from heliostat.artifacts.manifest import CHUNK, open_regular, walk
from heliostat.registry import asking
from heliostat.registry.errors import RegistryError
from heliostat.registry.service import About, Registry
from heliostat.registry.versions import Actor
from heliostat.store import StoreError, events, jobs
from heliostat.store.model_tables import ModelRegistration, ModelVersion
from heliostat.store.tables import Job, Package

Log = Callable[[str, str, dict[str, Any]], None]
"""(level, event, fields)"""
AGAIN_S = 15.0
SETTLE_S = 0.2
SCHEME = "gcs://"


class Registrar:
    def __init__(
        self, registry: Registry, run_dir: Callable[[str], Path], clock_ms: Callable[[], int], log: Log
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._run_dir = run_dir
        self._clock_ms = clock_ms
        self._log = log
        self._told: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: after each commit, and every 15 s, look whether there is something to do."""
        committed = threading.Event()
        committed.set()
        cancel = self._store.subscribe(committed.set)
        try:
            while not stop.is_set():
                committed.wait(AGAIN_S)
                committed.clear()
                try:
                    left = self.work_off()
                except StoreError as error:
                    self._log("error", "registrar_waits", {"text": str(error)})
                    left = 1
                stop.wait(AGAIN_S if left else SETTLE_S)
        finally:
            cancel()

    def work_off(self) -> int:
        """Register what is on the list; how much of it is left (the artifact store was not available)."""
        query = select(ModelRegistration).where(ModelRegistration.state == asking.PENDING)
        with self._store.read() as session:
            pending = list(session.execute(query.order_by(ModelRegistration.asked_ms)).scalars())
        return sum(not self._settled(entry) for entry in pending)

    def _settled(self, asked: ModelRegistration) -> bool:
        try:
            self._register(asked)
        except (RegistryError, BadFolder) as error:
            self._refuse(asked, error.code, str(error), error.remedy)
        except BadResult as error:
            self._refuse(asked, "bad_result", f"result.json cannot be used: {error}.", "docs/models.md has its format.")
        except ArtifactsUnavailable as error:
            self._delay(asked, str(error), error.remedy)
            return False
        except StoreError:
            raise
        except Exception:  # noqa: BLE001  (a bug: told, and the others on the list go on)
            self._log("error", "registrar_failed", {"job": asked.job, "trace": traceback.format_exc()})
            return False
        return True

    def _register(self, asked: ModelRegistration) -> None:
        with self._store.read() as session:
            job = jobs.find(session, asked.job)
            package = None if job is None else _package_digest(session, job)
        if job is None or job.result is None:
            raise RegistryError("no_model", f"Job {asked.job} was deleted before its model was registered.", "Push it.")
        entry = ModelEntry.read(job.result.get("model"))
        source = folder_of(self._run_dir(job.id), entry.path)
        extra = str(job.job_metadata.get(asking.REGISTER_ALIAS) or "")
        about = About(
            metrics=job.result.get("metrics") or {},
            tags=entry.tags,
            aliases=tuple(dict.fromkeys([*entry.aliases, *([extra] if extra else [])])),
            lineage=_lineage(job, entry, package),
            job=job.id,
            attempt=asked.attempt,
        )
        actor = Actor(job.user, self._clock_ms())
        with self._registry.folders.staging() as staged:
            copy_folder(source, staged, self._registry.limits.unpacked_bytes)
            if entry.sha256 and (found := scan(staged).digest) != entry.sha256:
                text = f"The model's folder has digest {found}; result.json says {entry.sha256}."
                raise RegistryError("digest_mismatch", text, "It was changed after the job wrote its result.")
            self._registry.push(job.project, asked.model, staged, about, actor, also=self._tick)

    def _tick(self, session: Session, row: ModelVersion) -> None:
        """In the transaction of the new version: done, or nothing at all when somebody else did it."""
        ticked = session.execute(
            update(ModelRegistration)
            .where(ModelRegistration.job == row.job, ModelRegistration.state == asking.PENDING)
            .values(state=asking.DONE, version=row.version, done_ms=row.created_ms)
            .returning(ModelRegistration.job)
        ).all()
        if not ticked:
            raise RuntimeError(f"the model of {row.job} was registered twice")

    def _refuse(self, asked: ModelRegistration, code: str, text: str, remedy: str) -> None:
        now = self._clock_ms()

        def work(session: Session) -> None:
            session.execute(
                update(ModelRegistration)
                .where(ModelRegistration.job == asked.job)
                .values(state=asking.REFUSED, code=code, text=text, done_ms=now)
            )
            asking.refused(session, asked.job, asked.project, asked.attempt, asked.model, code, text, remedy, now)

        self._store.write(work)
        self._log("warning", "model_refused", {"job": asked.job, "code": code, "text": text})

    def _delay(self, asked: ModelRegistration, text: str, remedy: str) -> None:
        if self._told.get(asked.job) == text:
            return
        self._told[asked.job] = text
        data = {"model": asked.model, "text": text, "remedy": remedy}
        at_ms = self._clock_ms()
        self._store.write(
            lambda session: events.append(
                session,
                at_ms=at_ms,
                kind="model_delayed",
                job=asked.job,
                project=asked.project,
                attempt=asked.attempt,
                data=data,
            )
        )
        self._log("error", "model_delayed", {"job": asked.job, "text": text})


def folder_of(run_dir: Path, path: str) -> Path:
    """The model's folder; RegistryError when it is not there, or not really inside of the run folder."""
    place = run_dir.joinpath(*PurePosixPath(path).parts)
    if not place.exists():
        text = f"result.json names the model folder '{path}', which is not in the run folder."
        raise RegistryError("model_missing", text, "Write the model before result.json.")
    if place.resolve() != run_dir.resolve().joinpath(*PurePosixPath(path).parts):
        text = f"The model folder '{path}' is a link, or lies behind one."
        raise RegistryError("model_escapes", text, "Write the model into the run folder itself.")
    if not place.is_dir():
        text = f"result.json names '{path}' as its model, which is a file."
        raise RegistryError("bad_model", text, "Name the folder that holds model.json and the weights.")
    return place


def copy_folder(source: Path, target: Path, limit: int) -> None:
    """Copy files, no links, up to `limit` bytes."""
    copied = 0
    try:
        for name, path in walk(source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with open_regular(path, name) as content, (target / name).open("wb") as out:
                while chunk := content.read(CHUNK):
                    copied += len(chunk)
                    if copied > limit:
                        text = f"The model is larger than {limit // 2**20} MiB."
                        raise BadFolder("artifact_too_large", text, "Save less, or raise the limit of the server.")
                    out.write(chunk)
    except OSError as error:
        raise unavailable("The model cannot be copied", error) from error


def _lineage(job: Job, entry: ModelEntry, package: str | None) -> dict[str, Any]:  # Any: JSON
    return {
        "code_digest": entry.code_digest,
        "data_digest": entry.data_digest,
        "package_digest": package or "",
        "params": (job.result or {}).get("params") or {},
        "job_name": job.name,
        "queue": job.queue,
        "user": job.user,
    }


def _package_digest(session: Session, job: Job) -> str | None:
    """The content of the working directory that the job ran in, as it was stored."""
    if not job.package_uri.startswith(SCHEME):
        return None
    row = session.get(Package, (job.project, job.package_uri.removeprefix(SCHEME)))
    return None if row is None else row.digest
