"""What the end of a process means for its job: one line a case."""

from __future__ import annotations

import pytest
from heliostat.control import endings
from heliostat.control.attempts import Attempt, Ending, Finish, Requeue
from heliostat.control.endings import Exit, Tries
from heliostat.control.messages import DriverInfo
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.live import protocol

NOW = 1_000_000


def attempt(state: JobState = JobState.RUNNING, order: str = protocol.RUN, *, timed_out: bool = False) -> Attempt:
    return Attempt(
        job="j", n=1, epoch=1, kind="ray", project="default", secret="s", tasks=1, places=(), slots=(), node="n",
        cpu_milli=0, memory_bytes=0, since_ms=0, state=state, order=order, timed_out=timed_out,
    )  # fmt: skip


def said(ending: Ending) -> str:
    return ending.outcome


PREEMPTING = attempt(JobState.PREEMPTING, protocol.PREEMPT)
CANCELLING = attempt(JobState.CANCELLING)
TIMED_OUT = attempt(order=protocol.STOP, timed_out=True)


@pytest.mark.parametrize(
    ("what", "of", "tries", "outcome"),
    [
        pytest.param(Exit(0), attempt(), Tries(0), "succeeded", id="ends well"),
        pytest.param(Exit(1), attempt(), Tries(0), "failed", id="its own failure is final"),
        pytest.param(Exit(1), attempt(), Tries(0, allowed=2), "crashed", id="unless it asked for retries"),
        pytest.param(Exit(1), attempt(), Tries(2, allowed=2), "failed", id="as many as it asked for"),
        pytest.param(Exit(137), attempt(), Tries(0), "crashed", id="killed from outside is tried again"),
        pytest.param(Exit(137), attempt(), Tries(3), "failed", id="but not for ever"),
        pytest.param(Exit(139), attempt(), Tries(0), "failed", id="a segfault is its own failure"),
        pytest.param(Exit(None, lost=True), attempt(), Tries(0), "crashed", id="whoever watched it died"),
        pytest.param(Exit(0), PREEMPTING, Tries(0), "preempted", id="preempted, whatever it returned"),
        pytest.param(Exit(143), PREEMPTING, Tries(0), "preempted", id="preempted by SIGTERM"),
        pytest.param(Exit(0), CANCELLING, Tries(0), "cancelled", id="cancelled, whatever it returned"),
        pytest.param(Exit(143), TIMED_OUT, Tries(0), "timed_out", id="stopped at its time limit"),
    ],
)
def test_the_end_of_a_command(what: Exit, of: Attempt, tries: Tries, outcome: str) -> None:
    assert said(endings.of_exit(of, what, tries, NOW)) == outcome


@pytest.mark.parametrize(
    ("info", "of", "outcome"),
    [
        pytest.param(DriverInfo("SUCCEEDED"), attempt(), "succeeded", id="ends well"),
        pytest.param(DriverInfo("FAILED", exit_code=1), attempt(), "failed", id="its own failure is final"),
        pytest.param(DriverInfo("FAILED", exit_code=-9), attempt(), "crashed", id="kill -9 of the driver"),
        pytest.param(DriverInfo("FAILED", exit_code=137), attempt(), "crashed", id="kill -9 below a shell"),
        pytest.param(
            DriverInfo("FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED"), attempt(), "crashed", id="its supervisor died"
        ),
        pytest.param(
            DriverInfo("FAILED", error_type="RUNTIME_ENV_SETUP_FAILURE"), attempt(), "failed", id="a bad runtime_env"
        ),
        pytest.param(None, attempt(), "crashed", id="Ray lost it"),
        pytest.param(DriverInfo("STOPPED"), attempt(), "failed", id="stopped past us"),
        pytest.param(DriverInfo("STOPPED"), PREEMPTING, "preempted", id="stopped by us"),
        pytest.param(DriverInfo("SUCCEEDED"), PREEMPTING, "succeeded", id="finished before it could be stopped"),
        pytest.param(DriverInfo("SUCCEEDED"), CANCELLING, "cancelled", id="cancelled all the same"),
        pytest.param(None, CANCELLING, "cancelled", id="cancelled and gone"),
    ],
)
def test_the_end_of_a_driver(info: DriverInfo | None, of: Attempt, outcome: str) -> None:
    assert said(endings.of_driver(of, info, Tries(0), NOW)) == outcome


def test_pauses_between_tries_double_up_to_a_minute() -> None:
    assert [endings.retry_at(n, 0) for n in (0, 1, 2, 9)] == [2_000, 4_000, 8_000, 60_000]


def test_a_crash_waits_before_the_next_try() -> None:
    ending = endings.of_exit(attempt(), Exit(137), Tries(1), NOW)
    assert ending == Requeue("crashed", NOW + 4_000, 137, "The command ended with exit code 137.")


def test_the_last_try_says_how_many_there_were() -> None:
    ending = endings.of_exit(attempt(), Exit(137), Tries(3), NOW)
    assert isinstance(ending, Finish) and ending.error.endswith("It was tried 4 times.")
