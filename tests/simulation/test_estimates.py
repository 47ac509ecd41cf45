"""What is learned: rest times from arrival neighbours, goodput from measured points, elastic sizes from goodput."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from heliostat_scheduler.core.goodput import Elastic, goodput_at, target_sizes
from heliostat_scheduler.estimate.goodput import GoodputModel, Limits
from heliostat_scheduler.estimate.history import HistorySettings, RunHistory


def history_of(durations: list[float], gpus: int = 1) -> RunHistory:
    history = RunHistory()
    for i, duration in enumerate(durations):
        history.arrived(f"done-{i}", "q", gpus)
        history.started(f"done-{i}", 0.0)
        history.finished(f"done-{i}", duration)
    return history


def test_without_history_the_rest_grows_with_what_has_run() -> None:
    history = RunHistory()
    for name in ("young", "old"):
        history.arrived(name, "q", 1)
        history.started(name, 0.0)
    history.stopped("young", 100.0)
    young, old = history.rest_s(["young", "old"], 100_000.0)
    assert young < old


def test_neighbours_set_the_estimate() -> None:
    short, long = history_of([60.0] * 20), history_of([86_400.0] * 20)
    for history in (short, long):
        history.arrived("new", "q", 1)
    assert short.rest_s(["new"], 0.0)[0] < 300 < 20_000 < long.rest_s(["new"], 0.0)[0]


def test_without_a_template_nobody_is_a_closer_relative() -> None:
    """Whoever finished in between, and in whatever order pairs came, says nothing about who resembles whom."""
    rests = []
    for pair in (("long", "short"), ("short", "long")):
        history = RunHistory()
        for i in range(20):
            for kind in pair:
                history.arrived(f"{kind}-{i}", "q", 1)
                history.started(f"{kind}-{i}", 0.0)
            history.finished(f"short-{i}", 60.0)
            history.finished(f"long-{i}", 50_000.0)
        history.arrived("new", "q", 1)
        rests += history.rest_s(["new"], 0.0)
    assert max(rests) < 1.5 * min(rests)


def test_the_same_gpu_count_weighs_more() -> None:
    history = history_of([60.0] * 10, gpus=1)
    for i in range(10):
        history.arrived(f"wide-{i}", "q", 8)
        history.started(f"wide-{i}", 0.0)
        history.finished(f"wide-{i}", 50_000.0)
    history.arrived("one", "q", 1)
    history.arrived("eight", "q", 8)
    one, eight = history.rest_s(["one", "eight"], 0.0)
    assert one < eight


def test_an_estimate_is_the_same_asked_alone_or_among_others_kept_or_anew() -> None:
    rng, history, live, now_s = random.Random(3), RunHistory(HistorySettings(reach=6)), [], 0.0
    for number in range(120):
        now_s += rng.expovariate(1 / 50)
        history.arrived(f"j{number}", rng.choice("ab"), rng.choice((1, 2, 8)), rng.choice(("", "t")))
        history.started(f"j{number}", now_s)
        live.append(f"j{number}")
        if rng.random() < 0.6:
            history.finished(live.pop(rng.randrange(len(live))), now_s + 1.0)
        alone = [history.rest_s([name], now_s + 2.0)[0] for name in live]
        assert alone == history.rest_s(live, now_s + 2.0) == history.twin().rest_s(live, now_s + 2.0)


def measured_model() -> GoodputModel:
    """Truth: 0.05 s + 0.001 s per sample; synchronisation 0.02 s inside a node, 0.1 s across."""
    model = GoodputModel(Limits(128, 4096, 32, 512), 4)
    for nodes, replicas, local in ((1, 1, 128), (1, 2, 128), (1, 4, 256), (2, 8, 256), (4, 16, 128)):
        accumulate = 0.05 + 0.001 * local
        sync = 0.0 if replicas == 1 else 0.02 if nodes == 1 else 0.1
        model.measured(nodes, replicas, local, accumulate + sync, sync)
    model.gradient(1.0, 10.0)
    return model


def test_the_fit_recovers_a_known_law_within_a_tenth() -> None:
    model = measured_model()
    accumulate, step = model._predict(np.array([2]), np.array([8]), np.array([400]))
    assert accumulate[0] == pytest.approx(0.45, rel=0.1)
    assert step[0] == pytest.approx(0.55, rel=0.1)


def test_more_gpus_give_more_goodput_but_ever_less_each() -> None:
    curve = measured_model().curve([1, 2, 4, 8, 16])
    assert all(low < high for low, high in pairwise(curve))
    assert curve[-1] < 16 * curve[0]


def test_a_fixed_batch_is_kept() -> None:
    model = GoodputModel(Limits(256, 32768, 32, 32768, fixed=32768), 4)
    model.measured(1, 1, 16384, 1.0, 0.0)
    choice = model.choose(1)
    assert choice.local_batch * (choice.accumulation + 1) == 32768


LINEAR = tuple((size, 1000 * size) for size in (1, 2, 4, 8))
FLAT = tuple((size, 1000 + size) for size in (1, 2, 4, 8))


def test_gpus_go_to_the_job_that_can_use_them() -> None:
    jobs = [Elastic("flat", 4, FLAT, 0, 900), Elastic("linear", 4, LINEAR, 0, 900)]
    sizes = target_sizes(jobs, 9)
    assert sizes == {"flat": 1, "linear": 8}


def test_a_change_that_gains_less_than_it_costs_is_not_made() -> None:
    jobs = [Elastic("a", 4, LINEAR, 0, 500), Elastic("b", 4, LINEAR, 0, 500)]
    assert target_sizes(jobs, 8) == {"a": 4, "b": 4}


@pytest.mark.parametrize("capacity", [4, 7, 16, 33])
def test_targets_never_exceed_the_capacity(capacity: int) -> None:
    jobs = [Elastic(f"job-{i}", 1, LINEAR if i % 2 else FLAT, 1000 * i, 900) for i in range(4)]
    assert sum(target_sizes(jobs, capacity).values()) <= capacity


def test_goodput_between_sizes_is_linear() -> None:
    assert goodput_at(((2, 100), (4, 200)), 3) == 150
    assert goodput_at(((2, 100), (4, 200)), 1) == 100
    assert goodput_at(((2, 100), (4, 200)), 9) == 200
