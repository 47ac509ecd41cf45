"""What is in an artifact folder: its files with size and SHA-256. The hash of the canonical manifest names the folder.

Canonical: UTF-8 JSON `{"files": [{"path", "sha256", "size"}, ...]}`, files sorted by path, keys sorted, no spaces. The same
bytes lie in the folder as `manifest.json`, so whoever loads an artifact needs its name and nothing else: the hash of
`manifest.json` must be the name, then the hash of each file must be the one in it. Only regular files count; a link is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

MANIFEST = "manifest.json"
CHUNK = 1 << 20
MAX_FILES = 10_000
MAX_PATH = 240


class BadFolder(Exception):
    """A folder that cannot become an artifact. `code` is stable, `remedy` says what to change."""

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """path: inside the folder, with slashes. size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    files: tuple[Entry, ...]

    @cached_property
    def canonical(self) -> bytes:
        rows = [{"path": entry.path, "sha256": entry.sha256, "size": entry.size} for entry in sorted(self.files)]
        return json.dumps({"files": rows}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Raises ValueError for what is no manifest, or has a path that leaves its folder."""
        rows = json.loads(content)["files"]
        found = tuple(Entry(str(row["path"]), str(row["sha256"]), int(row["size"])) for row in rows)
        for entry in found:
            if unsafe(entry.path):
                raise ValueError(f"'{entry.path}' leaves the folder")
        return cls(found)


def unsafe(path: str) -> bool:
    """Whether a path inside an artifact is none: absolute, with `..`, backslashes or control characters, or the manifest's own."""
    parts = PurePosixPath(path).parts
    odd = "\\" in path or not path.isprintable() or (len(path) > 1 and path[1] == ":")
    plain = "/".join(parts) == path and path not in ("", ".", MANIFEST)
    return odd or not plain or path.startswith("/") or ".." in parts or len(path.encode()) > MAX_PATH


def scan(folder: Path) -> Manifest:
    """The manifest of a local folder; reads every file. BadFolder for links, special files and paths that are none."""
    entries = []
    for name, path in walk(folder):
        total, size = hashlib.sha256(), 0
        with open_regular(path, name) as source:
            while chunk := source.read(CHUNK):
                total.update(chunk)
                size += len(chunk)
        entries.append(Entry(name, total.hexdigest(), size))
    if not entries:
        raise BadFolder("artifact_empty", "The folder has no files.", "Put model.json and the weights into it.")
    return Manifest(tuple(sorted(entries)))


def walk(folder: Path, base: str = "", count: list[int] | None = None) -> Iterator[tuple[str, Path]]:
    """(path inside, path) of every file, sorted. Follows no link."""
    seen = [0] if count is None else count
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = base + entry.name
        if name == MANIFEST:
            continue
        if entry.is_symlink():
            raise BadFolder("artifact_link", f"'{name}' is a link.", "Put the file itself into the folder.")
        if entry.is_dir():
            yield from walk(Path(entry.path), f"{name}/", seen)
            continue
        if unsafe(name):
            raise BadFolder("artifact_path_escapes", f"'{name[:200]!a}' is no path of an artifact.", "Rename the file.")
        seen[0] += 1
        if seen[0] > MAX_FILES:
            raise BadFolder(
                "artifact_bomb", f"The folder has more than {MAX_FILES} files.", "Pack small files together."
            )
        yield name, Path(entry.path)


def open_regular(path: Path, name: str) -> IO[bytes]:
    """Open a regular file for reading, never a link or a device, whatever was swapped in since it was listed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BadFolder(
            "artifact_link", f"'{name}' cannot be read: {error.strerror}.", "Write it as a file."
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadFolder("artifact_link", f"'{name}' is no regular file.", "Put only files into the folder.")
    return os.fdopen(handle, "rb")
