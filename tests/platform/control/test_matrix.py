"""The failure matrix: everything dies once in the middle of everything, and nothing is lost, run twice or leaked.

The story: a Train job on both GPUs is preempted by a more urgent command, which finishes; then the Train job resumes and
finishes. It passes through two starts, a preemption and two finishes, so a death at each of its moments is a death in the
middle of each of them. After the story the faults stop, and everything must end well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Crash, Plant

STEPS = 30
CHECKPOINT_EVERY = 5
STORY_MS = 9_000
MakePlant = Callable[..., Plant]


def begin(make_plant: MakePlant) -> Plant:
    plant = make_plant()
    plant.advance(1_000)
    plant.submit("train", gpus=2, work=Script(steps=STEPS, checkpoint_every=CHECKPOINT_EVERY), priority=50)
    return plant


def story(plant: Plant, until_ms: int, *, submitted: bool = False) -> bool:
    """Go on with the story up to this moment. Returns whether the urgent job was submitted."""
    while plant.cluster.now_ms < until_ms:
        if not submitted and len(plant.ray.executed) >= 12:
            plant.submit("urgent", gpus=1, work=Program(runs_ms=800), priority=150)
            submitted = True
        plant.advance(50)
    return submitted


def finish(plant: Plant, *, submitted: bool, deaths: int = 1) -> None:
    """No more faults: everything ends well."""
    if not submitted:
        plant.submit("urgent", gpus=1, work=Program(runs_ms=800), priority=150)
    for job in ("train", "urgent"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed")  # type: ignore[misc]
    plant.advance(2_000)
    plant.check_quiet()
    check_steps(plant, deaths)


def check_steps(plant: Plant, deaths: int) -> None:
    """Every step was done, and no death cost more than one checkpoint interval."""
    done = Counter(step for job, step in plant.ray.executed if job == "train")
    assert set(done) == set(range(1, STEPS + 1))
    again = sum(done.values()) - len(done)
    assert again <= deaths * CHECKPOINT_EVERY, f"{again} steps were done again\n{plant.story()}"


VICTIMS = ("bridge", "board", "driver", "control", "head")
MOMENTS = range(100, STORY_MS, 900)
ACTS = range(2, 54, 4)
"""Samples: `python -m tests.platform.control.fuzz` goes through every moment and every act."""


@pytest.mark.parametrize("at_ms", MOMENTS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_death_at_any_moment_costs_at_most_a_checkpoint_interval(
    make_plant: MakePlant, victim: str, at_ms: int
) -> None:
    die_at(make_plant, victim, at_ms)


@pytest.mark.parametrize("n", ACTS)
def test_the_control_plane_dies_at_any_act(make_plant: MakePlant, n: int) -> None:
    """The n-th write, command or call is its last; some acts before a commit, some after."""
    die_in_act(make_plant, n)


def die_at(make_plant: MakePlant, victim: str, at_ms: int) -> None:
    plant = begin(make_plant)
    submitted = story(plant, plant.cluster.now_ms + at_ms)
    match victim:
        case "bridge":
            plant.kill_bridge()
        case "board":
            plant.cluster.kill_board()
        case "driver":
            for driver in list(plant.ray.drivers.values()):
                plant.ray.kill(driver.submission.submission_id)
        case "control":
            plant.restart_control()
        case _:
            plant.kill_head()
            submitted = story(plant, plant.cluster.now_ms + 2_500, submitted=submitted)
            plant.start_head()
    submitted = story(plant, plant.cluster.now_ms + STORY_MS, submitted=submitted)
    finish(plant, submitted=submitted)


def die_in_act(make_plant: MakePlant, n: int) -> None:
    plant = begin(make_plant)
    plant.fuse.left = n
    submitted = False
    died = 0
    end = plant.cluster.now_ms + STORY_MS
    while plant.cluster.now_ms < end:
        try:
            submitted = story(plant, plant.cluster.now_ms + 50, submitted=submitted)
        except Crash:
            died += 1
            plant.restart_control()
            submitted = "urgent" in plant.cluster.programs
    assert died == 1, f"the story has fewer than {n} acts"
    finish(plant, submitted=submitted)
