"""The controller's line to the lease board, against a board in memory: newest lease, order of acks, silence, loss."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from heliostat_jobs.train import lease_link
from heliostat_jobs.train.lease_link import LeaseLink
from heliostat_scheduler.live.protocol import PREEMPT, RUN, Lease, LeaseGone

FIRST = Lease("job-1", 1, 1, "ray", RUN, "secret", tasks=2)


class Board:
    """Answers in the link's thread; tests change it from theirs."""

    def __init__(self) -> None:
        self.lease: Lease | None = FIRST
        self.down = False
        self.said: list[tuple[Any, ...]] = []
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def get(self) -> Lease:
        if self.down:
            raise ConnectionError("no board")
        if self.lease is None:
            raise LeaseGone("revoked")
        return self.lease

    async def wait(self, known_epoch: int, timeout_s: float) -> Lease:
        self._loop = asyncio.get_running_loop()
        while True:
            lease = await self.get()
            if lease.epoch != known_epoch:
                return lease
            await self._bell.wait()
            self._bell.clear()

    async def ack(self, epoch: int, what: str, facts: dict[str, Any]) -> None:
        await self.get()
        self.said.append((epoch, what, facts))

    async def report(self, facts: dict[str, Any]) -> None:
        await self.get()
        self.said.append(("report", facts))

    def put(self, lease: Lease | None) -> None:
        self.lease = lease
        until(lambda: self._loop is not None, "the link listens")
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._bell.set)


def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < deadline, f"not within 5 s: {what}"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_link, "RETRY_S", 0.01)
    monkeypatch.setattr(lease_link, "REPORT_EVERY_S", 0.02)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def link(board: Board, changes: list[str]) -> Iterator[LeaseLink]:
    made = LeaseLink(lambda: board, FIRST, lambda: changes.append(threading.current_thread().name))
    made.start()
    yield made
    made.stop()
    made.join(5)


def test_an_order_arrives_in_the_links_own_thread(link: LeaseLink, board: Board, changes: list[str]) -> None:
    board.put(replace(FIRST, epoch=2, order=PREEMPT))
    until(lambda: link.lease.order == PREEMPT, "the order")
    assert changes == ["heliostat-lease"]


def test_an_older_epoch_is_ignored(link: LeaseLink, board: Board) -> None:
    board.put(replace(FIRST, epoch=5))
    until(lambda: link.lease.epoch == 5, "epoch 5")
    board.lease = replace(FIRST, epoch=4)
    assert link.refresh(2.0).epoch == 5


def test_a_revoked_lease_is_gone(link: LeaseLink, board: Board, changes: list[str]) -> None:
    board.put(None)
    until(lambda: link.gone, "gone")
    assert changes and link.lease == FIRST


def test_silence_of_the_board_changes_nothing(link: LeaseLink, board: Board) -> None:
    board.down = True
    assert link.refresh(0.2) == FIRST and not link.gone
    board.down = False
    board.put(replace(FIRST, epoch=2))
    until(lambda: link.lease.epoch == 2, "the next epoch")


async def test_acks_keep_their_order_and_outlive_silence(link: LeaseLink, board: Board) -> None:
    board.down = True
    for number in range(5):
        link.ack(number, "started", {"n": number})
    board.down = False
    assert await link.flushed(5)
    assert [said[0] for said in board.said] == [0, 1, 2, 3, 4]


async def test_of_reports_only_the_newest_facts_are_sent(link: LeaseLink, board: Board) -> None:
    for step in range(100):
        link.report({"step": step})
    link.report({"loss": 0.5})
    assert await link.flushed(5)
    reports = [said[1] for said in board.said]
    assert (
        len(reports) <= 3 and {"step": 99, "loss": 0.5}.items() <= {k: v for r in reports for k, v in r.items()}.items()
    )
