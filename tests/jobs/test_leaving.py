"""In the workers of a kept process: holding a checkpoint, leaving the loop, forgetting. Threads and events, no Ray, no clock to wait for."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.train import hold, leave, visible
from heliostat_jobs.train.hold import LeaveTraining, ObedientTrainFnUtils, OrderInfo
from heliostat_jobs.train.ray_train_private import FAILURE_LOGGER, DistributedTrainFnUtils

FAR_MS = 10**15


class Runner:
    """Ray Train's thread runner."""

    def __init__(self, target: Callable[[], None]) -> None:
        self._exc: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(target,), daemon=True)

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001  # as Ray's does
            self._exc = error

    def get_error(self) -> BaseException | None:
        return self._exc


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The train context of this process, and Ray Train's own functions replaced by ones that only count."""
    made = SimpleNamespace(report_call_index=7, preemption_context=SimpleNamespace(preemption_info=None), runner=None)
    made.execution_context = SimpleNamespace(training_thread_runner=None)

    def report(self: Any, metrics: Any, checkpoint: Any = None) -> None:
        made.report_call_index += 1

    monkeypatch.setattr(DistributedTrainFnUtils, "report", report)
    monkeypatch.setattr(
        DistributedTrainFnUtils, "get_preemption_info", lambda self: made.preemption_context.preemption_info
    )
    for module in (hold, leave):
        monkeypatch.setattr(module, "get_train_context", lambda: made)
    made.utils = ObedientTrainFnUtils()
    monkeypatch.setattr(leave, "get_train_fn_utils", lambda: made.utils)
    monkeypatch.setattr(leave, "keeps_its_world", lambda modules: "")
    monkeypatch.setattr(leave, "_forget", lambda: "")
    yield made
    made.utils.leaving.set()


def marked(context: Any, deadline_ms: int = FAR_MS) -> None:
    context.preemption_context.preemption_info = OrderInfo(deadline_ms, {}, 2)


def training(context: Any, loop: Callable[[], None]) -> Runner:
    runner = context.execution_context.training_thread_runner = Runner(loop)
    runner._thread.start()
    return runner


def until(ready: Callable[[], bool]) -> None:
    for _ in range(2000):
        if ready():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come within 10 s")


def test_without_an_order_a_report_returns(context: Any) -> None:
    context.utils.report({}, checkpoint=object())
    assert context.report_call_index == 8


def test_a_rank_holds_with_its_checkpoint_says_which_and_leaves_when_told(context: Any) -> None:
    context.utils.report({})
    marked(context)
    runner = training(context, lambda: context.utils.report({}, checkpoint=object()))
    until(lambda: context.preemption_context.preemption_info.held == 2)
    marked(context)  # a later order: the hold is said again
    until(lambda: context.preemption_context.preemption_info.held == 2)
    assert leave.leave(10) == "" and runner.get_error() is None, "its frames are forgotten"
    assert not runner._thread.is_alive()


def test_a_hold_ends_after_the_deadline(context: Any) -> None:
    marked(context, deadline_ms=1)
    context.utils.report({}, checkpoint=object())


def test_a_rank_without_a_checkpoint_waits_only_when_its_script_has_seen_the_order(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "WORD_S", 60)
    marked(context)
    context.utils.report({})
    assert context.utils.get_preemption_info() is not None
    training(context, lambda: context.utils.report({}))
    assert leave.leave(10) == ""


@pytest.mark.parametrize("word", ["report", "get_preemption_info"])
def test_a_rank_that_goes_on_leaves_at_its_next_word(context: Any, word: str) -> None:
    context.utils.leaving.set()
    with pytest.raises(LeaveTraining):
        context.utils.report({}) if word == "report" else context.utils.get_preemption_info()


def test_a_script_that_catches_every_exception_does_not_catch_this_one() -> None:
    assert not issubclass(LeaveTraining, Exception)


def swallows(context: Any) -> None:
    try:
        context.utils.report({}, checkpoint=object())
    except LeaveTraining:
        return


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (swallows, "the script caught the exception that ends its loop"),
        (lambda context: threading.Event().wait(5), "the script did not come back from its loop within 0.1 s"),
    ],
    ids=["swallows", "does not come back"],
)
def test_a_process_that_did_not_leave_says_why(context: Any, loop: Callable[[Any], None], why: str) -> None:
    marked(context)
    training(context, lambda: loop(context))
    assert leave.leave(0.1 if "0.1" in why else 10) == why


def test_a_group_that_had_not_begun_is_not_kept(context: Any) -> None:
    context.execution_context.training_thread_runner = SimpleNamespace(_thread=None)
    assert leave.leave(1) == "training had not begun"


def test_functions_that_a_script_replaced_are_not_kept(context: Any) -> None:
    context.utils, mine = SimpleNamespace(leaving=threading.Event()), context.utils
    assert leave.leave(1) == "the script replaced Ray Train's functions"
    context.utils = mine


@pytest.mark.parametrize(
    ("modules", "found"), [(("torch", "numpy"), ""), (("torch", "accelerate"), "accelerate"), (("jax",), "jax")]
)
def test_libraries_that_remember_the_world(modules: tuple[str, ...], found: str) -> None:
    assert leave.keeps_its_world(modules) == found


def test_what_ends_the_loop_is_not_logged_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(FAILURE_LOGGER)
    logger.addFilter(hold._is_news)
    try:
        for error in (LeaveTraining("ours"), ValueError("theirs")):
            try:
                raise error
            except (LeaveTraining, ValueError):
                logger.error("ended by %s", error)
    finally:
        logger.removeFilter(hold._is_news)
    assert [record.getMessage() for record in caplog.records] == ["ended by theirs"]


@pytest.mark.parametrize("used", [True, False], ids=["has used CUDA", "has not"])
def test_a_process_that_has_used_cuda_sees_the_devices_it_saw_first(
    monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    cuda = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: used and bool(visible._seen))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(visible, "_seen", [])
    for devices, seen in (("1,3", "1,3"), ("0,1,2,3", "1,3" if used else "0,1,2,3")):
        monkeypatch.setenv(visible.VARIABLE, devices)
        visible.keep_visible_devices()
        assert os.environ[visible.VARIABLE] == seen
