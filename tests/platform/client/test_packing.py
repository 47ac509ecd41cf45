"""What travels with a job: the same files, the same name; what .gitignore leaves out stays out."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from heliostat.client import packing
from heliostat.client.client import Client
from heliostat.client.ignore import is_out, parse_rule
from heliostat.client.packing import pack
from heliostat.wire.errors import BadRequest

from tests.platform.client.fake_server import FakeServer

RULES = [
    pytest.param(["*.pyc"], "a/b/x.pyc", True, id="a name matches in every folder"),
    pytest.param(["/data"], "sub/data", False, id="a leading slash means here only"),
    pytest.param(["/data"], "data", True, id="a leading slash matches here"),
    pytest.param(["a/*.txt"], "a/b/x.txt", False, id="a star stops at a slash"),
    pytest.param(["a/**/x.txt"], "a/b/c/x.txt", True, id="two stars do not"),
    pytest.param(["a/**/x.txt"], "a/x.txt", True, id="two stars may be nothing"),
    pytest.param(["*.log", "!keep.log"], "keep.log", False, id="an exclamation mark takes back in"),
    pytest.param(["!keep.log", "*.log"], "keep.log", True, id="the last rule decides"),
    pytest.param(["# a", "", "b"], "a", False, id="comments are comments"),
    pytest.param(["\\#a"], "#a", True, id="a backslash makes it a name"),
    pytest.param(["x[0-9].bin"], "x7.bin", True, id="classes"),
    pytest.param(["x[!0-9].bin"], "x7.bin", False, id="negated classes"),
    pytest.param(["out/"], "out", False, id="a trailing slash means folders only"),
    pytest.param([], "__pycache__", True, id="caches never travel"),
]


@pytest.mark.parametrize(("lines", "path", "expected"), RULES)
def test_ignore_rules(lines: list[str], path: str, expected: bool) -> None:
    rules = [rule for line in lines if (rule := parse_rule(line, ""))]
    assert is_out(path, False, rules) is expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "work"
    (top / "pkg" / "__pycache__").mkdir(parents=True)
    (top / "train.py").write_text("import pkg")
    (top / "run.sh").write_text("true")
    (top / "run.sh").chmod(0o755)
    (top / "pkg" / "__init__.py").write_text("")
    (top / "pkg" / "__pycache__" / "x.pyc").write_text("x")
    (top / "big.bin").write_text("x" * 1000)
    (top / ".gitignore").write_text("*.bin\n")
    return top


def names(folder: Path) -> list[str]:
    return [file.name for file in pack(folder).files]


def test_what_travels(folder: Path) -> None:
    assert names(folder) == [".gitignore", "pkg/__init__.py", "run.sh", "train.py"]
    (folder / "pkg" / ".heliostatignore").write_text("*.py\n.heliostatignore\n")
    assert names(folder) == [".gitignore", "run.sh", "train.py"]


def test_the_name_is_made_of_the_content(folder: Path, tmp_path: Path) -> None:
    before = pack(folder).name
    os.utime(folder / "train.py", (1, 1))
    assert pack(folder).name == before
    (folder / "run.sh").chmod(0o644)
    assert pack(folder).name != before
    (folder / "run.sh").chmod(0o755)
    (folder / "train.py").write_text("import  pkg")
    assert pack(folder).name != before


def test_the_zip_is_the_same_every_time(folder: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    pack(folder).write(first)
    os.utime(folder / "train.py", (1, 1))
    pack(folder).write(second)
    assert first.getvalue() == second.getvalue()
    with zipfile.ZipFile(first) as archive:
        assert archive.read("train.py") == b"import pkg"
        assert archive.getinfo("run.sh").external_attr >> 16 & 0o777 == 0o755


def test_links_stay_inside(folder: Path) -> None:
    (folder / "again.py").symlink_to("train.py")
    assert "again.py" in names(folder)
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BadRequest, match="passwd is a link to /etc/passwd"):
        pack(folder)


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "pkg" / "up").symlink_to(folder)
    with pytest.raises(BadRequest, match="above itself"):
        pack(folder)


def test_too_much_is_told_with_the_largest_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_PACKAGE_BYTES", 100)
    (folder / "model.pt").write_text("x" * 2000)
    with pytest.raises(BadRequest, match=r"The largest: model.pt"):
        pack(folder)


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not a folder"):
        pack(tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="no file"):
        pack(tmp_path)


def test_a_folder_is_uploaded_once(client: Client, server: FakeServer, folder: Path) -> None:
    for _ in range(2):
        client.submit(["python", "train.py"], working_dir=folder)
    assert [request.method for request in server.requests] == ["HEAD", "PUT", "POST", "HEAD", "POST"]
    (name,) = server.packages
    with zipfile.ZipFile(io.BytesIO(server.packages[name])) as archive:
        assert "train.py" in archive.namelist()
