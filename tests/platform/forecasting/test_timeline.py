"""Who held which slot when: the spans of a real (simulated) life, with the decision under each change."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from heliostat.forecasting.timeline import timeline
from heliostat.render.timeline import changes_of, timeline_text
from heliostat.render.timeline_html import timeline_html

from tests.platform.control.plant import START_MS, Plant
from tests.platform.forecasting.worlds import live


def told(plant: Plant):  # type: ignore[no-untyped-def]
    live(plant)
    with plant.store.read() as session:
        return timeline(session, START_MS, plant.cluster.now_ms)


def test_each_change_has_its_decision_and_reason(plant: Plant) -> None:
    document = told(plant)
    spans = document["spans"]
    by_job: dict[str, list[dict]] = {}  # type: ignore[type-arg]
    for span in spans:
        by_job.setdefault(span["job"], []).append(span)
    assert set(by_job) == {"train", "urgent", "long"}
    assert all(span["opened"]["code"] == "Placed" for span in spans)
    first = [span for span in by_job["train"] if span["attempt"] == 1]
    assert len(first) == 2 and {span["closed"]["code"] for span in first} == {"PreemptedFor"}
    assert first[0]["closed"]["for"] == ["urgent"]
    assert {span["closed"]["sentence"] for span in by_job["train"] if span["attempt"] == 2} == {"succeeded"}
    assert all(span["to"] is None and span["closed"] is None for span in by_job["long"])
    assert len(document["slots"]) == 2 and document["complete"]


def test_no_slot_has_two_holders_at_a_time(plant: Plant) -> None:
    document = told(plant)
    for slot in document["slots"]:
        mine = sorted(
            (span["from_ms"], span["to_ms"] or 10**18) for span in document["spans"] if span["slot"] == slot["slot"]
        )
        assert all(before[1] <= after[0] for before, after in pairwise(mine))


def test_a_window_shows_only_what_touches_it(plant: Plant) -> None:
    live(plant)
    now = plant.cluster.now_ms
    with plant.store.read() as session:
        assert {span["job"] for span in timeline(session, now - 1, now)["spans"]} == {"long"}


def test_as_text(plant: Plant) -> None:
    text = timeline_text(told(plant), 100)
    rows = [line for line in text.splitlines() if " gpu " in line[:24]]
    assert len(rows) == 2 and all(len(row) <= 100 for row in rows)
    assert "A" in rows[0] and "displaced by urgent of priority 150 (own priority 50) (PreemptedFor)" in text
    assert "C long attempt 1  +2 slots: 2 tasks placed (Placed)" in text


def test_a_job_that_held_nothing_is_told_so(plant: Plant) -> None:
    text = timeline_text(told(plant), 100, "nobody")
    assert text.endswith("  nobody held no slot in this time.")


def test_who_leaves_is_told_before_who_comes_at_the_same_instant() -> None:
    at, begin = "2026-11-22T12:00:10Z", "2026-11-22T12:00:00Z"
    went, came = {"code": "PreemptedFor", "sentence": "displaced"}, {"code": "Placed", "sentence": "placed"}
    row = {"job": "a", "node": "n", "slot": "s"}
    spans: list[dict[str, Any]] = [
        {**row, "attempt": 2, "from": at, "to": None, "opened": came, "closed": None},
        {**row, "attempt": 1, "from": begin, "to": at, "opened": came, "closed": went},
    ]
    lines = changes_of(spans, {"a": "A"})
    assert ["attempt 1  +1" in lines[0], "attempt 1  -1" in lines[1], "attempt 2  +1" in lines[2]] == [True] * 3


def test_as_a_page_of_its_own(plant: Plant) -> None:
    page = timeline_html(told(plant))
    assert page.count("<rect") == len(told_spans(page)) >= 6
    assert "<script" not in page and "http" not in page and "src=" not in page
    assert "displaced by urgent" in page


def test_the_page_says_whose_letter_is_whose(plant: Plant) -> None:
    document = told(plant)
    page = timeline_html(document)
    for letter, job in (("A", "train"), ("B", "urgent"), ("C", "long")):
        row = re.search(rf'<tr><td><b style="background:(#\w+)">{letter}</b></td>(.*?)</tr>', page)
        assert row is not None and row[2] == f"<td>{job}</td><td>default</td><td>{job}</td>"
        assert f'fill="{row[1]}"' in page, "the colour of its bars"
    many = [{**document["spans"][0], "job": f"j{index}"} for index in range(60)]
    assert "8 more jobs: point at their bars" in timeline_html({**document, "spans": many})


def test_moments_on_the_axis_do_not_run_into_each_other(plant: Plant) -> None:
    page = timeline_html(told(plant))  # a day of another year: labels with a date
    labels = re.findall(r'<text x="([\d.]+)" y="14" text-anchor="(\w+)" fill="#57534e">(.*?)</text>', page)
    spans = []
    for x, anchor, text in labels:
        width = 6.2 * len(text)
        left = float(x) - {"start": 0, "middle": width / 2, "end": width}[anchor]
        spans.append((left, left + width))
    assert len(spans) >= 5 and all(before[1] < after[0] for before, after in pairwise(spans))


def told_spans(page: str) -> list[str]:
    return page.split("<g><title>")[1:]
