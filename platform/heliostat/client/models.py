"""Models of the registry: list, look, push, pull, move aliases. A handle of a version never changes, except for its aliases."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self, cast

from heliostat.client.listing import Listing
from heliostat.render.models import model_table, version_card
from heliostat.wire.call import Caller, segment
from heliostat.wire.errors import BadRequest, ServiceError
from heliostat.wire.shapes import LineageJson, ModelJson, ModelVersionJson, SignatureJson

if TYPE_CHECKING:
    from zipfile import ZipFile

MANIFEST = "manifest.json"
PAGE = 200


class ModelVersion:
    """One version of a model, as of the last answer."""

    def __init__(self, models: Models, data: ModelVersionJson) -> None:
        self._models = models
        self._data = data

    @property
    def name(self) -> str:
        return self._data["model"]

    @property
    def version(self) -> int:
        return self._data["version"]

    @property
    def sha256(self) -> str:
        """Of the artifact: the hash of its manifest."""
        return self._data["sha256"]

    @property
    def metrics(self) -> dict[str, float]:
        return self._data["metrics"]

    @property
    def signature(self) -> SignatureJson:
        return self._data["signature"]

    @property
    def aliases(self) -> list[str]:
        return self._data["aliases"]

    @property
    def data(self) -> ModelVersionJson:
        """The API's document."""
        return self._data

    def download(self, folder: str | Path) -> Path:
        """Fetch the artifact into a folder that is new or empty; every file is compared with its digest. Returns the folder."""
        return self._models.download(self._data, Path(folder))

    def set_alias(self, alias: str) -> Self:
        """Let an alias point at this version."""
        self._models.set_alias(self.name, alias, self.version, self._data["project"])
        return self.refresh()

    def lineage(self) -> LineageJson:
        """The job, code, data and parameters it was made from."""
        return self._models.lineage(self.name, str(self.version), self._data["project"])

    def delete(self) -> None:
        self._models.delete(self.name, str(self.version), self._data["project"])

    def refresh(self) -> Self:
        self._data = self._models.version(self.name, str(self.version), self._data["project"])
        return self

    def __repr__(self) -> str:
        return f"<ModelVersion {self.name}:{self.version} {self.sha256[:12]}>"

    def __str__(self) -> str:
        return version_card(self._data, datetime.now(UTC))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelVersion) and other._data["sha256"] == self.sha256 and str(other) == str(self)

    def __hash__(self) -> int:
        return hash((self.name, self.version))


class Models:
    """The calls under /models. project "": the token's own."""

    def __init__(self, caller: Caller, project: str = "") -> None:
        self._caller = caller
        self._project = project

    def ls(self) -> Listing[ModelJson]:
        """All models of your project, by name."""
        items: list[ModelJson] = []
        cursor = ""
        while True:
            query = {"limit": PAGE, "cursor": cursor, "project": self._project}
            page = self._caller.json("GET", "/models", query=query)
            items += page["items"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                break
        empty = "No models. Train one with: heliostat.train('digits-cnn', register='digits')"
        return Listing(items, lambda rows: model_table(rows, datetime.now(UTC)), empty)

    def get(self, name: str) -> ModelJson:
        return cast("ModelJson", self._caller.json("GET", f"/models/{segment(name)}", query=self._query()))

    def find(self, reference: str) -> ModelVersion:
        """`digits@champion`, `digits:3`, or `digits` for the newest."""
        name, which = split(reference)
        return ModelVersion(self, self.version(name, which))

    def version(self, name: str, which: str, project: str = "") -> ModelVersionJson:
        path = _path(name, which)
        return cast("ModelVersionJson", self._caller.json("GET", path, query=self._query(project)))

    def versions(self, name: str, limit: int = 50) -> list[ModelVersionJson]:
        """Newest first."""
        query = {**self._query(), "limit": limit}
        items = self._caller.json("GET", f"/models/{segment(name)}/versions", query=query)["items"]
        return cast("list[ModelVersionJson]", items)

    def push(
        self,
        name: str,
        folder: str | Path,
        *,
        aliases: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        variant_of: int | None = None,
        allow_pickle: bool = False,
    ) -> ModelVersion:
        """Push a folder with model.json and weights as the next version."""
        query: dict[str, object] = {
            **self._query(),
            "alias": list(aliases),
            "tag": [f"{key}={value}" for key, value in (tags or {}).items()],
            "metric": [f"{key}={value!r}" for key, value in (metrics or {}).items()],
            "variant_of": variant_of,
            "allow_pickle": allow_pickle or None,
        }
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "model.zip"
            _pack(Path(folder).expanduser(), archive)
            path = f"/models/{segment(name)}/versions"
            told = self._caller.send(
                "POST", path, query=query, headers={"Content-Type": "application/zip"}, source=archive
            )
        return ModelVersion(self, json.loads(told.body))

    def download(self, version: ModelVersionJson, folder: Path) -> Path:
        """Fetch and verify; nothing is left in the folder when a digest is wrong."""
        from zipfile import BadZipFile, ZipFile

        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadRequest(f"{folder} is not an empty folder.", remedy="Name a new one.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = _path(version["model"], str(version["version"])) + "/archive"
        query = self._query(version["project"])
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive, unpacked = Path(scratch) / "model.zip", Path(scratch) / "model"
            with self._caller.stream(path, query=query, accept="application/zip") as answer, archive.open("wb") as out:
                for chunk in answer.chunks():
                    out.write(chunk)
            try:
                with ZipFile(archive) as opened:
                    _unpack_verified(opened, unpacked, version["sha256"])
            except BadZipFile as error:
                raise _damaged(f"the archive is cut off ({error})") from error
            if folder.exists():
                folder.rmdir()
            unpacked.rename(folder)
        return folder

    def set_alias(self, name: str, alias: str, version: int, project: str = "", *, only_if: int | None = None) -> None:
        """Point an alias at a version. only_if: the version that it must point at now; else `Conflict`."""
        path = f"/models/{segment(name)}/aliases/{segment(alias)}"
        headers: dict[str, str] = {}
        if only_if is not None:
            headers["If-Match"] = self._alias_tag(path, only_if, project)
        self._caller.json("PUT", path, {"version": version}, query=self._query(project), headers=headers)

    def drop_alias(self, name: str, alias: str) -> None:
        self._caller.json("DELETE", f"/models/{segment(name)}/aliases/{segment(alias)}", query=self._query())

    def lineage(self, name: str, which: str, project: str = "") -> LineageJson:
        path = _path(name, which) + "/lineage"
        return cast("LineageJson", self._caller.json("GET", path, query=self._query(project)))

    def delete(self, name: str, which: str, project: str = "") -> None:
        self._caller.json("DELETE", _path(name, which), query=self._query(project))

    def delete_model(self, name: str) -> None:
        """All of its versions and aliases."""
        self._caller.json("DELETE", f"/models/{segment(name)}", query=self._query())

    def _alias_tag(self, path: str, expected: int, project: str) -> str:
        answer = self._caller.send("GET", path, query=self._query(project))
        found = json.loads(answer.body)["version"]
        return answer.headers.get("etag", "") if found == expected else f'"{expected}-0"'

    def _query(self, project: str = "") -> dict[str, object]:
        return {"project": project or self._project}


def split(reference: str) -> tuple[str, str]:
    """(name, which) of `digits:3`, `digits@champion`, `digits`."""
    name, colon, number = reference.partition(":")
    if colon:
        return name, number
    name, _, alias = reference.partition("@")
    return name, alias or "latest"


def _path(name: str, which: str) -> str:
    return f"/models/{segment(name)}/versions/{segment(which)}"


def _pack(folder: Path, archive: Path) -> None:
    """The folder as a stored zip. Links are refused: what they point to is not part of the model."""
    from zipfile import ZIP_STORED, ZipFile, ZipInfo

    if not (folder / "model.json").is_file():
        raise BadRequest(
            f"{folder} is no model folder: it has no model.json.", remedy="docs/models.md says what goes into it."
        )
    with ZipFile(archive, "w", ZIP_STORED) as out:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise BadRequest(f"{name} is a link.", code="artifact_link", remedy="Put the file itself there.")
            if path.is_file() and name != MANIFEST and "__pycache__" not in path.parts:
                info = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.external_attr = 0o100644 << 16
                with path.open("rb") as source, out.open(info, "w", force_zip64=True) as target:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)


def _unpack_verified(archive: ZipFile, folder: Path, sha256: str) -> None:
    try:
        manifest = archive.read(MANIFEST)
    except KeyError as error:
        raise _damaged("it has no manifest") from error
    if hashlib.sha256(manifest).hexdigest() != sha256:
        raise _damaged("its manifest has another digest")
    for row in json.loads(manifest)["files"]:
        name = PurePosixPath(row["path"])
        if name.is_absolute() or ".." in name.parts:
            raise _damaged(f"{name} leaves the folder")
        target, total = folder / name, hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(row["path"]) as source, target.open("wb") as out:
            while chunk := source.read(1 << 20):
                total.update(chunk)
                out.write(chunk)
        if total.hexdigest() != row["sha256"]:
            raise _damaged(f"{name} has another digest")
    (folder / MANIFEST).write_bytes(manifest)


def _damaged(text: str) -> ServiceError:
    return ServiceError(
        f"What arrived is not the model: {text}.", code="artifact_damaged", remedy="Nothing was kept. Pull it again."
    )
