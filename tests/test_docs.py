"""The docs are under test: what they show is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from heliostat_scheduler.core.lifecycle import mermaid
from heliostat_scheduler.core.reasons import ReasonCode

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def test_the_state_diagram_is_the_table() -> None:
    text = (DOCS / "architecture.md").read_text()
    shown = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    assert shown.group(1).strip() == mermaid()


def test_every_reason_code_has_its_entry() -> None:
    text = (DOCS / "reasons.md").read_text()
    missing = [code.value for code in ReasonCode if f"## {code.value}\n" not in text]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []
