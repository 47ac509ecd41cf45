"""The docs of the doors say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from heliostat.queuefile import parse
from heliostat.queuefile.check import QUEUE_KEYS
from heliostat.rayjobs.asking import NUMBERS, WORDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "platform" / "heliostat" / part
    for part in (
        "api",
        "submission",
        "rayjobs",
        "packages",
        "access",
        "registry",
        "artifacts",
        "endpoints",
        "control/port.py",
    )
]
RAISED = re.compile(
    r'(?:Refused|Problem|BadPackage|BadFolder|RegistryError|EndpointError|Unauthenticated)\(\s*(?:\d+,\s*)?"([a-z_]+)"'
)


def codes() -> set[str]:
    files = [file for source in SOURCES for file in ([source] if source.is_file() else source.glob("*.py"))]
    return {code for file in files for code in RAISED.findall(file.read_text())}


def test_every_error_code_has_its_line() -> None:
    table = (ROOT / "docs" / "api.md").read_text()
    assert len(codes()) > 30
    assert sorted(code for code in codes() if f"`{code}`" not in table) == []


def test_every_metadata_key_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert [key for key in (*NUMBERS, *WORDS) if f"`{key}`" not in text] == []


def test_every_key_of_the_queue_file_is_documented() -> None:
    text = (ROOT / "docs" / "queues.md").read_text()
    assert [key for key in QUEUE_KEYS if f"| `{key}` |" not in text] == []


@pytest.mark.parametrize(
    "example", re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "queues.md").read_text(), re.DOTALL)
)
def test_the_examples_are_valid(example: str) -> None:
    assert parse(example).queues
