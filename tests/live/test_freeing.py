"""The end of a lease goes on whatever Ray throws: a freeing that died would keep its slots for ever."""

from __future__ import annotations

from typing import Any, cast

import pytest
from heliostat_scheduler.live.freeing import Freeing, FreeingDesk
from heliostat_scheduler.live.protocol import Fact, Freed, Lease, Note
from ray.exceptions import WorkerCrashedError

from tests.live.test_loans import ONE, ZERO, loan


class Ledger:
    def __init__(self, lease: Lease) -> None:
        self.leases = {lease.job: lease}

    def forget(self, job: str, epoch: int) -> None:
        self.leases.pop(job)


class Board:
    async def sync(self, job: str) -> None: ...


class Holders:
    def forget(self, lease: Lease) -> None: ...


class Lending:
    """Takes back at the third try; what happened before that is thrown."""

    def __init__(self, *troubles: Exception) -> None:
        self.troubles = list(troubles)

    async def occupants(self, lease: Lease) -> list[Any]:
        return []

    async def take_back(self, refs: Any) -> bool:
        if self.troubles:
            raise self.troubles.pop(0)
        return True


@pytest.mark.parametrize(
    "trouble",
    [WorkerCrashedError(), RuntimeError("the probe has found [] instead of one GPU"), TimeoutError(), ValueError("name taken")],
    ids=["the probe was killed", "the probe found nothing", "Ray is slow", "the name is taken for a moment"],
)  # fmt: skip
async def test_what_ray_throws_is_told_and_tried_again(trouble: Exception) -> None:
    lease, said = loan(ZERO, ONE), list[Fact]()
    desk: Any = FreeingDesk(  # the parts that it needs here
        cast(Any, Ledger(lease)), cast(Any, Board()), cast(Any, None), cast(Any, Holders()), cast(Any, None),
        cast(Any, Lending(trouble)), said.append,
    )  # fmt: skip
    freeing = Freeing(lease.job, lease.epoch, kill_at=0.0)
    assert not await desk._step(freeing)
    (note,) = said
    assert isinstance(note, Note) and type(trouble).__name__ in note.fields["error"]
    assert await desk._step(freeing)
    assert isinstance(said[-1], Freed)
