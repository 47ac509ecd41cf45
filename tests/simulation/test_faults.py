"""Seeded faults: safety while everything breaks, liveness once it stops. A seed that ever failed stays in the list."""

from __future__ import annotations

import pytest
from heliostat_scheduler.simulator.faults import FaultRun

REGRESSIONS = (15, 62, 159, 204, 233, 248, 252, 272, 275)


@pytest.mark.parametrize("seed", [*range(12), *REGRESSIONS])
def test_safe_under_faults_and_live_after_them(seed: int) -> None:
    FaultRun(seed).run()


def test_the_same_seed_gives_the_same_run() -> None:
    digests = []
    for _ in range(2):
        run = FaultRun(7)
        run.run()
        digests.append(run.engine.digest())
    assert digests[0] == digests[1]
