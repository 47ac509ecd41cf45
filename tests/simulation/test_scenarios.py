"""Facts of other schedulers that ours agrees with: one test per case, general and profile."""

from pathlib import Path

import pytest
from heliostat_scheduler.simulator.scenarios import Case, load, run_case

CASES = load(Path(__file__).with_name("scenarios.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.portability}-{case.id}")
def test_fact(case: Case) -> None:
    assert run_case(case) == []
