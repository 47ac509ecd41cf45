"""Uploads that want out of their folder, blow up, or are not what they say: each refused with its code, nothing kept."""

from __future__ import annotations

import errno
import io
import json
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heliostat.api.options import DoorOptions
from heliostat.registry import ModelLimits

from tests.platform.conftest import House
from tests.platform.registry import artifact

PUSH = "/api/v1/models/digits/versions"
GOOD = artifact.files()


def with_entry(name: str, data: bytes = b"x", mode: int = 0o100644) -> bytes:
    """A good archive with one more entry, written as it is."""
    buffer = io.BytesIO(artifact.zipped(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename, info.external_attr = name, mode << 16
        archive.writestr(info, data)
    return buffer.getvalue()


def tarball() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("../../evil")
        archive.addfile(info, io.BytesIO(b""))
    return buffer.getvalue()


def lying_size() -> bytes:
    """A deflated megabyte of zeros whose declared size is one byte."""
    whole = artifact.zipped({**GOOD, "zeros": b"\0" * 2**20}, zipfile.ZIP_DEFLATED)
    return whole.replace(struct.pack("<I", 2**20), struct.pack("<I", 1))


def twice() -> bytes:
    buffer = io.BytesIO(artifact.zipped(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.json", b"{}")
    return buffer.getvalue()


def card(**changed: Any) -> bytes:
    return artifact.zipped(artifact.files(**changed))


TRICKS: list[Any] = [
    pytest.param(b"", "artifact_not_zip", id="nothing"),
    pytest.param(b"PK\x03\x04" + b"x" * 100, "artifact_not_zip", id="rubbish"),
    pytest.param(artifact.zipped(GOOD)[:-30], "artifact_not_zip", id="cut off"),
    pytest.param(tarball(), "artifact_not_zip", id="a tar"),
    pytest.param(with_entry("../evil"), "artifact_path_escapes", id="a path with dots"),
    pytest.param(with_entry("/etc/evil"), "artifact_path_escapes", id="an absolute path"),
    pytest.param(with_entry("a\\..\\evil"), "artifact_path_escapes", id="a path of Windows"),
    pytest.param(with_entry("a\0b"), "artifact_path_escapes", id="a NUL in a path"),
    pytest.param(with_entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "artifact_link", id="a link"),
    pytest.param(with_entry("dev", b"", stat.S_IFCHR | 0o600), "artifact_link", id="a device"),
    pytest.param(with_entry("MODEL.JSON"), "artifact_not_zip", id="the same name on a disk without case"),
    pytest.param(with_entry("model.json/x"), "artifact_not_zip", id="a file that is a folder as well"),
    pytest.param(twice, "artifact_not_zip", id="an entry twice"),
    pytest.param(
        artifact.zipped({**GOOD, "z": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED), "artifact_bomb", id="a bomb"
    ),
    pytest.param(lying_size, "artifact_not_zip", id="a size that lies"),
    pytest.param(artifact.zipped({f"f{n}": b"" for n in range(10_001)}), "artifact_bomb", id="too many files"),
    pytest.param(artifact.zipped({"a": b"b"}), "bad_model", id="no model.json"),
    pytest.param(artifact.zipped({**GOOD, "model.json": b"{"}), "bad_model", id="half a model.json"),
    pytest.param(artifact.zipped({**GOOD, "model.json": b"\xff\xfe"}), "bad_model", id="a model.json of other bytes"),
    pytest.param(card(signature={}), "bad_model", id="no signature"),
    pytest.param(card(factory="other:Net"), "bad_model", id="a factory that is not in code"),
    pytest.param(artifact.zipped({**GOOD, "model.onnx": artifact.onnx()}), "bad_model", id="two models"),
    pytest.param(artifact.zipped({**GOOD, "state.pt": b"PK"}), "pickle_refused", id="a pickle beside good weights"),
    pytest.param(
        artifact.zipped({"model.json": GOOD["model.json"], "code/net.py": b""}), "bad_weights", id="weights are missing"
    ),
]


@pytest.mark.parametrize(("content", "code"), TRICKS)
async def test_tricks(house: House, tmp_path: Path, content: bytes | Callable[[], bytes], code: str) -> None:
    async with house.client() as client:
        told = await client.post(PUSH, content=content() if callable(content) else content)
        assert (told.json()["code"], told.status_code) == (code, 403 if code == "pickle_refused" else 400), told.text
        assert told.json()["remedy"]
        assert (await client.get("/api/v1/models")).json()["items"] == []
    left = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert left == [] and not (tmp_path / "evil").exists()


def header(tensors: dict[str, Any], data: bytes = b"\0" * 32) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS: list[Any] = [
    pytest.param("safetensors", b"", id="empty"),
    pytest.param("safetensors", b"\x80\x04N.", id="a pickle called safetensors"),
    pytest.param("safetensors", struct.pack("<Q", 2**62) + b"{}", id="a header longer than the file"),
    pytest.param("safetensors", header({"w": tensor([2, 4], 0, 32)})[:-1], id="a byte short"),
    pytest.param("safetensors", header({"w": tensor([2, 4], 0, 32)}) + b"x", id="a byte long"),
    pytest.param("safetensors", header({"w": tensor([2, 5], 0, 32)}), id="a shape that does not match"),
    pytest.param("safetensors", header({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}), id="tensors that overlap"),
    pytest.param("safetensors", header({"w": tensor([8], 0, 32, "OBJECT")}), id="a type that is none"),
    pytest.param("safetensors", header({"w": tensor([-2, -4], 0, 32)}), id="negative sizes"),
    pytest.param("safetensors", header({"w": 3}), id="a tensor that is a number"),
    pytest.param("skops", b"\x80\x04N.", id="a pickle called skops"),
    pytest.param("skops", artifact.zipped({"a": b""}), id="a zip of something else"),
    pytest.param("skops", artifact.zipped({"schema.json": b"{}", "0.pkl": b"\x80"}), id="a skops file with a pickle inside"),
    pytest.param("skops", artifact.zipped({"schema.json": b"{"}), id="a schema that is no JSON"),
    pytest.param("onnx", b"", id="empty onnx"),
    pytest.param("onnx", artifact.onnx()[:-1], id="onnx cut off"),
    pytest.param("onnx", b"\x08\x08", id="onnx without a graph"),
    pytest.param("onnx", b"\xff" * 40, id="rubbish called onnx"),
    pytest.param("onnx", b"hello, this is no protobuf", id="text called onnx"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "content"), WEIGHTS)
async def test_weights_that_are_not_what_they_say(house: House, kind: str, content: bytes) -> None:
    files = {**artifact.files(kind=kind), artifact.WEIGHTS[kind][0]: content}
    async with house.client() as client:
        told = await client.post(PUSH, content=artifact.zipped(files))
    assert (told.status_code, told.json()["code"]) == (400, "bad_weights"), told.text


async def test_a_chunked_upload_beyond_the_limit_is_413(make_house: Any) -> None:
    house = make_house(options=DoorOptions(models=ModelLimits(upload_bytes=1_000)))

    async def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 100

    async with house.client() as client:
        told = await client.post(PUSH, content=pieces())
        assert (told.status_code, told.json()["code"]) == (413, "artifact_too_large")


@pytest.mark.parametrize("place", ["while it is received", "while it is unpacked", "while it is kept"])
async def test_a_full_disk_is_507_and_nothing_is_left(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_given: Any, **_more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if place == "while it is received":
            patched.setattr("heliostat.artifacts.content.tempfile.TemporaryFile", full)
        elif place == "while it is unpacked":
            patched.setattr("heliostat.artifacts.folders.tempfile.mkdtemp", full)
        else:
            patched.setattr("heliostat.artifacts.folders._sync", full)
        async with house.client() as client:
            told = await client.post(PUSH, content=artifact.zipped(GOOD))
            assert (told.status_code, told.json()["code"]) == (507, "artifact_store_full"), told.text
            assert "No space left" in told.json()["detail"] and "Free space" in told.json()["remedy"]
            assert (await client.get("/api/v1/models")).json()["items"] == []
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []
    async with house.client() as client:
        assert (await client.post(PUSH, content=artifact.zipped(GOOD))).status_code == 201
