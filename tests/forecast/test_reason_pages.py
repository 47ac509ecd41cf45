"""docs/reasons.md: each code has its cause and what to do about it, and what is advised exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from heliostat.cli.main import COMMANDS
from heliostat_scheduler.core.reasons import ReasonCode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reasons.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))
REMEDY = re.compile(r"\*\*(Apply|apply|Wait|wait|Nothing to do)")


@pytest.mark.parametrize("code", list(ReasonCode))
def test_each_code_has_a_cause_and_a_remedy(code: ReasonCode) -> None:
    section = SECTIONS[code.value]
    cause, found, remedy = section.partition("**")
    assert len(cause.split()) >= 3, "the cause comes first"
    assert found and REMEDY.search(found + remedy), "then what to do"


def test_no_page_of_a_code_that_is_gone() -> None:
    assert set(SECTIONS) == {code.value for code in ReasonCode}


def test_every_command_that_is_advised_exists() -> None:
    advised = set(re.findall(r"`helio (\w+)", PAGE))
    assert advised <= set(COMMANDS)
