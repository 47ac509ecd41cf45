"""Artifact folders: written once, whole or not at all, verified by digest; on a local disk and on an object store."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from heliostat.artifacts import ArtifactDamaged, ArtifactFolders, ArtifactMissing, BadFolder, Manifest, scan
from heliostat.artifacts.manifest import unsafe
from pyarrow import fs

from tests.platform.registry import artifact

Make = Callable[[], ArtifactFolders]


@pytest.fixture(params=["local disk", "object store"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """An object store is a file system that is not the local one: it has no rename of folders and no staging of its own."""

    def local() -> ArtifactFolders:
        return ArtifactFolders(str(tmp_path / "store"))

    def remote() -> ArtifactFolders:
        (tmp_path / "store").mkdir(exist_ok=True)
        made = ArtifactFolders(str(tmp_path / "store"))
        made._fs, made._local = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), False
        made._root = "store"
        return made

    return local if request.param == "local disk" else remote


def keep(folders: ArtifactFolders, seed: int = 0) -> Manifest:
    with folders.staging() as staged:
        return folders.keep(artifact.write(staged, artifact.files(seed)))


def path_of(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "store" / "models" / digest[:2] / digest


def test_what_is_kept_comes_back(make: Make, tmp_path: Path) -> None:
    folders = make()
    manifest = keep(folders)
    assert (
        hashlib.sha256((path_of(tmp_path, manifest.digest) / "manifest.json").read_bytes()).hexdigest()
        == manifest.digest
    )
    assert folders.has(manifest.digest) and folders.verify(manifest.digest) == manifest
    assert folders.read(manifest.digest, "code/net.py") == artifact.files()["code/net.py"]
    assert not (tmp_path / "store" / "staging").exists() or not list((tmp_path / "store" / "staging").iterdir())


def test_a_uri_is_what_pyarrow_takes(tmp_path: Path) -> None:
    folders = ArtifactFolders(str(tmp_path / "store"))
    manifest = keep(folders)
    found, path = fs.FileSystem.from_uri(folders.uri(manifest.digest))
    with found.open_input_stream(f"{path}/manifest.json") as stream:
        assert stream.read() == manifest.canonical
    assert ArtifactFolders(f"file://{tmp_path}/store").uri(manifest.digest) == folders.uri(manifest.digest)


def test_the_same_content_is_written_once(make: Make, tmp_path: Path) -> None:
    folders = make()
    first = keep(folders)
    before = (path_of(tmp_path, first.digest) / "model.json").stat().st_ino
    assert keep(folders) == first
    assert (path_of(tmp_path, first.digest) / "model.json").stat().st_ino == before


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "code/net.py"])
def test_a_changed_byte_is_refused_by_digest_and_healed_by_the_next_write(
    make: Make, tmp_path: Path, name: str
) -> None:
    folders = make()
    manifest = keep(folders)
    path = path_of(tmp_path, manifest.digest) / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(path.read_bytes()[-1:], b"?"))
    with pytest.raises(ArtifactDamaged, match=manifest.digest):
        folders.verify(manifest.digest)
    assert keep(folders) == manifest
    folders.verify(manifest.digest)


def test_a_missing_file_is_damage_and_a_missing_artifact_is_missing(make: Make, tmp_path: Path) -> None:
    folders = make()
    manifest = keep(folders)
    (path_of(tmp_path, manifest.digest) / "code" / "net.py").unlink()
    assert not folders.has(manifest.digest)
    with pytest.raises(ArtifactDamaged, match=r"net\.py is missing"):
        folders.verify(manifest.digest)
    with pytest.raises(ArtifactMissing):
        folders.verify("0" * 64)
    with pytest.raises(ArtifactMissing, match="no digest"):
        folders.verify("../../etc/passwd")


@pytest.mark.parametrize("files_written", [0, 1, 2, 3])
def test_a_writer_that_dies_leaves_nothing_that_looks_whole(make: Make, tmp_path: Path, files_written: int) -> None:
    """What an object store holds when its writer dies: some files, no manifest."""
    folders = make()
    whole = scan(artifact.write(tmp_path / "source"))
    place = path_of(tmp_path, whole.digest)
    for entry in whole.files[:files_written]:
        (place / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tmp_path / "source" / entry.path, place / entry.path)
    assert not folders.has(whole.digest)
    assert keep(folders) == whole
    folders.verify(whole.digest)


def test_many_writers_of_the_same_content_at_once(make: Make, tmp_path: Path) -> None:
    folders = [make() for _ in range(8)]
    start, made, failed = threading.Barrier(8), [], []

    def write(own: ArtifactFolders) -> None:
        start.wait()
        try:
            made.append(keep(own).digest)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(own,)) for own in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(set(made)) == 1 and len(made) == 8
    folders[0].verify(made[0])


def test_a_dropped_folder_is_gone_at_once_and_may_come_again(make: Make) -> None:
    folders = make()
    manifest = keep(folders)
    folders.drop(manifest.digest)
    folders.drop(manifest.digest)
    assert not folders.has(manifest.digest)
    keep(folders)
    assert folders.has(manifest.digest)


def test_the_sweep_takes_what_a_crash_left(tmp_path: Path) -> None:
    folders = ArtifactFolders(str(tmp_path / "store"))
    manifest = keep(folders)
    artifact.write(tmp_path / "store" / "staging" / "in-dead")
    artifact.write(tmp_path / "store" / "staging" / "ready-dead")
    assert folders.sweep() == 2 and folders.sweep() == 0
    folders.verify(manifest.digest)


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("model.json", False),
        ("code/a/b.py", False),
        ("ä.txt", False),
        ("", True),
        (".", True),
        ("..", True),
        ("a/../b", True),
        ("/etc/passwd", True),
        ("a//b", True),
        ("./a", True),
        ("a/", True),
        ("a\\b", True),
        ("C:/x", True),
        ("a\0b", True),
        ("a\nb", True),
        ("manifest.json", True),
        ("x" * 300, True),
    ],
)
def test_paths(path: str, bad: bool) -> None:
    assert unsafe(path) is bad


def test_links_and_special_files_are_no_content(tmp_path: Path) -> None:
    folder = artifact.write(tmp_path / "model")
    (folder / "code" / "more").symlink_to("/etc")
    with pytest.raises(BadFolder, match="link"):
        scan(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFolder, match="no files"):
        scan(tmp_path / "empty")
