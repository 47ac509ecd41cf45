"""docs/serving.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from heliostat_serving.door.counting import SUMS
from heliostat_serving.spec import Limits
from heliostat_serving.wire.faults import CODES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()


def test_every_error_code_has_its_line_with_its_status() -> None:
    shown = {code: int(status) for code, status in re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", TEXT, re.MULTILINE)}
    assert shown == CODES


def test_every_metric_is_named() -> None:
    assert [name for name in SUMS if f"{name}_total" not in TEXT] == []


def test_the_limits_are_the_defaults() -> None:
    limits = Limits()
    words = [
        f"{limits.max_body_bytes >> 20} MiB", f"{limits.body_timeout_s:g} s", f"| {limits.max_rows} |",
        f"| {limits.max_in_flight} |", f"{limits.predict_timeout_s:g} s",
    ]  # fmt: skip
    assert [word for word in words if word not in TEXT] == []
