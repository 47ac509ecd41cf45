"""What is known at once of a waiting job: the reason of the last cycle and the constraints, without tried remedies."""

from __future__ import annotations

import pytest
from heliostat_scheduler.core import ReasonCode, codec
from heliostat_scheduler.core.explain import Check, glance

from tests.scheduler.world import FIXED, World, job, node, queue


def checks(made: World, job_id: str) -> dict[str, Check]:
    return {check.name: check for check in glance(made.engine.state, job_id, made.now).checks}


def test_the_reason_of_the_last_cycle_is_told_at_once() -> None:
    made = World([node("n", 1)])
    made.submit(job("a"), job("b", at=1))
    made.step()
    told = glance(made.engine.state, "b", made.now)
    assert told.reason == made.engine.reason("b") and told.reason.code is ReasonCode.INSUFFICIENT_FREE
    assert (told.position, told.remedies) == (1, ()) and told.checks
    with pytest.raises(KeyError):
        glance(made.engine.state, "a", made.now)


def test_fixed_work_may_fill_its_quota() -> None:
    made = World([node("n", 2)], [queue("q", 2)])
    made.submit(job("flexible", 1, "q", tasks=2))
    made.step()
    made.submit(job("more", 1, "q", tasks=2, at=1, preemptibility=FIXED))
    made.step()
    quota = checks(made, "more")["quota"]
    assert quota.ok and {"needs", "used", "quota"} <= dict(quota.facts).keys()


def test_no_gpu_anywhere_is_a_cluster_too_small() -> None:
    made = World([node("n", 0, cpu_milli=4_000)])
    made.submit(job("a"))
    made.step()
    why = made.engine.reason("a")
    assert why is not None and why.code is ReasonCode.NEVER_FITS
    assert (why.fact("bound"), why.fact("largest_tasks")) == ("cluster", 0)


def test_text_that_is_no_json_is_named_with_the_fault() -> None:
    with pytest.raises(codec.BadText, match=r"not JSON: .*line 1"):
        codec.loads("{")
