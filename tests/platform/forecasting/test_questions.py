"""Parts of the answers that need no process: who gets an estimate, and how a remedy is told before there is a job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat.forecasting.edits import doubts, events_of
from heliostat.forecasting.questions import Known, _for_submission, plan, refresh
from heliostat_scheduler.core import codec
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import JobCancelled, JobSubmitted, NodeUp, QueuesChanged
from heliostat_scheduler.core.model import JobSpec, NodeSpec, QueueSpec, SlotSpec, TaskShape
from heliostat_scheduler.forecast import Correction, Lengths, Ran

NODE = NodeSpec("n", "gpu", slots=(SlotSpec("n/0", 0),))


def cluster(*jobs: JobSubmitted) -> Engine:
    engine = Engine()
    engine.apply(QueuesChanged((QueueSpec("q"),)), 0)
    engine.apply(NodeUp(NODE), 0)
    for job in jobs:
        engine.apply(job, 0)
    engine.decide(0)
    return engine


def job(id: str, tasks: int = 1, after: tuple[str, ...] = (), held: bool = False) -> JobSubmitted:
    shape = TaskShape(1000)
    spec = JobSpec(id, "q", 0, shape, min_tasks=tasks, max_tasks=tasks, dependencies=after, flavors=("gpu",))
    return JobSubmitted(spec, held=held)


def known() -> Known:
    return Known(Lengths(()), (), Correction(), ("gpu",))


def test_who_waits_for_somebody_is_told_no_time() -> None:
    engine = cluster(job("runs"), job("waits"), job("held", held=True), job("large", tasks=9))
    assert [row[0] for row in refresh(engine, known(), 0)["estimates"]] == ["waits"]


def test_an_estimate_says_on_how_many_unknown_run_times_it_rests() -> None:
    engine = cluster(job("runs"), job("waits"))
    assert [row[-1] for row in refresh(engine, known(), 0)["estimates"]] == [1]
    nothing = plan(engine, known(), {"job": codec.encode(job("mine").job)}, 0)
    assert (
        nothing["eta"]["unknown_runtimes"] == 1
        and nothing["eta"]["p50"] is None
        and nothing["cost"]["gpu_hours_p50"] is None
    )
    learned = replace(known(), lengths=Lengths([Ran("elsewhere", "", 1000, 60_000)] * 5))
    assert [row[-1] for row in refresh(engine, learned, 0)["estimates"]] == [0]
    told = plan(engine, learned, {"job": codec.encode(job("mine").job)}, 0)
    assert told["eta"]["unknown_runtimes"] == 0 and told["eta"]["p50"] and told["cost"]["gpu_hours_p50"] is not None


def test_where_all_wait_for_somebody_there_is_no_estimate() -> None:
    assert refresh(cluster(job("held", held=True)), known(), 0)["estimates"] == []


def test_a_job_behind_one_that_failed_is_told_no_time() -> None:
    engine = cluster(job("first", held=True), job("second", after=("first",)))
    assert [row[0] for row in refresh(engine, known(), 0)["estimates"]] == ["second"]
    engine.apply(JobCancelled("first"), 1)
    engine.decide(1)
    assert refresh(engine, known(), 1)["estimates"] == []


def test_a_quota_may_name_a_flavor_of_nodes_to_come() -> None:
    asked = {"quota": ["q=8:h200"], "nodes": ["+1xh200:8"]}
    assert len(events_of(cluster(), asked, ("gpu",))) == 2


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        pytest.param("+1xgpu:4", [], id="a flavor that there is"),
        pytest.param(
            "+2xnope", ["no node has flavor nope today; no waiting job asks for it"], id="nobody waits for it"
        ),
    ],
)
def test_nodes_of_a_flavor_that_nobody_has_are_doubted(nodes: str, says: list[str]) -> None:
    assert [text.split(": ")[1] for text in doubts(cluster(job("runs"), job("waits")), {"nodes": [nodes]})] == says


def test_who_may_use_nodes_of_a_new_flavor_is_counted() -> None:
    spec = job("waits-for-any").job
    free = JobSubmitted(replace(spec, flavors=()))
    named = JobSubmitted(replace(spec, id="named", flavors=("nope",)))
    engine = cluster(job("runs"), job("waits"), free, named)
    (told,) = doubts(engine, {"nodes": ["+1xnope:2"]})
    assert told.endswith("no node has flavor nope today; 2 of 3 waiting jobs may use it, 1 ask for it by name")


@pytest.mark.parametrize(
    ("command", "others", "options"),
    [
        pytest.param("helio edit a --gpus 2", "", "--gpus 2", id="a size"),
        pytest.param("helio edit a --gpus 2 && helio edit a --gpus 1 --queue b", "", "--gpus 1 --queue b", id="two steps"),
        pytest.param("helio release a && helio priority a high", "", "--priority high", id="released, in a class"),
        pytest.param("helio edit a --no-after && helio cancel b", "helio cancel b", "", id="somebody else's end"),
        pytest.param("helio release a", "", "", id="released"),
        pytest.param("", "", "", id="to wait"),
    ],
)  # fmt: skip
def test_a_remedy_before_there_is_a_job_is_other_options(command: str, others: str, options: str) -> None:
    told = _for_submission({"command": command, "text": "x"}, "a")
    assert (told["command"], told["options"]) == (others, options)
