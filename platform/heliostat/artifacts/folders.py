"""Artifact folders over pyarrow's file systems: `models/ab/abcd.../` holds the files of one artifact and its manifest.json.

A folder is written once and never changed. On a local disk it is assembled beside its place and renamed into it; on an object
store the files go first and `manifest.json` last. Either way a folder without a manifest does not exist for a reader, a crash
leaves nothing that looks whole, and two writers of the same content write the same bytes. A folder that is found damaged is
replaced by the next write of the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from heliostat.artifacts.content import CHUNK, ArtifactMissing, unavailable
from heliostat.artifacts.manifest import MANIFEST, Entry, Manifest, open_regular, scan

FOLDERS = "models"
STAGING = "staging"


class ArtifactDamaged(ArtifactMissing):
    """What is in the store is not what its digest says. Nothing of it may be loaded."""


class ArtifactFolders:
    def __init__(self, uri: str) -> None:
        """`uri`: a local path, or file://, s3:// or gs:// as pyarrow knows them."""
        if "://" in uri:
            self._fs, self._root = fs.FileSystem.from_uri(uri)
            self._scheme = uri.split("://", 1)[0] if not isinstance(self._fs, fs.LocalFileSystem) else "file"
        else:
            self._fs, self._root, self._scheme = fs.LocalFileSystem(), str(Path(uri).absolute()), "file"
        self._local = isinstance(self._fs, fs.LocalFileSystem)

    def uri(self, digest: str) -> str:
        """Where whoever loads it finds it, for `pyarrow.fs.FileSystem.from_uri`."""
        return f"{self._scheme}://{self._path(digest)}"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty local folder to assemble an artifact in; gone afterwards. On the store's own disk where it has one."""
        parent = Path(self._root) / STAGING if self._local else None
        try:
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="in-", dir=parent))
        except OSError as error:
            raise unavailable("The artifact store cannot be written", error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, staged: Path) -> Manifest:
        """Move a staged folder into the store; what is whole there already is not written again."""
        manifest = scan(staged)
        if self._is_whole(manifest):
            return manifest
        try:
            if self._local:
                self._rename_in(staged, manifest)
            else:
                self._copy_in(staged, manifest)
        except OSError as error:
            raise unavailable("The artifact store cannot be written", error) from error
        return manifest

    def has(self, digest: str) -> bool:
        """Whether the folder is there with all files in their sizes (hashes are for who loads: `verify`)."""
        try:
            manifest = self.manifest(digest)
        except ArtifactMissing:
            return False
        paths = [f"{self._path(digest)}/{entry.path}" for entry in manifest.files]
        sizes = [info.size for info in self._fs.get_file_info(paths)]
        return sizes == [entry.size for entry in manifest.files]

    def manifest(self, digest: str) -> Manifest:
        """The manifest, verified against the digest."""
        try:
            with self._fs.open_input_stream(f"{self._path(digest)}/{MANIFEST}") as stream:
                content: bytes = stream.read()
        except FileNotFoundError as error:
            raise ArtifactMissing(f"There is no artifact {digest}.") from error
        except OSError as error:
            raise unavailable("The artifact store cannot be read", error) from error
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise ArtifactDamaged(f"Artifact {digest} is damaged: its manifest has SHA-256 {found}.")
        return Manifest.parse(content)

    def verify(self, digest: str) -> Manifest:
        """Read everything and compare; ArtifactDamaged names the file."""
        manifest = self.manifest(digest)
        for entry in manifest.files:
            for _chunk in self.chunks(digest, entry):
                pass
        return manifest

    def chunks(self, digest: str, entry: Entry) -> Iterator[bytes]:
        """The content of one file, hashed on the way; the last chunk is held back until the hash is right."""
        total, size, held = hashlib.sha256(), 0, b""
        try:
            with self._fs.open_input_stream(f"{self._path(digest)}/{entry.path}") as stream:
                while chunk := stream.read(CHUNK):
                    if held:
                        yield held
                    held = chunk
                    total.update(chunk)
                    size += len(chunk)
        except FileNotFoundError as error:
            raise ArtifactDamaged(f"Artifact {digest} is damaged: {entry.path} is missing.") from error
        except OSError as error:
            raise unavailable("The artifact store cannot be read", error) from error
        if (size, total.hexdigest()) != (entry.size, entry.sha256):
            raise ArtifactDamaged(
                f"Artifact {digest} is damaged: {entry.path} has SHA-256 {total.hexdigest()}, not {entry.sha256}."
            )
        yield held

    def read(self, digest: str, path: str) -> bytes:
        """One small file, verified."""
        for entry in self.manifest(digest).files:
            if entry.path == path:
                return b"".join(self.chunks(digest, entry))
        raise ArtifactMissing(f"Artifact {digest} has no file {path}.")

    def drop(self, digest: str) -> None:
        """Delete a folder: first its manifest, so that it is gone for readers at once."""
        path = self._path(digest)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(f"{path}/{MANIFEST}")
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_dir(path)
        except OSError as error:
            raise unavailable("The artifact store cannot be written", error) from error

    def sweep(self) -> int:
        """Remove what a crash left in staging (nobody is writing now); how many folders that were."""
        parent = Path(self._root) / STAGING
        if not self._local or not parent.is_dir():
            return 0
        left = list(parent.iterdir())
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    def _is_whole(self, manifest: Manifest) -> bool:
        try:
            self.verify(manifest.digest)
        except ArtifactMissing:
            return False
        return True

    def _rename_in(self, staged: Path, manifest: Manifest) -> None:
        place = Path(self._path(manifest.digest))
        place.parent.mkdir(parents=True, exist_ok=True)
        (staged / MANIFEST).write_bytes(manifest.canonical)
        for name in (*(entry.path for entry in manifest.files), MANIFEST):
            _sync(staged / name)
            (staged / name).chmod(0o444)
        ready = staged.parent / f"ready-{secrets.token_hex(6)}"
        staged.rename(ready)
        ready.chmod(0o755)
        if place.exists():  # damaged, or another writer of the same content was faster
            if self._is_whole(manifest):
                shutil.rmtree(ready)
                return
            place.rename(staged.parent / f"damaged-{secrets.token_hex(6)}")
        try:
            ready.rename(place)
        except OSError:
            shutil.rmtree(ready, ignore_errors=True)
            if not self._is_whole(manifest):  # else: the other writer won the race, with the same bytes
                raise
        _sync(place.parent)

    def _copy_in(self, staged: Path, manifest: Manifest) -> None:
        path = self._path(manifest.digest)
        for entry in manifest.files:
            target = f"{path}/{entry.path}"
            self._fs.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with open_regular(staged / entry.path, entry.path) as source, self._fs.open_output_stream(target) as out:
                while chunk := source.read(CHUNK):
                    out.write(chunk)
        with self._fs.open_output_stream(f"{path}/{MANIFEST}") as out:
            out.write(manifest.canonical)

    def _path(self, digest: str) -> str:
        if len(digest) != 64 or not all(letter in "0123456789abcdef" for letter in digest):
            raise ArtifactMissing(f"'{digest}' is no digest.")
        return f"{self._root}/{FOLDERS}/{digest[:2]}/{digest}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
