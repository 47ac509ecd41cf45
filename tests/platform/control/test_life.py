"""A job's life through the control plane, without faults."""

from __future__ import annotations

from pathlib import Path

from heliostat.control.messages import QueuesTold
from heliostat.store import queuefiles
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def test_a_command_runs_in_its_slot_and_succeeds(plant: Plant) -> None:
    plant.submit("c1", work=Program(runs_ms=500))
    plant.until(lambda: plant.state("c1") == "succeeded", "c1 to succeed")
    assert plant.states("c1") == ["admitted", "starting", "running", "succeeded"]
    job = plant.job("c1")
    assert (job.exit_code, job.attempts) == (0, 1)
    assert job.gpu_ms_held >= 500
    plant.check_quiet()


def test_a_driver_runs_and_succeeds_with_its_log(plant: Plant) -> None:
    plant.submit("r1", work=Script(runs_ms=700))
    plant.until(lambda: plant.state("r1") == "succeeded", "r1 to succeed")
    assert plant.states("r1") == ["admitted", "starting", "running", "succeeded"]
    assert Path(plant.attempts("r1")[0].log_path).read_text() == "hello\n"
    plant.check_quiet()


def test_asks_of_one_turn_follow_each_other(plant: Plant) -> None:
    plant.submit("c0", gpus=2, work=Program(runs_ms=None))
    plant.submit("c1", work=Program(runs_ms=100))
    plant.until(lambda: plant.state("c0") == "running", "c0 to run")
    for what in ("hold", "release", "hold"):
        plant.ask(what, "c1")
    plant.advance(100)
    assert plant.states("c1") == ["held", "queued", "held"]
    answers = [plant.ask(what, "c1") for what in ("release", "cancel", "hold")]
    plant.advance(100)
    assert plant.state("c1") == "cancelled"
    assert [answer.exception() is None for answer in answers] == [True, True, False]


def test_a_job_that_ran_out_of_time_while_ray_died_is_not_forgotten(plant: Plant) -> None:
    plant.submit("r1", work=Script(runs_ms=None), max_runtime_ms=2_000)
    plant.until(lambda: plant.state("r1") == "running", "r1 to run")
    plant.kill_bridge(back_after_ms=60_000)
    plant.advance(2_500)
    plant.kill_head()
    plant.advance(3_000)
    assert plant.states("r1")[-1] == "timed_out"
    plant.check_quiet()


def test_who_waits_for_a_job_that_did_not_succeed_waits_whenever_it_came(plant: Plant) -> None:
    plant.submit("bad", work=Program(runs_ms=300, rc=1))
    plant.submit("early", work=Program(runs_ms=300), dependencies=["bad"])
    plant.until(lambda: plant.state("bad") == "failed", "bad to fail")
    plant.submit("later", work=Program(runs_ms=300), dependencies=["bad"])
    for restart in (False, True):
        if restart:
            plant.restart_control()
        plant.advance(2_000)
        for job in ("early", "later"):
            assert plant.state(job) == "queued"
            why = plant.loop.engine.reason(job)
            assert why is not None and why.code is ReasonCode.DEPENDENCY_WAIT and why.fact("outcome") == "failed"


def test_guarantees_above_the_cluster_are_logged_once(plant: Plant) -> None:
    text = "queues: {default: {quota: {gpu: 2}}, other: {quota: {gpu: 1}}}"
    plant.store.write(lambda session: queuefiles.put(session, text, actor="ann", now_ms=plant.cluster.now_ms))
    plant.inbox.post(QueuesTold())
    plant.submit("c1", work=Program(runs_ms=500))
    plant.submit("c2", gpus=2, work=Program(runs_ms=500))
    plant.until(lambda: plant.state("c2") == "succeeded", "c2 to succeed")
    told = [fields["text"] for level, event, fields in plant.logged if (level, event) == ("warning", "quotas_scaled")]
    assert told == ["quotas of gpu sum to 3000, the cluster has 2000: scaled in proportion"]
