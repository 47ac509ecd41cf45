"""The layout guard finds what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layout_guard import ROOT, findings, tracked_files

CASES = [
    pytest.param("platform/__init__.py", "shadows Python's own platform", id="a source root is never a package"),
    pytest.param("jobs/test_x.py", "tests live in tests/ only", id="no test beside the sources"),
    pytest.param("jobs/other/x.py", "exactly one package", id="a source root holds one package"),
    pytest.param("platform/heliostat/utils.py", "after its idea", id="no vague module names"),
    pytest.param(
        "scheduler/queue.py", "exactly one package", id="nothing beside the package that shadows the standard library"
    ),
]


@pytest.mark.parametrize(("name", "sentence"), CASES)
def test_a_broken_layout_is_named(name: str, sentence: str) -> None:
    assert any(sentence in problem for problem in findings(ROOT, [name]))


def test_an_empty_folder_lacks_the_top_level_files(tmp_path: Path) -> None:
    assert "README.md is missing at the top level" in findings(tmp_path, [])


def test_this_repository_is_clean() -> None:
    assert findings(ROOT, tracked_files(ROOT)) == []
