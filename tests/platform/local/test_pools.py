"""Pools of nodes in `helio node ls` and `helio doctor`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from heliostat.local.doctor import pool_finding, quota_findings
from heliostat.render.cluster import node_table, pool_lines
from heliostat.wire.shapes import PoolJson

NOW = datetime(2026, 1, 1, 12, 10, tzinfo=UTC)


def pool(**more: Any) -> PoolJson:
    base: dict[str, Any] = {
        "flavor": "a10g", "gpus": 4, "max": 8, "min": 0, "idle_s": 600, "nodes": 2, "missing": 0, "wanted": 0, "late": False,
        "tries": 0, "asked_at": None, "by": None, "jobs": [],
    }  # fmt: skip
    made: PoolJson = {**base, **more}  # type: ignore[typeddict-item]
    return made


JOINING = pool(
    missing=2, wanted=2, tries=1, asked_at="2026-01-01T12:09:00Z", by="2026-01-01T12:13:30Z", jobs=["llm", "ocr"]
)
LATE = pool(missing=1, late=True, tries=3, asked_at="2026-01-01T11:00:00Z", by="2026-01-01T12:12:00Z", jobs=["llm"])


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        pytest.param(
            JOINING, ["+2", "a10g", "joining", "-/8", "asked 1m ago, 3m to go: for llm, ocr"], id="on their way"
        ),
        pytest.param(LATE, ["+1", "late", "-/4", "did not come, try 3; again in 2m: for llm"], id="they did not come"),
    ],
)
def test_nodes_that_are_not_there_have_a_line(shown: PoolJson, words: list[str]) -> None:
    line = node_table({"pools": [shown]}, NOW).splitlines()[1]
    assert [word for word in words if word not in line] == [], line


def test_an_idle_node_says_since_when_and_each_pool_how_many_there_may_be() -> None:
    cluster: Any = {
        "nodes": [{"id": "n1", "flavor": "a10g", "idle_since": "2026-01-01T12:05:00Z"}],
        "pools": [pool(min=1)],
    }
    assert "idle 5m" in node_table(cluster, NOW)
    assert pool_lines(cluster) == ["a10g: 2 of at most 8 nodes, 1 kept; one without work leaves after 10m"]


def test_doctor_says_where_nodes_do_not_come() -> None:
    fine, asked, late = (pool_finding(dict(shown)) for shown in (pool(), JOINING, LATE))
    assert (fine.status, fine.text) == ("ok", "2 of at most 8 nodes of flavor a10g are there")
    assert (asked.status, asked.text) == ("ok", "2 of at most 8 nodes of flavor a10g are there, 2 asked for")
    assert late.status == "warn" and "1 more did not come (asked 3 times)" in late.text
    assert "heliostat/flavor: a10g" in late.fix


def test_doctor_says_which_guarantees_cannot_be_kept() -> None:
    assert quota_findings([]) == []
    (found,) = quota_findings(["quotas of gpu sum to 6"])
    assert (found.check, found.status, found.text) == ("quotas", "warn", "quotas of gpu sum to 6")
    assert "helio queue apply" in found.fix
