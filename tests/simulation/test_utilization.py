"""Idle GPUs on virtual time: four GPUs, a queue that is guaranteed two, a job that grew to four, and one more of the same queue and class
that is over the guarantee: nothing but idleness can move a GPU. Telemetry comes once a minute."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from heliostat_scheduler.core.decisions import Decision, Preempt, Resize, Start
from heliostat_scheduler.core.events import Utilized
from heliostat_scheduler.core.model import JobSpec, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.simulator.drive import Drive, uniform_nodes

MINUTE_MS = 60_000
HOUR = 60


@dataclass
class Lab:
    """The cluster, driven minute by minute. `sizes`: tasks of every job that holds GPUs."""

    newcomer: bool = True
    sizes: dict[str, int] = field(default_factory=dict)
    orders: list[Decision] = field(default_factory=list)
    minute: int = 0

    def __post_init__(self) -> None:
        self.drive = Drive(self, (QueueSpec("lab", quota=(("gpu", 2000),)),))
        for event in uniform_nodes(1, 4):
            self.drive.apply(event, 0)
        self.drive.submit(JobSpec("big", "lab", 0, TaskShape(1000), 2, 4, elastic=True, grace_ms=0), 0)
        self.drive.settle(0)
        assert self.sizes == {"big": 4}
        if self.newcomer:
            self.drive.submit(JobSpec("new", "lab", 1, TaskShape(1000), grace_ms=0), 1)
            self.drive.settle(1)
            assert self.sizes == {"big": 4}

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self.sizes[job_id] = len(places)

    def stopped(self, job_id: str) -> None:
        del self.sizes[job_id]

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self.sizes[job_id] = len(places)

    def live(self, minutes: int, permille: int | None, progressed: bool) -> None:
        """So many windows of telemetry about the big job, or none at all."""
        for _ in range(minutes):
            self.minute += 1
            now_ms = self.minute * MINUTE_MS
            if permille is not None:
                self.drive.apply(Utilized("big", MINUTE_MS, permille, progressed), now_ms)
            self.orders += self.drive.settle(now_ms)


@pytest.mark.parametrize(
    ("permille", "progressed", "newcomer", "sizes"),
    [
        pytest.param(0, False, True, {"big": 3, "new": 1}, id="no activity, no progress, somebody waits: shrunk"),
        pytest.param(950, False, True, {"big": 4}, id="busy: untouched"),
        pytest.param(0, True, True, {"big": 4}, id="no activity but progress: untouched"),
        pytest.param(0, False, False, {"big": 4}, id="idle, but nobody waits: untouched"),
        pytest.param(None, False, True, {"big": 4}, id="no telemetry: untouched"),
    ],
)
def test_only_idleness_moves_a_gpu(
    permille: int | None, progressed: bool, newcomer: bool, sizes: dict[str, int]
) -> None:
    lab = Lab(newcomer)
    lab.live(HOUR, permille, progressed)
    assert lab.sizes == sizes
    assert not any(isinstance(order, Preempt) for order in lab.orders)


def test_the_order_says_that_idleness_was_why() -> None:
    lab = Lab()
    lab.live(HOUR, 0, False)
    shrunk, started = lab.orders
    assert isinstance(shrunk, Resize) and shrunk.reason.code is ReasonCode.IDLE and shrunk.reason.blockers == ("new",)
    assert isinstance(started, Start) and started.job_id == "new"


def test_a_short_pause_is_not_idleness() -> None:
    lab = Lab()
    for _ in range(6):
        lab.live(5, 0, False)
        lab.live(1, 900, True)
    assert lab.sizes == {"big": 4}


def test_readings_between_the_marks_do_not_flap() -> None:
    lab = Lab()
    for permille in (100, 150, 60, 120) * 15:
        lab.live(1, permille, False)
    assert lab.sizes == {"big": 4} and lab.orders == []


def test_what_was_taken_comes_back_once_there_is_room() -> None:
    lab = Lab()
    lab.live(HOUR, 0, False)
    assert lab.sizes == {"big": 3, "new": 1}
    del lab.sizes["new"]
    lab.drive.finish("new", lab.minute * MINUTE_MS)
    lab.live(5, 950, True)
    assert lab.sizes == {"big": 4}


def test_silence_after_idleness_is_not_idleness() -> None:
    """The last reading is good for two windows; a job found idle just before its node went silent is not asked later."""
    lab = Lab(newcomer=False)
    lab.live(HOUR, 0, False)
    lab.live(10, None, False)
    lab.drive.submit(JobSpec("new", "lab", 1, TaskShape(1000), grace_ms=0), lab.minute * MINUTE_MS)
    lab.live(1, None, False)
    assert lab.sizes == {"big": 4}
