"""The registry under several hands at once: pushes, aliases and deletions race, and every answer is one that somebody alone would get."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from heliostat.artifacts import ArtifactFolders
from heliostat.registry import (
    About,
    Actor,
    ModelLimits,
    ModelVersion,
    Reference,
    Registry,
    RegistryError,
    artifact_uri,
    parse_reference,
    resolve,
    which_version,
)
from heliostat.registry.versions import aliases, page
from heliostat.store import Store
from pyarrow import fs
from sqlalchemy.orm import Session

from tests.platform.registry import artifact

ANN = Actor("ann", 1_000)


@pytest.fixture
def registry(sqlite_store: Store, tmp_path: Path) -> Registry:
    return Registry(sqlite_store, ArtifactFolders(str(tmp_path / "store")), ModelLimits())


def push(
    registry: Registry, seed: int = 0, name: str = "digits", project: str = "vision", **about: Any
) -> ModelVersion:
    with registry.folders.staging() as staged:
        artifact.write(staged, artifact.files(seed))
        return registry.push(project, name, staged, About(**about), ANN)[0]


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Results (or RegistryErrors) of `number` threads that start together."""
    start = threading.Barrier(number)

    def one(index: int) -> Any:
        start.wait()
        try:
            return work(index)
        except RegistryError as error:
            return error

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def test_pushes_of_the_same_content_at_once_are_versions_of_one_artifact(registry: Registry) -> None:
    rows = at_once(8, lambda _index: push(registry))
    assert sorted(row.version for row in rows) == list(range(1, 9))
    assert len({row.sha256 for row in rows}) == 1
    registry.folders.verify(rows[0].sha256)


def test_an_alias_that_many_move_points_at_one_of_theirs(registry: Registry) -> None:
    for seed in range(6):
        push(registry, seed)
    moved = at_once(
        6,
        lambda index: registry.move_alias(
            "vision", "digits", "champion", Reference("digits", index + 1), ANN, lambda _: None
        ),
    )
    assert sorted(alias.version for alias in moved) == [1, 2, 3, 4, 5, 6]
    with registry.store.read() as session:
        (found,) = aliases(session, "vision", ["digits"])
    assert found.revision == 6


def test_of_many_guarded_moves_one_wins(registry: Registry) -> None:
    for seed in range(6):
        push(registry, seed)

    def only_if_new(found: Any) -> None:
        if found is not None:
            raise RegistryError("alias_moved", "late", "again", 412)

    moved = at_once(
        6, lambda index: registry.move_alias("vision", "digits", "a", Reference("digits", index + 1), ANN, only_if_new)
    )
    winners = [one for one in moved if not isinstance(one, RegistryError)]
    assert len(winners) == 1
    with registry.store.read() as session:
        assert resolve(session, "vision", "digits@a").version == winners[0].version


def test_deleting_and_pushing_the_same_content_never_leaves_a_version_without_artifact(registry: Registry) -> None:
    push(registry)

    def work(index: int) -> Any:
        if index % 2:
            return push(registry, name=f"m{index}")
        with registry.store.read() as session:
            rows = page(session, "vision", "digits", None, 10)
        return [registry.delete("vision", Reference("digits", row.version), ANN) for row in rows]

    for _ in range(10):
        at_once(6, work)
        with registry.store.read() as session:
            for name in ("digits", "m1", "m3", "m5"):
                for row in page(session, "vision", name, None, 100):
                    registry.folders.verify(row.sha256)
        push(registry)


def test_an_alias_and_a_deletion_race_and_one_of_them_is_refused(registry: Registry) -> None:
    for _ in range(10):
        version = push(registry).version

        def work(index: int, version: int = version) -> Any:
            reference = Reference("digits", version)
            if index:
                return registry.delete("vision", reference, ANN)
            return registry.move_alias("vision", "digits", "champion", reference, ANN, lambda _: None)

        told = at_once(2, work)
        refused = [one.code for one in told if isinstance(one, RegistryError)]
        assert refused in (["model_in_use"], ["unknown_version"], ["unknown_model"])
        with registry.store.read() as session:
            for alias in aliases(session, "vision", ["digits"]):
                resolve(session, "vision", Reference("digits", alias.version))


def test_what_an_endpoint_uses_is_not_deleted(sqlite_store: Store, tmp_path: Path) -> None:
    def uses(_session: Session, project: str, model: str, version: int) -> list[str]:
        return ["endpoint digits"] if (project, model, version) == ("vision", "digits", 1) else []

    registry = Registry(sqlite_store, ArtifactFolders(str(tmp_path / "store")), ModelLimits(), uses=(uses,))
    push(registry, 1)
    push(registry, 2)
    with pytest.raises(RegistryError, match="endpoint digits"):
        registry.delete("vision", Reference("digits", 1), ANN)
    with pytest.raises(RegistryError, match="endpoint digits"):
        registry.delete_model("vision", "digits", ANN)
    registry.delete("vision", Reference("digits", 2), ANN)


def test_the_uri_of_a_version_is_its_folder(registry: Registry) -> None:
    row = push(registry)
    found, path = fs.FileSystem.from_uri(artifact_uri(row, registry.folders))
    assert found.get_file_info(f"{path}/model.safetensors").size == len(artifact.safetensors())


def test_a_project_does_not_see_anothers(registry: Registry) -> None:
    push(registry, aliases=("champion",))
    with registry.store.read() as session:
        for reference in ("digits", "digits:1", "digits@champion"):
            assert resolve(session, "vision", reference).version == 1
            with pytest.raises(RegistryError, match="no model digits"):
                resolve(session, "ocr", reference)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", Reference("digits")),
        ("digits@champion", Reference("digits", alias="champion")),
        ("digits:3", Reference("digits", version=3)),
        ("a.b-c_1:12", Reference("a.b-c_1", version=12)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "@", "digits:", "digits@", "digits:x", "digits:0", "digits:-1", "digits:99999999999", "a/b", "a@B", "a:٣"]
)  # fmt: skip
def test_bad_references(text: str) -> None:
    with pytest.raises(RegistryError, match="names no model version"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("3", Reference("m", 3)),
        ("v3", Reference("m", 3)),
        ("@a", Reference("m", alias="a")),
        ("vip", Reference("m", alias="vip")),
    ],
)
def test_versions_in_paths(which: str, expected: Reference) -> None:
    assert which_version("m", which) == expected
