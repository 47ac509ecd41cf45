"""The artifact store over pyarrow's file systems: a local folder now, S3 or GCS by URI, the same code.

An object's path is its digest (`sha256/ab/abcdef...`), so equal content is kept once and never changes. Uploads are staged in a
local temporary file while they are hashed and checked; only what passed is copied in, under a temporary name, and renamed:
a reader sees a whole object or none, and a refused upload leaves nothing behind.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pyarrow import fs

CHUNK = 1 << 20


class ArtifactMissing(Exception):
    """There is no object with this digest, or what is there is damaged."""


class ArtifactsUnavailable(Exception):
    """The artifact store cannot be used now (disk full, no permission, no network)."""

    remedy = "Free space, or make the artifact store writable for the control plane; helio doctor names its place."


class ArtifactsFull(ArtifactsUnavailable):
    """The disk (or quota) of the artifact store is full. Nothing was kept."""

    remedy = "Free space on the disk of the artifact store (helio doctor names it), then send it again."


def unavailable(what: str, error: OSError) -> ArtifactsUnavailable:
    """The error of ours that a failed read or write of the store means."""
    kind = ArtifactsFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else ArtifactsUnavailable
    return kind(f"{what}: {error.strerror or error}.")


class Staged:
    """A file that is being received: local, temporary, hashed on the way. Use as a context manager; gone afterwards."""

    def __init__(self, folder: Path | None = None) -> None:
        self._sum = hashlib.sha256()
        self.size = 0
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by __exit__)
        except OSError as error:
            raise unavailable("An upload cannot be received", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise unavailable("An upload cannot be received", error) from error
        self._sum.update(chunk)
        self.size += len(chunk)

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()

    def rewound(self) -> IO[bytes]:
        """The content from its start."""
        self._file.flush()
        self._file.seek(0)
        return self._file


class Artifacts:
    def __init__(self, uri: str) -> None:
        """`uri`: a local path, or file://, s3:// or gs:// as pyarrow knows them."""
        if "://" in uri:
            self._fs, self._root = fs.FileSystem.from_uri(uri)
        else:
            self._fs, self._root = fs.LocalFileSystem(), str(Path(uri).absolute())
        self.local_root = Path(self._root) if isinstance(self._fs, fs.LocalFileSystem) else None

    def keep(self, staged: Staged) -> str:
        """Copy a staged file in; returns its digest. Content that is already there is not written again."""
        digest = staged.digest
        path = self._path(digest)
        temporary = f"{path}.{secrets.token_hex(6)}.part"
        try:
            if self._fs.get_file_info(path).type == fs.FileType.File:
                return digest
            self._fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
            source = staged.rewound()
            with self._fs.open_output_stream(temporary) as out:
                while chunk := source.read(CHUNK):
                    out.write(chunk)
            self._fs.move(temporary, path)
        except OSError as error:
            self._drop(temporary)
            raise unavailable("The artifact store cannot be written", error) from error
        return digest

    def read(self, digest: str) -> bytes:
        """The whole content, verified."""
        try:
            with self._fs.open_input_stream(self._path(digest)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError as error:
            raise ArtifactMissing(f"There is no artifact {digest}.") from error
        except OSError as error:
            raise ArtifactsUnavailable(f"The artifact store cannot be read: {error}.") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise ArtifactMissing(f"Artifact {digest} is damaged: its content has another hash.")
        return content

    def has(self, digest: str) -> bool:
        return bool(self._fs.get_file_info(self._path(digest)).type == fs.FileType.File)

    def path(self, digest: str) -> Path:
        """The object as a local file, verified; for a remote store its cached copy is the caller's business (`read`)."""
        if self.local_root is None:
            raise ArtifactMissing(f"Artifact {digest} is not on this machine.")
        self.read(digest)
        return Path(self._path(digest))

    def _path(self, digest: str) -> str:
        if len(digest) != 64 or not all(letter in "0123456789abcdef" for letter in digest):
            raise ArtifactMissing(f"'{digest}' is no digest.")
        return f"{self._root}/sha256/{digest[:2]}/{digest}"

    def _drop(self, path: str) -> None:
        try:
            self._fs.delete_file(path)
        except OSError:
            return  # it was never made, or the store that failed just now still fails; nothing refers to it
