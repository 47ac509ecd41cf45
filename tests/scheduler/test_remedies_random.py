"""Whatever the cluster looks like: every command that `explain` prints starts the job, and takes GPUs from exactly those it names."""

from __future__ import annotations

from random import Random

import pytest
from heliostat_scheduler.core import Policy, Preemptibility, Remedy
from heliostat_scheduler.core.remedies import explain
from heliostat_scheduler.simulator.load.latency import LoadCluster

from tests.scheduler.typed import starts, typed
from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

SHAPES = ((1, 1), (1, 2), (0.5, 1), (1, 3), (1, 4), (1, 7), (0.5, 3))
KINDS = (Preemptibility.PREEMPTIBLE, Preemptibility.PREEMPTIBLE, FIXED, SEMI)


def crowded(seed: int) -> World:
    """A few nodes and queues, and more work than they hold."""
    draw = Random(seed)
    queues = [
        queue("p", draw.randint(2, 6), weight=draw.randint(0, 2)),
        queue("a", draw.randint(0, 4), parent="p", **draw.choice([{}, {"limit": 4}])),
        queue("b", draw.randint(0, 4), parent="p", priority=draw.choice([100, 101])),
        queue("c", draw.randint(0, 4), **draw.choice([{}, {"lending_limit": 1}])),
    ]
    policy = Policy(min_runtime_ms=draw.choice([0, 5_000]), cooldown_ms=2_000, resize_interval_ms=1_000)
    made = World([node(f"n{i}", draw.randint(1, 4)) for i in range(draw.randint(1, 3))], queues, policy, at=1_000)
    for index in range(draw.randint(3, 14)):
        made.now += draw.choice([0, 1, 1_000, 5_000])
        gpus, tasks = draw.choice(SHAPES)
        spec = job(
            f"j{index:02d}", gpus, draw.choice("abc"), tasks, made.now, max_tasks=tasks + draw.randint(0, 2),
            elastic=draw.random() < 0.3, priority=draw.choice([50, 100, 150]), preemptibility=draw.choice(KINDS),
            spread=draw.choice(["any", "any", "one_node"]),
        )  # fmt: skip
        made.submit(spec, held=draw.random() < 0.1)
        if draw.random() < 0.7:
            made.step()
        if made.held and draw.random() < 0.2:
            made.answer_all()
            made.finish(draw.choice(sorted(made.held)))
    made.settle()
    return made


def promised(remedy: Remedy) -> bool:
    """It says that the job starts at once: no time is named, and not what it would wait for."""
    return bool(remedy.command) and remedy.at_ms is None and "would then wait" not in remedy.text


@pytest.mark.parametrize("seed", range(24))
def test_what_is_advised_works(seed: int) -> None:
    made = crowded(seed)
    for job_id in sorted(set(made.specs) - set(made.held)):
        for remedy in made.engine.explain(job_id, made.now).remedies:
            if promised(remedy):
                tried = crowded(seed)
                typed(tried, remedy.command)
                assert starts(tried, job_id) - {job_id} == set(remedy.evicts), f"{job_id}: {remedy}"


@pytest.mark.parametrize("seed", range(100, 160))
def test_short_cuts_change_no_answer(seed: int) -> None:
    made = crowded(seed)
    for job_id in sorted(set(made.specs) - set(made.held)):
        engine, now = made.engine, made.now
        assert explain(engine, job_id, now) == explain(engine, job_id, now, thorough=True), job_id


def test_short_cuts_change_no_answer_in_a_large_cluster() -> None:
    cluster = LoadCluster(gpus=160, pending=400, queues=8, seed=1)
    engine, now = cluster.engine, cluster.now_ms
    digest = engine.digest()
    for job_id in Random(1).sample(sorted(engine.state.waiting.keys), 12):
        assert explain(engine, job_id, now) == explain(engine, job_id, now, thorough=True), job_id
    assert engine.digest() == digest, "who asks changes nothing"
