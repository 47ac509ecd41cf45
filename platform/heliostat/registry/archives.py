"""Model folders as zip archives, in and out. What comes in is unpacked under limits, byte by byte; declared sizes are not believed."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from heliostat.artifacts import ArtifactFolders, BadFolder
from heliostat.artifacts.content import unavailable
from heliostat.artifacts.manifest import CHUNK, MANIFEST, MAX_FILES, unsafe

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """upload_bytes: of an archive. unpacked_bytes: of the folder, also of one that a job left. ratio: unpacked to packed."""

    upload_bytes: int = 4 * 2**30
    unpacked_bytes: int = 8 * 2**30
    ratio: int = 200


def unpack(content: IO[bytes], target: Path, limits: ModelLimits) -> None:
    """Unpack into an empty folder; BadFolder for what is no archive of a model."""
    try:
        with zipfile.ZipFile(content) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check(entries)
            packed = max(1, sum(entry.compress_size for entry in entries))
            written = 0
            for entry in entries:
                written = _write(
                    archive, entry, target, written, min(limits.unpacked_bytes, max(2**20, limits.ratio * packed))
                )
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        text = f"The archive is no readable zip: {error}."
        raise BadFolder("artifact_not_zip", text, "Send the folder as one zip: helio model push") from error


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise BadFolder("artifact_bomb", f"The archive has more than {MAX_FILES} files.", "Pack small files together.")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        if unsafe(name) and name != MANIFEST:
            text = f"The archive contains {name[:200]!a}, which is no path inside a folder."
            raise BadFolder("artifact_path_escapes", text, "Pack relative paths only.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            text = f"The archive contains a link or special file: {name[:200]!a}."
            raise BadFolder("artifact_link", text, "Replace it by the file itself.")
        if name.casefold() in seen:
            raise BadFolder("artifact_not_zip", f"The archive contains {name[:200]!a} twice.", "Pack it again.")
        seen.add(name.casefold())


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, written: int, limit: int) -> int:
    path = target / entry.orig_filename
    if entry.orig_filename == MANIFEST:
        return written  # ours: it is made again
    with archive.open(entry) as source:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > limit:
                        raise BadFolder(
                            "artifact_bomb",
                            f"The archive unpacks to more than {limit // 2**20} MiB.",
                            "Send weights as they are; leave out files that are mostly empty.",
                        )
                    out.write(chunk)
        except OSError as error:
            if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
                text = f"The archive has a file and a folder called {entry.orig_filename[:200]!a}."
                raise BadFolder("artifact_not_zip", text, "Pack it again.") from error
            raise unavailable("The upload cannot be unpacked", error) from error
    return written


def packed(folders: ArtifactFolders, digest: str) -> Iterator[bytes]:
    """An artifact as a stored zip, piece by piece, each file verified on the way: a damaged one breaks the download off."""
    manifest = folders.manifest(digest)
    sink = _Sink()
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_STORED) as archive:
        for entry in manifest.files:
            info = zipfile.ZipInfo(entry.path, EPOCH)
            info.external_attr = 0o100644 << 16
            with archive.open(info, "w", force_zip64=entry.size > 2**31) as out:
                for chunk in folders.chunks(digest, entry):
                    out.write(chunk)
                    yield sink.take()
        info = zipfile.ZipInfo(MANIFEST, EPOCH)
        archive.writestr(info, manifest.canonical)
    yield sink.take()


class _Sink:
    """A file that can only be appended to; what was written is taken away."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def write(self, data: bytes) -> int:
        self._buffer += data
        self._at += len(data)
        return len(data)

    def flush(self) -> None:
        return None

    def take(self) -> bytes:
        taken, self._buffer = bytes(self._buffer), bytearray()
        return taken
