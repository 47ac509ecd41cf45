"""What a trial may ask for, and how a program that declared nothing gets its lease."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heliostat_jobs.errors import DemandRefused, JobError, NeverFits, NotYetSupported, UndeclaredGPU
from heliostat_jobs.train.demand import wait_for_gpus
from heliostat_jobs.tune.demand import MANY, at_once, check, gpus_for, gpus_of_trial
from heliostat_scheduler.live.protocol import DEMAND, PREEMPT, RELEASED, RUN, STOP, Lease, SlotRef

NOTHING = Lease("job-1", 1, 1, "ray", RUN, "secret", 0)
SLOT = SlotRef("n/0", "aa", "n", 0)


@pytest.mark.parametrize(
    ("bundles", "gpus"),
    [
        pytest.param([{"CPU": 1}], 0, id="a trial without a GPU"),
        pytest.param([{"CPU": 1, "GPU": 1}], 1, id="one GPU"),
        pytest.param([{"GPU": 0.5}], 0.5, id="half a GPU"),
        pytest.param([{}, {"CPU": 2}], 0, id="a trial whose helpers need CPUs"),
    ],
)
def test_gpus_of_a_trial(bundles: list[dict[str, float]], gpus: float) -> None:
    assert gpus_of_trial(bundles) == gpus


@pytest.mark.parametrize(
    ("bundles", "error"),
    [
        pytest.param([{"GPU": 2}], NeverFits, id="two GPUs for one process"),
        pytest.param([{"CPU": 1}, {"GPU": 1}, {"GPU": 1}], NotYetSupported, id="a group of bundles with GPUs"),
    ],
)
def test_what_a_trial_cannot_have(bundles: list[dict[str, float]], error: type[JobError]) -> None:
    with pytest.raises(error, match="TorchTrainer inside the trial"):
        gpus_of_trial(bundles)


def test_an_undeclared_gpu_names_the_line() -> None:
    check(0, NOTHING)
    check(1, replace(NOTHING, slots=(SLOT,)))
    with pytest.raises(UndeclaredGPU, match="metadata-json"):
        check(1, NOTHING)


@pytest.mark.parametrize(
    ("samples", "limit", "expected"),
    [
        pytest.param(8, 0, 8, id="as many as there are trials"),
        pytest.param(8, 2, 2, id="max_concurrent_trials"),
        pytest.param(-1, 0, MANY, id="a search without an end"),
        pytest.param(float("inf"), 3, 3, id="without an end, but limited"),
        pytest.param(1, 5, 1, id="one trial"),
    ],
)
def test_trials_at_once(samples: float, limit: int, expected: int) -> None:
    assert at_once(samples, limit) == expected


@pytest.mark.parametrize(
    ("trials", "gpus", "expected"),
    [
        pytest.param(8, 1, 8, id="a GPU each"),
        pytest.param(8, 0.25, 2, id="four share one"),
        pytest.param(9, 0.25, 3, id="the ninth begins another"),
        pytest.param(8, 0.3, 3, id="three share one, a tenth stays free"),
        pytest.param(3, 0.7, 3, id="two of these never share"),
        pytest.param(1, 0.0001, 1, id="never none"),
    ],
)
def test_gpus_that_trials_fill(trials: int, gpus: float, expected: int) -> None:
    assert gpus_for(trials, gpus) == expected


class Board:
    """Answers `wait` with the next of `leases`, as the lease board does when the scheduler has decided."""

    def __init__(self, *leases: Lease) -> None:
        self.leases = list(leases)
        self.acked: list[tuple[int, str]] = []
        self.facts: dict[str, Any] = {}

    def wait(self, known_epoch: int, timeout_s: float) -> Lease:
        return self.leases.pop(0)

    def ack(self, epoch: int, what: str, facts: dict[str, Any] | None = None) -> None:
        self.acked.append((epoch, what))
        self.facts |= facts or {}


def test_a_demand_is_told_and_waits_for_its_slots() -> None:
    granted = replace(NOTHING, epoch=3, slots=(SLOT,))
    board = Board(NOTHING, replace(NOTHING, epoch=2), granted)
    assert wait_for_gpus(board, NOTHING, 1, 4, "ray.train") == granted
    assert board.acked == [(1, DEMAND)]
    assert (board.facts["min_gpus"], board.facts["max_gpus"]) == (1, 4)


def test_an_order_while_nothing_is_held_is_acked_at_once() -> None:
    board = Board(replace(NOTHING, epoch=2, order=PREEMPT), replace(NOTHING, epoch=3, slots=(SLOT,)))
    wait_for_gpus(board, NOTHING, 2, 2, "ray.train")
    assert board.acked == [(1, DEMAND), (2, RELEASED)]


def test_a_refusal_ends_the_program_with_its_reason() -> None:
    board = Board(replace(NOTHING, epoch=2, order=STOP, why="NeverFits: the cluster has 2 GPUs."))
    with pytest.raises(DemandRefused, match=r"needs 8 GPUs.*NeverFits: the cluster has 2 GPUs"):
        wait_for_gpus(board, NOTHING, 8, 8, "ray.train")
