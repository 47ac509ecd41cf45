"""A folder as a package: one zip, named after what is in it.

The same files give the same name on every machine and at any time (no timestamps, sorted paths, hash over paths, modes and
contents rather than over the zip's bytes), so a folder that did not change is uploaded once. Links are resolved when they stay
inside the folder; one that leaves it is refused by name, because what it points to would not be there on the cluster.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from heliostat.client.ignore import Rule, is_out, read_rules
from heliostat.wire.errors import BadRequest

MAX_PACKAGE_BYTES = 256 * 1024 * 1024
MAX_FILES = 20_000
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""


@dataclass(frozen=True, slots=True)
class PackedFile:
    """name: path inside the package with slashes. mode: 0o755 or 0o644."""

    name: str
    path: Path
    mode: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Package:
    """name: `_ray_pkg_<hash>.zip`, the form that Ray's own clients give their packages."""

    name: str
    files: tuple[PackedFile, ...]

    @property
    def uri(self) -> str:
        return f"gcs://{self.name}"

    def write(self, out: BinaryIO) -> None:
        from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

        with ZipFile(out, "w", ZIP_DEFLATED, compresslevel=6) as archive:
            for file in self.files:
                info = ZipInfo(file.name, EPOCH)
                info.external_attr = (0o100000 | file.mode) << 16
                info.compress_type = ZIP_DEFLATED
                archive.writestr(info, file.path.read_bytes())


def pack(folder: Path) -> Package:
    """The package of a folder. Reads every file once for its hash."""
    if not folder.is_dir():
        raise BadRequest(f"working_dir {folder} is not a folder.", remedy="Name an existing folder.")
    files = tuple(sorted(collect(folder), key=lambda file: file.name))
    if not files:
        raise BadRequest(f"working_dir {folder} has no file to send.", remedy="Is everything in its .gitignore?")
    _check_size(folder, files)
    total = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.path.read_bytes()).hexdigest()
        total.update(f"{file.name}\0{file.mode:o}\0{content}\n".encode())
    return Package(f"_ray_pkg_{total.hexdigest()[:16]}.zip", files)


def collect(folder: Path) -> Iterator[PackedFile]:
    yield from _walk(folder.resolve(), folder.resolve(), "", [])


def _walk(top: Path, folder: Path, base: str, inherited: list[Rule]) -> Iterator[PackedFile]:
    rules = inherited + read_rules(folder, base)
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = base + entry.name
        if is_out(name, entry.is_dir(), rules):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            _check_link(top, path, name)
        if entry.is_dir():
            yield from _walk(top, path, f"{name}/", rules)
        elif entry.is_file():
            stat = entry.stat()
            yield PackedFile(name, path, 0o755 if stat.st_mode & 0o100 else 0o644, stat.st_size)


def _check_link(top: Path, path: Path, name: str) -> None:
    aim = path.resolve()
    if not aim.exists() or not aim.is_relative_to(top):
        raise BadRequest(
            f"{name} is a link to {aim}, which does not travel with the folder.",
            code="link_leaves_package",
            remedy="Copy the file in, or add the link to .heliostatignore.",
        )
    if aim.is_dir() and path.is_relative_to(aim):
        raise BadRequest(f"{name} is a link to a folder above itself.", remedy="Add the link to .heliostatignore.")


def _check_size(folder: Path, files: tuple[PackedFile, ...]) -> None:
    total = sum(file.bytes for file in files)
    if total <= MAX_PACKAGE_BYTES and len(files) <= MAX_FILES:
        return
    largest = sorted(files, key=lambda file: file.bytes, reverse=True)[:3]
    named = ", ".join(f"{file.name} ({file.bytes // 1024**2} MiB)" for file in largest)
    raise BadRequest(
        f"working_dir {folder} holds {len(files)} files and {total // 1024**2} MiB; a package may have {MAX_FILES} files and "
        f"{MAX_PACKAGE_BYTES // 1024**2} MiB. The largest: {named}.",
        code="package_too_large",
        remedy="List what the job does not need in .heliostatignore; let the job read large data from where it lies.",
    )
