"""Facts of other schedulers that ours agrees with: one test per case, general and profile."""

from pathlib import Path

import pytest
from heliostat_scheduler.simulator.__main__ import main
from heliostat_scheduler.simulator.scenarios import Case, load, run_case

CASES = load(Path(__file__).with_name("scenarios.yaml"))

DIFFERENT = {
    "consol-06-consolidate-then-reclaim": "evicts one 2-GPU job, not a 1-GPU job plus a move: docs/decisions/0005",
}
"""Profile cases that we answer differently on purpose. General cases have no exceptions."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.portability}-{case.id}")
def test_fact(case: Case) -> None:
    problems = run_case(case)
    if case.id in DIFFERENT:
        assert case.portability == "profile" and problems, "it agrees now: take it off the list"
    else:
        assert problems == []


@pytest.mark.parametrize("text", ["", "a: [", "scenarios: {}\n- b", "x: 1", "[1, 2]", "scenarios: [{id: a}]"])
def test_a_file_without_scenarios_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert main(["scenarios", str(path)]) == 2
    assert f"error: {path}: " in capsys.readouterr().err
