"""Archives: what is refused, that nothing of a refused one stays, and that projects do not see each other's."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from heliostat.artifacts import ArtifactMissing, Artifacts, Staged
from heliostat.packages import BadPackage, Limits, Packages, uri_name
from heliostat.packages.archive import check
from heliostat.store import Store

LIMITS = Limits(upload_bytes=100_000, entries=50, unpacked_bytes=4 * 2**20, ratio=100)


def zipped(*names: str, content: bytes = b"x = 1\n", link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)  # no date of now: equal content is equal bytes
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def lying(declared: int) -> bytes:
    """An archive whose headers understate the size of what is in it."""
    data = bytearray(zipped("a.bin", content=b"\0" * (8 * 2**20)))
    real = (8 * 2**20).to_bytes(4, "little")
    return bytes(data.replace(real, declared.to_bytes(4, "little")))


BAD = [
    ("no zip", b"hello", "package_not_zip", "no readable zip"),
    ("a truncated zip", zipped("a.py")[:-8], "package_not_zip", "no readable zip"),
    ("an absolute path", zipped("/etc/cron.d/x"), "package_path_escapes", "/etc/cron.d/x"),
    ("a path through ..", zipped("a/../../x.py"), "package_path_escapes", "leaves"),
    ("a path through .. with backslashes", zipped("a\\..\\..\\x.py"), "package_path_escapes", "leaves"),
    ("a drive letter", zipped("C:/x.py"), "package_path_escapes", "C:"),
    ("a symbolic link", zipped("a.py", link="data"), "package_link", "symbolic link"),
    ("platform/__init__.py", zipped("platform/__init__.py", "a.py"), "package_shadows_stdlib", "platform/__init__.py"),
    ("queue.py", zipped("queue.py"), "package_shadows_stdlib", "queue.py"),
    ("a compiled module", zipped("ssl.cpython-311-x86_64-linux-gnu.so"), "package_shadows_stdlib", "ssl"),
    ("too many entries", zipped(*[f"f{i}.py" for i in range(51)]), "package_bomb", "51 entries"),
    ("too much unpacked", zipped("a.bin", content=b"\0" * (5 * 2**20)), "package_bomb", "unpacks"),
    ("a bomb by ratio", zipped("a.bin", content=b"\0" * (3 * 2**20)), "package_bomb", "times its size"),
    ("a bomb with lying headers", lying(10), "package_", ""),
]


@pytest.mark.parametrize(("data", "code", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refused(data: bytes, code: str, words: str) -> None:
    with pytest.raises(BadPackage) as caught:
        check(io.BytesIO(data), LIMITS)
    assert caught.value.code.startswith(code)
    assert words in str(caught.value)
    assert caught.value.remedy


GOOD = [
    ("a script and a package", ("train.py", "model/__init__.py", "model/queue.py")),
    ("a folder named like a module, without __init__", ("platform/engine.py",)),
    ("tests and __main__", ("test/__init__.py", "__main__.py")),
    ("data with a module's name", ("json.txt", "queue/data.csv")),
    ("nothing at all", ()),
]


@pytest.mark.parametrize("names", [case[1] for case in GOOD], ids=[case[0] for case in GOOD])
def test_accepted(names: tuple[str, ...]) -> None:
    assert check(io.BytesIO(zipped(*names)), LIMITS) == len(names)


@pytest.fixture
def packages(store: Store, tmp_path: Path) -> Packages:
    return Packages(store, Artifacts(str(tmp_path / "artifacts")), LIMITS, lambda: 1_000)


def keep(packages: Packages, project: str, name: str, data: bytes) -> None:
    with Staged() as staged:
        staged.write(data)
        packages.keep(project, name, staged, by="ada")


def test_the_same_name_in_two_projects_is_two_objects(packages: Packages) -> None:
    keep(packages, "vision", "_ray_pkg_1.zip", zipped("a.py"))
    keep(packages, "ocr", "_ray_pkg_1.zip", zipped("b.py"))
    assert packages.content("vision", "gcs://_ray_pkg_1.zip") == zipped("a.py")
    assert packages.content("ocr", "_ray_pkg_1.zip") == zipped("b.py")
    assert not packages.exists("other", "_ray_pkg_1.zip")
    assert packages.content("other", "_ray_pkg_1.zip") is None


def test_equal_content_is_kept_once(packages: Packages, tmp_path: Path) -> None:
    for project in ("vision", "ocr"):
        keep(packages, project, "_ray_pkg_1.zip", zipped("a.py"))
    assert len([path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]) == 1


def test_a_refused_archive_leaves_nothing(packages: Packages, tmp_path: Path) -> None:
    with pytest.raises(BadPackage):
        keep(packages, "vision", "_ray_pkg_1.zip", zipped("queue.py"))
    assert not packages.exists("vision", "_ray_pkg_1.zip")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


async def test_an_upload_stops_at_the_limit(packages: Packages) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 10_000
            yield b"x" * 10_000

    with Staged() as staged, pytest.raises(BadPackage, match="larger"):
        await packages.receive(endless(), staged)
    assert staged.size <= LIMITS.upload_bytes
    assert taken <= 4 * LIMITS.upload_bytes + 10_000


@pytest.mark.parametrize(
    "name", ["../x.zip", "_ray_pkg_.zip", "x.tar", "a/b.zip", "gcs://", "_ray_pkg_1.zip\n", ".zip"]
)
def test_names_that_are_no_package(name: str) -> None:
    with pytest.raises(BadPackage, match="no package name"):
        uri_name(name)


def test_damaged_content_is_never_handed_out(tmp_path: Path) -> None:
    artifacts = Artifacts(str(tmp_path))
    with Staged() as staged:
        staged.write(b"hello")
        digest = artifacts.keep(staged)
    assert artifacts.read(digest) == b"hello"
    artifacts.path(digest).write_bytes(b"hullo")
    with pytest.raises(ArtifactMissing, match="damaged"):
        artifacts.read(digest)
    with pytest.raises(ArtifactMissing):
        artifacts.read("0" * 64)
    with pytest.raises(ArtifactMissing):
        artifacts.read("../../etc/passwd")
