"""What people write, and what is sent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from heliostat.client.asking import Command, Gpus, command_of, gpu_fields, memory_bytes, seconds
from heliostat.wire.errors import BadRequest

GPUS = [
    pytest.param(2, {"gpus": 2}, id="a number"),
    pytest.param("0.5", {"gpus": 0.5}, id="a part of one"),
    pytest.param("2..8", {"min_gpus": 2, "max_gpus": 8}, id="a range as text"),
    pytest.param((2, 8), {"min_gpus": 2, "max_gpus": 8}, id="a pair"),
    pytest.param(range(2, 9), {"min_gpus": 2, "max_gpus": 8}, id="a range"),
    pytest.param("3..3", {"gpus": 3}, id="a range of one"),
    pytest.param(None, {}, id="nothing"),
]


@pytest.mark.parametrize(("given", "expected"), GPUS)
def test_gpus(given: Gpus | None, expected: dict[str, object]) -> None:
    assert gpu_fields(given) == expected


@pytest.mark.parametrize("given", ["8..2", "many", -1, (5, 1), range(3, 3), "1.5..2", ""])
def test_gpus_that_are_none(given: Gpus) -> None:
    with pytest.raises(BadRequest, match="no number of GPUs"):
        gpu_fields(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172800), (5, 5), (timedelta(hours=1), 3600)],
)
def test_durations(given: float | str | timedelta, expected: float) -> None:
    assert seconds(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("16GiB", 16 * 1024**3), ("500M", 500_000_000), ("1.5Gi", 1610612736), (7, 7)]
)
def test_sizes(given: int | str, expected: int) -> None:
    assert memory_bytes(given) == expected


@pytest.mark.parametrize("given", ["soon", "5 parsecs", "", "1h 30x"])
def test_what_is_no_duration_and_no_size(given: str) -> None:
    with pytest.raises(BadRequest):
        seconds(given)
    with pytest.raises(BadRequest):
        memory_bytes(given)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)")
    (tmp_path / "go.sh").write_text("true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_brings_its_folder(project: Path) -> None:
    assert command_of("src/train.py", None) == Command(("python", "train.py"), folder=project / "src")
    assert command_of(Path("go.sh"), None) == Command(("bash", "go.sh"), folder=project)


def test_a_script_inside_a_working_dir_keeps_its_place(project: Path) -> None:
    assert command_of("src/train.py", ".") == Command(("python", "src/train.py"), folder=project)


def test_words_and_lines(project: Path) -> None:
    assert command_of(["echo", "a b"], None) == Command(("echo", "a b"))
    assert command_of("echo a | wc", None) == Command(line="echo a | wc")
    assert command_of("make", "src") == Command(line="make", folder=project / "src")


LEFT_BEHIND = [["python", "src/train.py"], ["python3.11", "-u", "src/train.py"], ["./go.sh"], ["bash", "go.sh"]]


@pytest.mark.parametrize("words", LEFT_BEHIND, ids=" ".join)
def test_a_script_that_would_stay_at_home_is_noticed(project: Path, words: list[str]) -> None:
    with pytest.raises(BadRequest, match="travel with it") as caught:
        command_of(words, None)
    assert "--working-dir" in caught.value.remedy
    assert command_of(words, ".").argv == tuple(words)


def test_a_full_path_or_a_plain_argument_is_none_of_our_business(project: Path) -> None:
    assert command_of(["python", str(project / "src/train.py")], None).folder is None
    assert command_of(["cat", "go.sh"], None).folder is None


@pytest.mark.parametrize("target", ["", "  ", [], [""]])
def test_an_empty_command(target: str | list[str]) -> None:
    with pytest.raises(BadRequest, match="empty"):
        command_of(target, None)


def test_scripts_that_cannot_be(project: Path) -> None:
    with pytest.raises(BadRequest, match="no file"):
        command_of(Path("missing.py"), None)
    with pytest.raises(BadRequest, match="neither"):
        command_of(Path("train.jl"), None)
    with pytest.raises(BadRequest, match="not inside"):
        command_of(project / "go.sh", "src")
