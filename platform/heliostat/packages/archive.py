"""What an uploaded archive must not be: a bomb, a way out of its folder, or a shadow over the standard library.

Ray puts `working_dir` in front of the standard library on every worker's path. A top-level `platform/__init__.py` or `queue.py`
there kills each worker at `import ray` while the job stays PENDING without a word (measured), so it is refused here by name. A
folder without `__init__.py` does not shadow: the standard library wins over namespace packages.
"""

from __future__ import annotations

import stat
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

MODULE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")
HARMLESS = frozenset(
    {"__main__", "__future__", "antigravity", "this", "idlelib", "turtledemo", "lib2to3", "test", "tests"}
)
"""Standard names that nothing imports by accident: a project's own `test/` or `__main__.py` is common and safe."""
SHADOWED = frozenset(sys.stdlib_module_names) - HARMLESS


@dataclass(frozen=True, slots=True)
class Limits:
    """upload_bytes: of the archive itself. entries, unpacked_bytes: of what is in it. ratio: unpacked to packed, once above 1 MiB."""

    upload_bytes: int = 500 * 2**20
    entries: int = 50_000
    unpacked_bytes: int = 2 * 2**30
    ratio: int = 200


class BadPackage(Exception):
    """The archive is refused. `code` is stable, `remedy` says what to change."""

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


def check(content: IO[bytes], limits: Limits) -> int:
    """The number of entries of an acceptable archive, or BadPackage. Reads every byte: declared sizes may lie."""
    try:
        with zipfile.ZipFile(content) as archive:
            entries = archive.infolist()
            _check_names(entries)
            _check_declared(entries, limits)
            _check_shadows(entry.filename for entry in entries)
            _check_content(archive, entries, limits)
            return len(entries)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadPackage(
            "package_not_zip", f"The package is no readable zip archive: {error}.", "Upload it again."
        ) from error


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        name = entry.orig_filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":") or ".." in parts or "\0" in name:
            raise BadPackage(
                "package_path_escapes",
                f"The package contains '{name[:200]}', which leaves its folder.",
                "Pack relative paths inside the working directory only.",
            )
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a symbolic link" if kind == stat.S_IFLNK else "a special file"
            raise BadPackage(
                "package_link", f"The package contains {what}: '{name[:200]}'.", "Replace it by the file itself."
            )


def _check_declared(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(entries) > limits.entries:
        raise BadPackage(
            "package_bomb",
            f"The package has {len(entries)} entries; the limit is {limits.entries}.",
            "Exclude what the job does not read (runtime_env excludes, .gitignore).",
        )
    seen: set[str] = set()
    for entry in entries:
        if entry.filename in seen:
            raise BadPackage(
                "package_not_zip", f"The package contains '{entry.filename[:200]}' twice.", "Pack it again."
            )
        seen.add(entry.filename)
    _check_size(sum(e.file_size for e in entries), sum(e.compress_size for e in entries), limits)


def _check_content(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    unpacked = 0
    packed = sum(entry.compress_size for entry in entries)
    for entry in entries:
        with archive.open(entry) as stream:
            while chunk := stream.read(1 << 18):
                unpacked += len(chunk)
                _check_size(unpacked, packed, limits)


def _check_size(unpacked: int, packed: int, limits: Limits) -> None:
    if unpacked > limits.unpacked_bytes:
        raise BadPackage(
            "package_bomb",
            f"The package unpacks to more than {limits.unpacked_bytes // 2**20} MiB.",
            "Exclude data from the working directory; read it from storage in the job.",
        )
    if unpacked > 2**20 and unpacked > limits.ratio * max(packed, 1):
        raise BadPackage(
            "package_bomb",
            f"The package unpacks to more than {limits.ratio} times its size.",
            "Exclude generated or empty files from the working directory.",
        )


def _check_shadows(names: Iterable[str]) -> None:
    found = sorted({module for name in names if (module := _shadow(name))})
    if found:
        raise BadPackage(
            "package_shadows_stdlib",
            f"The package has top-level modules with names of Python's standard library: {', '.join(found[:8])}. Ray would import "
            f"them instead of Python's own, and no worker could start.",
            f"Rename {found[0]}, or submit with the folder that contains this one as the working directory.",
        )


def _shadow(name: str) -> str:
    """`queue.py` or `platform/__init__.py` when the entry would shadow a standard module, else nothing."""
    parts = PurePosixPath(name).parts
    if len(parts) == 1 and name.endswith(MODULE_SUFFIXES):
        return name if parts[0].split(".", 1)[0] in SHADOWED else ""
    if len(parts) == 2 and parts[1].startswith("__init__.") and parts[1].endswith(MODULE_SUFFIXES):
        return name if parts[0] in SHADOWED else ""
    return ""
