"""What people read: plans, what-ifs, the report; and the SDK's rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from heliostat.client.forecast import EtaReport, WhatIf
from heliostat.forecasting.answers import of_verdict
from heliostat.render.explain import explanation_text, queue_text, remedies_text
from heliostat.render.forecast import plan_lines, report_text, whatif_text
from heliostat.render.jobs import starts_in
from heliostat_scheduler.forecast.whatif import Loser, Shift, Verdict

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
VERDICT: dict[str, Any] = {
    "as_of": "2026-11-22T12:00:00Z", "until": "2026-11-23T12:00:00Z", "earlier": 1, "later": 1, "exact": True, "took_s": 0.1, "spared": [],
    "rows": [
        {"job": "a", "queue": "research", "before": "2026-11-22T14:00:00Z", "after": "2026-11-22T13:00:00Z", "by_s": -3600.0, "change": "earlier"},
        {"job": "b", "queue": "prod", "before": "2026-11-22T13:00:00Z", "after": None, "by_s": None, "change": "later"},
        {"job": "(new)", "queue": "prod", "before": None, "after": "2026-11-22T12:30:00Z", "by_s": None, "change": "new"},
    ],
    "evicted": [{"job": "c", "queue": "prod", "times": 2, "first": "2026-11-22T12:10:00Z", "code": "ReclaimedFor", "for": "a"}],
    "cost": {"restart_gpu_hours": 0.5, "delivered_gpu_hours": -1.25},
}  # fmt: skip
REPORT: dict[str, Any] = {
    "all": {"jobs": 10, "p50_held": 0.6, "p90_held": 0.9, "pinball_s": 12.0, "mean_wait_s": 90.0},
    "queues": {"prod": {"jobs": 10, "p50_held": 0.6, "p90_held": 0.9, "pinball_s": 12.0, "mean_wait_s": 90.0}},
    "calibration": {"width": 0.1, "counts": [0] * 5 + [9] + [0] * 14 + [1]},
}


def test_a_whatif_says_who_when_and_what_it_costs() -> None:
    text = whatif_text(VERDICT, NOW)
    assert text.startswith(
        "1 start earlier, 1 later in the next 1d\nevicted: 1 more, 0 fewer; cost: 0.5 GPU-hours of repeated work, -1.25"
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "a research earlier in 2h in 1h -1h" in lines
    assert "b prod later in 1h later than in a day -" in lines
    assert "(new) prod new - in 30m -" in lines
    assert "c prod 2 in 10m ReclaimedFor a" in lines


def test_a_coarse_whatif_says_so() -> None:
    assert "times to within about a third of the distance" in whatif_text({**VERDICT, "exact": False}, NOW)


def test_a_whatif_says_between_which_times_a_job_starts() -> None:
    between = {"after_from": "2026-11-22T12:05:00Z", "after_until": "2026-11-22T14:00:00Z"}
    text = whatif_text({**VERDICT, "band_share": 0.9, "rows": [{**VERDICT["rows"][0], **between}]}, NOW)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "JOB QUEUE CHANGE NOW THEN BY 90 % BETWEEN" in lines
    assert "a research earlier in 2h in 1h -1h in 5m .. 2h" in lines


def test_the_rows_of_the_sdk_are_a_list_a_text_and_a_dataframe() -> None:
    told = WhatIf(VERDICT)
    assert (
        [row["job"] for row in told] == ["a", "b", "(new)"] and told.evicted[0]["job"] == "c" and "EVICTED" in str(told)
    )
    frame = told.to_dataframe()
    assert list(frame.columns) == ["job", "queue", "change", "before", "after", "after_from", "after_until", "by"]
    assert frame["by"][0].total_seconds() == -3600 and frame["after"].isna().tolist() == [False, True, False]


def test_the_report_shows_coverage_and_where_the_starts_fell() -> None:
    text = report_text(REPORT)
    assert "90 %" in text and "told p90" in text and "> 2.0" in text
    assert EtaReport(REPORT).coverage == 0.9
    assert "No estimate has come true yet" in report_text({"all": {"jobs": 0}})


def test_a_plan_says_when_where_and_at_what_cost() -> None:
    lines = plan_lines(
        {
            "starts_now": False, "nodes": ["n1"], "eta": {"p50": "2026-11-22T12:10:00Z", "p90": None, "samples": 16},
            "cost": {"gpu_hours_p50": 1.5, "gpu_hours_p90": 3.0, "gpu_hours_limit": 8.0},
        },
        NOW,
    )  # fmt: skip
    assert lines[0].endswith("in 10m; in 9 of 10 cases later than in a day")
    assert (
        lines[1].endswith("n1")
        and "about 1.5 GPU-hours, in 9 of 10 cases 3, at most 8 by its declared limit" in lines[2]
    )


@pytest.mark.parametrize(
    ("job", "text"),
    [
        pytest.param({}, "", id="nothing is known"),
        pytest.param({"estimated_start": "2026-11-22T12:04:00Z"}, "starts in about 4m", id="the engine knows it"),
        pytest.param(
            {"estimated_start": "2026-11-22T12:04:00Z", "estimated_start_p90": "2026-11-22T12:12:00Z", "estimate_made": "x"},
            "starts in about 4m (9 of 10: 12m)", id="an estimate",
        ),
        pytest.param({"estimated_start": "2026-11-22T12:04:00Z", "estimate_made": "x"}, "starts in about 4m (9 of 10: > 1d)", id="a long tail"),
        pytest.param({"estimate_made": "x"}, "starts in more than a day", id="beyond the horizon"),
        pytest.param(
            {"estimate_made": "x", "unknown_runtimes": 1},
            "may start at any time: nothing is known yet about how long the running job will run", id="nothing is known",
        ),
    ],
)  # fmt: skip
def test_when_a_job_starts(job: Any, text: str) -> None:
    assert starts_in(job, NOW) == text


@pytest.mark.parametrize("code", ["Held", "NeverFits", "FlavorMismatch"])
def test_a_plan_of_what_never_starts_by_itself_says_no_time(code: str) -> None:
    plan = {"starts_now": False, "eta": {"p50": None, "p90": None, "samples": 16}, "reason": {"code": code}}
    assert plan_lines(plan, NOW) == []
    assert "later than in a day" in plan_lines({**plan, "reason": {"code": "InsufficientFree"}}, NOW)[0]


def test_what_rests_on_nothing_says_so_wherever_it_is_told() -> None:
    eta = {"p50": None, "p90": None, "samples": 16, "unknown_runtimes": 2}
    plan = {"starts_now": False, "eta": eta, "reason": {"code": "InsufficientFree"}, "cost": {"gpu_hours_p50": None}}
    (line,) = plan_lines(plan, NOW)
    assert line.endswith("may start at any time: nothing is known yet about how long 2 running jobs will run")
    assert plan_lines({**plan, "reason": {"code": "Held"}}, NOW) == []
    told: Any = {"job_id": "a", "state": "queued", "checks": [], "estimate_made": "x", "unknown_runtimes": 2}
    text = explanation_text(told, NOW)
    assert "may start at any time: nothing is known yet about how long 2 running jobs" in text and "day)" in text
    assert "the times are guesses" in whatif_text({**VERDICT, "unknown_runtimes": 2}, NOW)
    assert "guesses" not in whatif_text(VERDICT, NOW)
    text = report_text({**REPORT, "guessed": {"jobs": 3}})
    assert text.endswith(
        "3 more started before anything was known of run times; they were told no time and are not counted."
    )
    assert "3 more started" in report_text({"all": {"jobs": 0}, "guessed": {"jobs": 3}})


def test_a_program_that_cannot_grow_is_told_so_and_empty_facts_are_left_out() -> None:
    check = {"name": "at its largest size", "ok": False, "facts": {"tasks": 1, "outcome": ""}}
    told: Any = {"job_id": "a", "state": "running", "checks": [check], "growth": None}
    text = explanation_text(told, NOW)
    assert "keeps the size that it started with" in text and "outcome" not in text
    told["checks"] = [{"name": "at its largest size", "ok": True, "facts": {}}]
    assert "keeps the size" not in explanation_text(told, NOW)


def test_jobs_that_nobody_has_submitted_are_told_as_such() -> None:
    loser = Loser("~0.0.5", "prod", 1, 10, "ReclaimedFor", "~0.0.6")
    verdict = Verdict(0, 100, (), (loser,), (), "", 0, 0, False)
    told = of_verdict(verdict, {}, None, 0, 0.0)["evicted"][0]
    assert (told["job"], told["for"]) == ("(to come)", "(to come)")


def test_a_running_job_tells_its_story() -> None:
    text = explanation_text(
        {
            "job_id": "a", "state": "running", "code": "ShrunkFor", "sentence": "gave up 1 GPU for b", "remedies": [],
            "checks": [{"name": "protected for now", "ok": False, "facts": {"left_ms": 0}}],
            "story": [{"at": "2026-11-22T11:00:00Z", "code": "ShrunkFor", "sentence": "gave up 1 GPU for b"}],
        },
        NOW,
    )  # fmt: skip
    assert "✖ protected for now" in text and "gave up 1 GPU for b (ShrunkFor)" in text


@pytest.mark.parametrize(
    ("learned", "lines"),
    [
        pytest.param(None, [], id="nothing"),
        pytest.param({}, ["  expected   about 2h more, from 40 finished jobs of queue q; equals go by it"], id="a rest"),
        pytest.param(
            {"rest_s": 0.0},
            ["  expected   to have ended by now, from 40 finished jobs of queue q; equals go by it"],
            id="it has outrun what was last told",
        ),
        pytest.param(
            {"ranked": False, "finished_jobs": 0},
            ["  expected   about 2h more, from finished jobs of queue q; equals go by their arrival"],
            id="no turns, and a control plane that has just started",
        ),
        pytest.param(
            {"rest_s": None, "goodput": [{"tasks": 1, "per_s": 100.0}, {"tasks": 2, "per_s": 183.26}], "unit": "samples"},
            ["  scales     1: 100, 2: 183.3 (samples a second by tasks)"], id="a curve",
        ),
        pytest.param(
            {"rest_s": None, "goodput": [{"tasks": 1, "per_s": 100.0}], "unit": "samples", "enough": True},
            ["  scales     1: 100 (samples a second by tasks); more would gain less than a resize costs"], id="enough",
        ),
        pytest.param(
            {"rest_s": None, "goodput": [{"tasks": 4, "per_s": 0.001}], "unit": "epochs"},
            ["  scales     4: 3.6 (epochs an hour by tasks)"], id="epochs are slow",
        ),
    ],
)  # fmt: skip
def test_what_was_learned_is_told(learned: Any, lines: list[str]) -> None:
    known = {
        "rest_s": 7200.0,
        "ranked": True,
        "queue": "q",
        "finished_jobs": 40,
        "goodput": [],
        "unit": "",
        "enough": False,
    }
    expected: Any = None if learned is None else {**known, **learned}
    text = explanation_text(
        {"job_id": "a", "state": "running", "code": None, "sentence": "", "expected": expected}, NOW
    )
    assert [line for line in text.splitlines() if line.startswith(("  expected", "  scales"))] == lines


def test_remedies_that_come_later() -> None:
    told: Any = {"remedies": [{"text": "ask for 1 GPU", "command": "helio edit a --gpus 1", "evicts": []}]}
    assert remedies_text(told, NOW).splitlines()[1:] == ["  1. ask for 1 GPU", "       helio edit a --gpus 1"]
    assert "nothing that was tried" in remedies_text({}, NOW)


def test_a_queue_is_explained_in_lines() -> None:
    text = queue_text(
        {
            "name": "q",
            "sentence": "2 wait; the next, a, is held",
            "quota": {"gpu": 4.0},
            "waiting_by_reason": {"Held": 2},
            "borrowers": ["r"],
        }
    )
    assert text.splitlines() == [
        "queue q: 2 wait; the next, a, is held",
        "  quota      gpu 4",
        "  waiting    2 x Held",
        "  borrowers  r",
    ]


def test_a_whatif_tells_a_running_job_that_starts_again_from_one_that_starts_later() -> None:
    row = {"job": "a", "queue": "q", "before": None, "after": "2026-11-22T12:10:00Z", "by_s": None, "change": "again"}
    spared = {**row, "job": "b", "before": "2026-11-22T12:10:00Z", "after": None}
    lines = [" ".join(line.split()) for line in whatif_text({**VERDICT, "rows": [row, spared]}, NOW).splitlines()]
    assert "a q again runs on again in 10m -" in lines
    assert "b q again again in 10m runs on -" in lines


def test_a_whatif_without_effect_says_so() -> None:
    assert whatif_text({**VERDICT, "rows": [], "evicted": []}, NOW).startswith(
        "nobody would start at another time in the next 1d\n"
    )


def test_a_running_job_that_is_evicted_for_the_new_one_is_no_job_that_starts_earlier() -> None:
    shifts = (Shift("runs", "q", None, 40), Shift("new", "q", None, 10), Shift("waits", "q", 20, 50))
    loser = Loser("runs", "q", 1, 10, "ReclaimedFor", "new")
    verdict = Verdict(0, 100, shifts, (loser,), (), "new", 0, 0, False, frozenset({"runs"}))
    told = of_verdict(verdict, {}, None, 0, 0.1)
    assert (told["earlier"], told["later"]) == (0, 1)
    assert [row["change"] for row in told["rows"]] == ["again", "new", "later"]
    assert told["evicted"][0]["for"] == "(new)"
