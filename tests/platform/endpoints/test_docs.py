"""docs/endpoints.md knows every state, error code and event of endpoints."""

from __future__ import annotations

import re
from pathlib import Path

from heliostat import endpoints
from heliostat.endpoints.states import DeploymentState

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "endpoints.md").read_text()
SOURCES = [path.read_text() for path in Path(endpoints.__file__).parent.glob("*.py")]


def test_every_state_is_explained() -> None:
    assert [state for state in DeploymentState if f"`{state}`" not in PAGE] == []


def test_every_error_code_is_explained() -> None:
    codes = {code for text in SOURCES for code in re.findall(r'EndpointError\(\s*"([a-z_]+)"', text)}
    assert len(codes) > 8
    assert [code for code in sorted(codes - {"bad_request", "internal_error"}) if f"`{code}`" not in PAGE] == []


def test_every_event_is_explained() -> None:
    written = r'(?:told\(session, (?:row|endpoint), |kind=|action=)"([a-z_]+)"'
    kinds = {kind for text in SOURCES for kind in re.findall(written, text)} - {"job_changed", "serve"}
    assert len(kinds) > 7
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in PAGE] == []
