"""What the lease board answers to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat_scheduler.live import protocol as p
from heliostat_scheduler.live.board_state import PROGRESS, BoardEmpty, BoardState, StaleTerm
from heliostat_scheduler.live.protocol import Lease, LeaseGone

LEASE = Lease("job", 1, 1, "ray", p.RUN, "secret", 1)


@pytest.fixture
def board() -> BoardState:
    board = BoardState()
    board.install(5, (LEASE,))
    return board


def test_a_new_board_says_empty_not_gone() -> None:
    with pytest.raises(BoardEmpty):
        BoardState().get("job", "secret")


@pytest.mark.parametrize("job, secret", [("job", "wrong"), ("job", ""), ("another", "secret")])
def test_without_the_secret_there_is_no_lease(board: BoardState, job: str, secret: str) -> None:
    with pytest.raises(LeaseGone):
        board.get(job, secret)
    with pytest.raises(LeaseGone):
        board.ack(job, secret, 1, p.STARTED, {})


def test_a_revoked_lease_is_gone_but_its_last_words_count(board: BoardState) -> None:
    board.put(5, replace(LEASE, epoch=2, order=p.REVOKED))
    with pytest.raises(LeaseGone):
        board.get("job", "secret")
    board.ack("job", "secret", 2, p.EXITED, {"rc": 137})
    with pytest.raises(LeaseGone):
        board.ack("job", "secret", 2, PROGRESS, {"step": 1})
    assert [said.what for said in board.after(0)] == [p.EXITED]


def test_an_older_term_can_not_write(board: BoardState) -> None:
    with pytest.raises(StaleTerm):
        board.put(4, LEASE)
    with pytest.raises(StaleTerm):
        board.drop(4, "job")
    with pytest.raises(StaleTerm):
        board.install(4, ())


def test_an_older_epoch_changes_nothing(board: BoardState) -> None:
    board.put(5, replace(LEASE, epoch=3))
    board.put(5, LEASE)
    assert board.get("job", "secret").epoch == 3


def test_words_are_heard_once_and_again_from_the_beginning(board: BoardState) -> None:
    board.ack("job", "secret", 1, p.STARTED, {"pid": 1})
    board.ack("job", "secret", 1, p.STARTED, {"pid": 1})
    for step in range(3):
        board.ack("job", "secret", 0, PROGRESS, {"step": step})
    assert [(said.what, said.facts) for said in board.after(0)] == [(p.STARTED, {"pid": 1}), (PROGRESS, {"step": 2})]
    assert board.after(board.seq) == ()


def test_a_new_attempt_starts_in_silence(board: BoardState) -> None:
    board.ack("job", "secret", 1, p.STARTED, {})
    board.put(5, replace(LEASE, attempt=2, epoch=4, secret="new"))
    assert board.after(0) == ()
    with pytest.raises(LeaseGone):
        board.get("job", "secret")


def test_install_keeps_the_words_of_attempts_that_go_on(board: BoardState) -> None:
    board.put(5, replace(LEASE, job="other"))
    for job in ("job", "other"):
        board.ack(job, "secret", 1, p.STARTED, {})
    board.install(6, (LEASE,))
    assert [said.job for said in board.after(0)] == ["job"]
