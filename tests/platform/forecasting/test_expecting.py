"""What is learned reaches the live engine: order and turns by expected work, after restarts too, never a flood, replayed byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.control.foretelling import Foretelling
from heliostat.control.messages import QueuesTold
from heliostat.forecasting import expecting
from heliostat.forecasting.expecting import FEWEST
from heliostat.forecasting.replaying import replay
from heliostat.store import jobs, queuefiles
from heliostat.store.tables import Event
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.plant import Plant
from tests.platform.forecasting.teaching import Teacher, estimates, logged, ran

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def waits(plant: Plant, *names: str) -> None:
    """One-GPU jobs, one after the other, behind `holder`, which has both GPUs."""
    plant.submit("holder", gpus=2, work=Program(runs_ms=HOUR_MS), priority=150)
    plant.until(lambda: plant.state("holder") == "running", "holder to run")
    for name in names:
        plant.submit(f"new-{name}", gpus=1, work=Program(runs_ms=MINUTE_MS), name=name)
        plant.advance(100)


@pytest.fixture
def learned(plant: Plant) -> Plant:
    ran(plant, "train", 4 * HOUR_MS, FEWEST)
    ran(plant, "sweep", MINUTE_MS, FEWEST)
    return plant


def order(plant: Plant) -> list[str]:
    return [key.job_id for key in plant.loop.engine.state.waiting.line("default").order]


def test_of_two_waiting_equals_the_one_of_which_less_is_expected_goes_first(learned: Plant) -> None:
    waits(learned, "train", "sweep")
    assert order(learned) == ["new-train", "new-sweep"]
    assert Teacher(learned).look() == 3, "the holder too"
    assert order(learned) == ["new-sweep", "new-train"]


@pytest.mark.parametrize("finished", [0, FEWEST - 1])
def test_a_queue_without_history_keeps_its_order(plant: Plant, finished: int) -> None:
    ran(plant, "sweep", MINUTE_MS, finished)
    ran(plant, "sweep", MINUTE_MS, FEWEST, queue="another")
    ran(plant, "ended", MINUTE_MS, FEWEST, state="cancelled")
    waits(plant, "train", "sweep")
    assert Teacher(plant).look() == 0
    assert order(plant) == ["new-train", "new-sweep"] and not estimates(plant)


def test_equals_take_turns(learned: Plant) -> None:
    for i in (1, 2):
        learned.submit(f"long-{i}", gpus=1, work=Program(runs_ms=4 * HOUR_MS), name="train")
    learned.advance(1_000)
    learned.submit("quick", gpus=1, work=Program(runs_ms=2_000), name="sweep")
    learned.advance(1_000)
    assert learned.state("quick") == "queued"
    teacher = Teacher(learned)
    teacher.look()
    learned.until(lambda: learned.state("quick") == "succeeded", "quick to have had its turn")
    learned.until(lambda: all(learned.state(f"long-{i}") == "running" for i in (1, 2)), "both to run again")
    assert sum(len(learned.attempts(f"long-{i}")) for i in (1, 2)) == 3


def test_borrowed_gpus_go_to_the_shorter_job_of_another_queue(make_plant: Callable[..., Plant]) -> None:
    """Both queues borrow, and `b` has its share already: only what is expected moves a GPU."""
    plant = make_plant(gpus=3, cpu_milli=8_000)
    plant.advance(1_000)
    text = "default: a\nqueues:\n  a: {weight: 1}\n  b: {weight: 1}\n"
    plant.store.write(lambda session: queuefiles.put(session, text, actor="ann", now_ms=plant.cluster.now_ms))
    plant.post(QueuesTold())
    ran(plant, "train", 4 * HOUR_MS, FEWEST, queue="a")
    ran(plant, "sweep", MINUTE_MS, FEWEST, queue="b")
    for name, queue in (("long-1", "a"), ("long-2", "a"), ("mine", "b"), ("quick", "b")):
        job = "train" if queue == "a" else "sweep"
        plant.submit(name, gpus=1, work=Program(runs_ms=HOUR_MS), name=job, queue=queue)
        plant.advance(1_000)
    plant.advance(60_000, step_ms=1_000)
    assert plant.state("quick") == "queued"
    Teacher(plant).look()
    plant.until(lambda: plant.state("quick") == "running", "quick to have its turn")
    with plant.store.read() as session:
        reasons = {
            row.job: row.reason["code"] for row in session.query(Event).filter_by(to_state="preempting") if row.reason
        }
    assert (
        list(reasons.values()) == ["ReclaimedFor"]
        and set(reasons) < {"long-1", "long-2"}
        and plant.state("mine") == "running"
    )


def test_work_that_an_eviction_throws_away_is_charged(learned: Plant) -> None:
    """Whoever has no checkpoint is not set aside once more would be done again than its expected rest is worth."""
    for i in (1, 2):
        learned.submit(f"long-{i}", gpus=1, work=Program(runs_ms=8 * HOUR_MS), name="train")
    learned.advance(1_000)
    learned.advance(3 * HOUR_MS, step_ms=10 * MINUTE_MS)
    learned.submit("quick", gpus=1, work=Program(runs_ms=2_000), name="sweep")
    learned.advance(1_000)
    Teacher(learned).look()
    learned.advance(5_000)
    assert learned.state("quick") == "queued" and learned.state("long-1") == learned.state("long-2") == "running"


def test_a_queue_that_takes_no_turns_keeps_its_order_and_learns_it_when_it_does(learned: Plant) -> None:
    def rotate(value: str) -> None:
        text = f"queues:\n  default:\n    quota: {{gpu: 2}}\n    rotate: {value}\n"
        learned.store.write(lambda session: queuefiles.put(session, text, actor="ann", now_ms=learned.cluster.now_ms))
        learned.post(QueuesTold())
        learned.advance(100)

    rotate("false")
    waits(learned, "train", "sweep")
    teacher = Teacher(learned)
    assert teacher.look() == 3 and order(learned) == ["new-train", "new-sweep"]
    assert all(learned.loop.engine.state.book.jobs[job].remaining_ms for job in order(learned))
    rotate("true")
    assert teacher.look() == 3 and order(learned) == ["new-sweep", "new-train"]
    rotate("false")
    assert teacher.look() == 3 and order(learned) == ["new-train", "new-sweep"]


def test_a_new_job_does_not_go_ahead_of_ranked_ones(learned: Plant) -> None:
    waits(learned, "sweep")
    Teacher(learned).look()
    learned.submit("latest", gpus=1, work=Program(runs_ms=MINUTE_MS), name="unheard-of")
    learned.advance(100)
    assert order(learned) == ["new-sweep", "latest"]


def test_a_new_process_tells_nothing_twice_and_a_new_control_plane_hears_it_once(learned: Plant) -> None:
    waits(learned, "train", "sweep")
    assert Teacher(learned).look() == 3 and Teacher(learned).look() == 0
    before = order(learned)
    learned.restart_control()
    learned.advance(1_000)
    assert order(learned) == ["new-train", "new-sweep"], "as they came, until it is told"
    teacher = Teacher(learned)
    assert teacher.look() == 3 and teacher.look() == 0 and order(learned) == before


def test_a_running_job_is_looked_at_again_when_it_has_run_on(learned: Plant) -> None:
    learned.submit("one", gpus=1, work=Program(runs_ms=8 * HOUR_MS), name="sweep")
    learned.advance(1_000)
    teacher = Teacher(learned)
    teacher.look()
    first = learned.loop.engine.state.book.jobs["one"].remaining_ms or 0
    assert 0 < first < 10 * MINUTE_MS and not teacher.expecting.due(learned.cluster.now_ms)
    learned.advance(2 * MINUTE_MS, step_ms=MINUTE_MS)
    assert teacher.expecting.due(learned.cluster.now_ms) and teacher.look() == 1
    assert (learned.loop.engine.state.book.jobs["one"].remaining_ms or 0) > 3 * first, "it has outrun what is usual"


def test_what_was_told_replays_byte_for_byte(learned: Plant) -> None:
    waits(learned, "train", "sweep")
    teacher = Teacher(learned)
    teacher.look()
    logged(learned, 3)
    learned.until(teacher.follows, "the mirror to be the engine")
    assert teacher.mirror.engine.digest() == learned.loop.engine.digest()
    with learned.store.read() as session:
        assert replay(session)["differs"] is None
    assert {event.job_id for event in estimates(learned)} == {"holder", "new-train", "new-sweep"}


def test_many_waiting_jobs_are_no_flood_and_keep_their_order_meanwhile(learned: Plant) -> None:
    waits(learned)
    many = 1_200
    for i in range(many):
        learned.submit(f"many-{i:04}", gpus=1, name="sweep" if i % 2 else "train")
    learned.advance(200)
    teacher, told = Teacher(learned), []
    while count := teacher.look(most=500):
        told.append(count)
        first = order(learned)[0]
        assert first == "many-0000" or sum(told) >= many
    assert sum(told) == many + 1 and max(told) <= 500, "holder too"
    logged(learned, many + 1)
    ranks = [learned.loop.engine.state.book.jobs[job].rank for job in order(learned)]
    assert order(learned)[0] == "many-0001" and ranks == sorted(ranks) and ranks[0] > 0
    assert len(estimates(learned)) == many + 1


def test_history_is_not_read_anew_at_every_look_where_more_jobs_live_than_arrive_between_two_readings(
    learned: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expecting, "RELOAD", 1)
    waits(learned, "train", "sweep")
    teacher = Teacher(learned)
    assert teacher.look() == 3
    first = teacher.expecting.expected
    assert teacher.look() == 0 and teacher.expecting.expected is first
    for name in ("sweep-2", "sweep-3"):
        learned.submit(name, gpus=1, work=Program(runs_ms=MINUTE_MS), name="sweep")
    learned.advance(100)
    teacher.look()
    teacher.look()
    assert teacher.expecting.expected is not first, "two arrivals later it is"


def test_what_is_unlearned_and_what_is_learned_share_the_bound_of_a_look(learned: Plant) -> None:
    waits(learned, "train", "sweep")
    Teacher(learned).look()
    for i in range(FEWEST + 1):
        for name in ("train", "sweep"):
            learned.store.write(lambda session, job=f"{name}-default-{i}": jobs.forget(session, job))  # type: ignore[misc]
    ran(learned, "sweep", MINUTE_MS, FEWEST, queue="another")
    teacher = Teacher(learned)
    assert [teacher.look(most=2) for _ in range(3)] == [2, 1, 0]


def test_a_queue_whose_history_is_gone_is_not_ranked_any_more(learned: Plant) -> None:
    waits(learned, "train", "sweep")
    Teacher(learned).look()
    for name in ("train", "sweep"):
        for i in range(FEWEST):
            learned.store.write(lambda session, job=f"{name}-default-{i}": jobs.forget(session, job))  # type: ignore[misc]
    teacher = Teacher(learned)
    assert teacher.look() == 3 and order(learned) == ["new-train", "new-sweep"]
    assert teacher.look() == 0


def test_what_is_believed_of_a_job_can_be_asked_for(learned: Plant) -> None:
    def believed(job: str) -> dict[str, object] | None:
        loop = learned.loop
        return Foretelling(loop, learned.store, None).explain(learned.job(job), 0.0)["expected"]  # type: ignore[no-any-return]

    waits(learned, "train")
    assert believed("new-train") is None
    Teacher(learned).look()
    told = believed("new-train")
    assert told is not None and told["rest_s"] == learned.loop.engine.state.book.jobs["new-train"].remaining_ms / 1000  # type: ignore[operator]
    assert (told["ranked"], told["queue"], told["finished_jobs"], told["goodput"]) == (True, "default", 2 * FEWEST, [])
    before = believed("holder")
    learned.advance(10_000)
    after = believed("holder")
    assert before is not None and after is not None and before["rest_s"] - after["rest_s"] == 10.0  # type: ignore[operator]
