"""A process's door to the slot broker: what it says when the broker is gone, and while a trainer waits for slots."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.errors import BrokerLost, JobError, LeaseLost, NeverFits
from heliostat_jobs.slots import access as module
from heliostat_jobs.slots.access import SlotAccess
from heliostat_jobs.slots.crash import EXIT_CODE, is_by_broker
from heliostat_scheduler.live.protocol import NAMESPACE, RUN, Lease, SlotRef
from ray.exceptions import RayActorError

SLOT = SlotRef("n/0", "ab" * 14, "cd" * 28, 0)
LEASE = Lease("job-1", 2, 1, "ray", RUN, "secret", 1, (SLOT,))


@pytest.fixture
def access(tmp_path: Path) -> SlotAccess:
    return SlotAccess(Attempt("job-1", 2, tmp_path, tmp_path, "secret"))


def gone(attempt: Attempt) -> Lease:
    raise LeaseLost("Attempt 2 of job job-1 holds no lease any more.", "Nothing is lost.")


@pytest.mark.parametrize(
    ("board", "error", "says"),
    [
        pytest.param(lambda attempt: LEASE, BrokerLost, "slots of job job-1 has died.*tried again", id="the lease stands"),
        pytest.param(gone, LeaseLost, "holds no lease any more", id="the lease is gone"),
    ],
)  # fmt: skip
def test_a_dead_broker_is_told_as_what_it_is(
    access: SlotAccess, monkeypatch: pytest.MonkeyPatch, board: Any, error: type[JobError], says: str
) -> None:
    def dead(ref: object, timeout: float | None) -> None:
        raise RayActorError

    method = SimpleNamespace(remote=lambda *args: None)
    monkeypatch.setattr(access, "broker", lambda: SimpleNamespace(lease=method))
    monkeypatch.setattr(module, "ray", SimpleNamespace(get=dead))
    monkeypatch.setattr(module, "current_lease", board)
    with pytest.raises(error, match=says):
        access.lease()


@pytest.mark.parametrize(("slots", "pinned"), [((SLOT,), SLOT.node), ((), "DEFAULT")])
def test_the_broker_is_made_on_the_node_of_the_first_slot(
    access: SlotAccess, monkeypatch: pytest.MonkeyPatch, slots: tuple[SlotRef, ...], pinned: str
) -> None:
    made: dict[str, Any] = {}

    def nobody(name: str, namespace: str) -> None:
        assert (name, namespace) == ("heliostat-slots:job-1:2", NAMESPACE)
        raise ValueError(name)

    def options(**given: Any) -> Any:
        made.update(given)
        return SimpleNamespace(remote=lambda *args: "handle")

    monkeypatch.setattr(module, "current_lease", lambda attempt: SimpleNamespace(slots=slots))
    context = SimpleNamespace(get_job_id=lambda: "01")
    fake = SimpleNamespace(
        is_initialized=lambda: True,
        get_runtime_context=lambda: context,
        get_actor=nobody,
        remote=lambda **_: lambda cls: SimpleNamespace(options=options),
    )
    monkeypatch.setattr(module, "ray", fake)
    assert access.broker() == "handle"
    strategy = made["scheduling_strategy"]
    assert getattr(strategy, "node_id", strategy) == pinned
    assert getattr(strategy, "soft", True), "a node that is gone must not keep it from being made"


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("the search failed") from cause
    except RuntimeError as outer:
        return outer


LOST = BrokerLost("It has died.", "Tried again.")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(LOST, True, id="as it is"),
        pytest.param(wrapped(LOST), True, id="wrapped"),
        pytest.param(SimpleNamespace(cause=LOST, __cause__=None, __suppress_context__=True), True, id="of a task"),
        pytest.param(wrapped(LeaseLost("x", "y")), False, id="another one"),
        pytest.param(ValueError(), False, id="the script's own"),
    ],
)
def test_what_counts_as_a_crash(error: Any, expected: bool) -> None:
    assert is_by_broker(error) is expected


@pytest.mark.parametrize(("raised", "code"), [("BrokerLost('a', 'b')", EXIT_CODE), ("ValueError('a')", 1)])
def test_the_driver_ends_with_the_code_of_a_crash(raised: str, code: int) -> None:
    script = f"from heliostat_jobs.errors import *\nfrom heliostat_jobs.slots.crash import install\ninstall()\nraise {raised}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert raised.split("(")[0] in ended.stderr, "the stack trace is printed as always"


class Waiting:
    """A broker that has nothing for the first `rounds` questions."""

    def __init__(self, rounds: int, stuck: bool) -> None:
        self.rounds, self.stuck = rounds, stuck

    def __call__(self, method: str, *args: Any, timeout_s: float | None = 1.0) -> Any:
        if method == "waits_for":
            return {"n/0": ["t2"]}, self.stuck
        assert args == ("fit-1", "t1", "worker", 1, 4, module.PATIENCE_S), "the same claim each time"
        self.rounds -= 1
        return None if self.rounds >= 0 else LEASE


def test_a_trainer_that_waits_says_for_whom(
    access: SlotAccess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "ask", Waiting(2, stuck=False))
    monkeypatch.setattr(access, "holder", lambda: "worker")
    with caplog.at_level(logging.WARNING):
        assert access.claim("fit-1", "t1", 1, 4) == LEASE
    assert [record.getMessage() for record in caplog.records] == [
        "The trainer in trial t1 waits for 1 free slots of its job; held: n/0 by t2"
    ] * 2


def test_a_trainer_that_would_wait_for_ever_is_refused(access: SlotAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ask", Waiting(1, stuck=True))
    monkeypatch.setattr(access, "holder", lambda: "worker")
    with pytest.raises(NeverFits, match=r"trial t1 needs 1 slots.*n/0 by t2.*no GPU of their own"):
        access.claim("fit-1", "t1", 1, 4)
