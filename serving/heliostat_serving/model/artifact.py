"""Fetching an artifact. Nothing in it is read as anything but bytes before all of it has been verified.

The chain: the version's SHA-256 names the bytes of `manifest.json`; the manifest names size and SHA-256 of every file. What the
manifest does not name is not fetched. The verified files are copied into a folder of this replica's own, and only that copy is
used: whoever changes the store afterwards changes nothing here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any  # Any: pyarrow has no types, and JSON

from pyarrow import fs

from heliostat_serving.spec import Signature

CHUNK = 4 << 20
MANIFEST = "manifest.json"
CARD = "model.json"


class HeliostatLoadError(Exception):
    """A version cannot be served; the text says which file or field of its artifact is wrong, and what to do."""


@dataclass(frozen=True)
class Card:
    """model.json: what the weights are and how to make a model of them."""

    format: str
    signature: Signature
    factory: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    skops_trusted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """folder: this replica's verified copy."""

    folder: Path
    card: Card


def fetch(uri: str, sha256: str) -> Artifact:
    source, root = _source(uri)
    folder = Path(tempfile.mkdtemp(prefix="heliostat-model-"))
    try:
        for entry in _manifest(source, root, sha256):
            _copy(source, root, folder, entry)
        return Artifact(folder, _card(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _source(uri: str) -> tuple[Any, str]:
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise HeliostatLoadError(f"The artifact's address {uri} cannot be used: {error}.") from error
    return found


def _manifest(source: Any, root: str, sha256: str) -> list[dict[str, Any]]:
    raw = _bytes(source, f"{root}/{MANIFEST}", MANIFEST)
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise HeliostatLoadError(
            f"{MANIFEST} has SHA-256 {found}, the version is {sha256}: the artifact is corrupt or was exchanged. "
            "Push the model again as a new version."
        )
    entries: list[dict[str, Any]] = json.loads(raw)["files"]
    return entries


def _copy(source: Any, root: str, folder: Path, entry: dict[str, Any]) -> None:
    name = str(entry["path"])
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise HeliostatLoadError(f"The manifest names {name}, which is outside the artifact.")
    target = folder / parts
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    try:
        with source.open_input_stream(f"{root}/{name}") as stream, target.open("wb") as out:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
    except OSError as error:
        raise HeliostatLoadError(f"{name} of the artifact cannot be copied: {error}.") from error
    if size != entry["size"] or digest.hexdigest() != entry["sha256"]:
        raise HeliostatLoadError(
            f"{name} has SHA-256 {digest.hexdigest()} and {size} bytes, the manifest says {entry['sha256']} and {entry['size']}: "
            "the artifact is corrupt. Push the model again as a new version."
        )


def _bytes(source: Any, path: str, name: str) -> bytes:
    try:
        with source.open_input_stream(path) as stream:
            content: bytes = stream.read()
    except OSError as error:
        raise HeliostatLoadError(f"{name} of the artifact cannot be read: {error}.") from error
    return content


def _card(folder: Path) -> Card:
    try:
        given = json.loads((folder / CARD).read_bytes())
        return Card(
            format=given["format"],
            signature=Signature.from_json(given["signature"]),
            factory=given.get("factory") or "",
            args=given.get("args") or {},
            skops_trusted=tuple(given.get("skops_trusted") or ()),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeliostatLoadError(f"{CARD} of the artifact is wrong: {type(error).__name__}: {error}.") from error
