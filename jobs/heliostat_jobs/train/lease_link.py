"""The Train controller's line to the lease board: a thread with its own event loop.

Theory: starting workers blocks the controller's event loop for seconds, and exactly then an order may come that makes the
start pointless. So orders are watched elsewhere: this thread long-polls the board, keeps the newest lease where anybody can
read it without waiting, and calls `on_change` at once (from this thread). What the controller wants to say goes into a queue
that this thread empties in order, acks first; of progress reports only the newest is kept, at most two a second.

Always true: `lease` never goes back to an older epoch; once `gone`, always gone. When the board cannot be reached the last
lease stands: a runner never lets go of its GPUs because of silence.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from heliostat_scheduler.live.protocol import Lease, LeaseGone

from heliostat_jobs.train.facts import Facts

logger = logging.getLogger(__name__)

LONG_POLL_S = 20.0
RETRY_S = 1.0
REPORT_EVERY_S = 0.5


class BoardClient(Protocol):
    """The asynchronous lease client of heliostat_scheduler.live.board."""

    async def get(self) -> Lease: ...
    async def wait(self, known_epoch: int, timeout_s: float) -> Lease: ...
    async def ack(self, epoch: int, what: str, facts: Facts) -> None: ...
    async def report(self, facts: Facts) -> None: ...


class LeaseLink:
    """Watches one lease and speaks for its runner. `connect` is called once, in the thread. see: what of a lease is the runner's."""

    def __init__(
        self,
        connect: Callable[[], BoardClient],
        lease: Lease,
        on_change: Callable[[], None],
        see: Callable[[Lease], Lease] = lambda lease: lease,
    ) -> None:
        self.lease = lease
        self.gone = False
        self._connect = connect
        self._on_change = on_change
        self._see = see
        self._loop = asyncio.new_event_loop()
        self._client: BoardClient | None = None
        self._acks: list[tuple[int, str, Facts]] = []
        self._report: Facts = {}
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="heliostat-lease", daemon=True)

    # ---- the controller's side (any thread) --------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def ack(self, epoch: int, what: str, facts: Mapping[str, Any] | None = None) -> None:
        """Say it soon, after everything said before."""
        self._loop.call_soon_threadsafe(self._enqueue, epoch, what, dict(facts or {}))

    def report(self, facts: Mapping[str, Any]) -> None:
        """Say it soon, unless something newer replaces it first; facts that the newer report lacks are kept."""
        self._loop.call_soon_threadsafe(self._merge, dict(facts))

    def refresh(self, timeout_s: float) -> Lease:
        """Ask the board now and wait for its answer (in error paths only). The last known lease when it does not answer."""
        future = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            logger.warning("lease board did not answer within %.1f s; the last known lease stands", timeout_s)
        return self.lease

    async def flushed(self, timeout_s: float) -> bool:
        """Wait until everything said so far was taken by the board."""
        future = asyncio.run_coroutine_threadsafe(self._until_quiet(), self._loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            return False
        return True

    def wait_said(self, timeout_s: float) -> bool:
        """`flushed` for a thread without an event loop."""
        future = asyncio.run_coroutine_threadsafe(self._until_quiet(), self._loop)
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            return False
        return True

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread. What was not said is not said."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    # ---- the thread's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._client = self._connect()
        self._quiet.set()
        tasks = [
            self._loop.create_task(work()) for work in (self._watch, self._ack_in_order, self._report_now_and_then)
        ]
        self._loop.run_forever()
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _watch(self) -> None:
        while not self.gone:
            try:
                self._adopt(await self._board().wait(self.lease.epoch, LONG_POLL_S))
            except LeaseGone:
                self._lose()
            except Exception as error:  # noqa: BLE001  # whatever keeps the board away: wait for it, hold the lease
                logger.warning("lease board not reachable (%s); the last known lease stands", error)
                await asyncio.sleep(RETRY_S)

    async def _ask(self) -> None:
        try:
            self._adopt(await self._board().get())
        except LeaseGone:
            self._lose()
        except Exception as error:  # noqa: BLE001  # as in _watch
            logger.warning("lease board not reachable (%s); the last known lease stands", error)

    def _adopt(self, lease: Lease) -> None:
        if lease.epoch > self.lease.epoch:
            self.lease = self._see(lease)
            self._on_change()

    def _lose(self) -> None:
        self.gone = True
        self._on_change()

    async def _ack_in_order(self) -> None:
        while True:
            await self._news.wait()
            while self._acks:
                if await self._said(self._board().ack, *self._acks[0]):
                    self._acks.pop(0)
            self._news.clear()
            self._settle()

    async def _report_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if self._report:
                facts, self._report = self._report, {}
                await self._said(self._board().report, facts)
                self._settle()

    async def _said(self, say: Callable[..., Any], *words: Any) -> bool:
        """True when it need not be said again."""
        try:
            await say(*words)
        except LeaseGone:
            self._lose()
        except Exception as error:  # noqa: BLE001  # as in _watch
            logger.warning("lease board did not take %s (%s); trying again", words, error)
            await asyncio.sleep(RETRY_S)
            return False
        return True

    async def _until_quiet(self) -> None:
        await self._quiet.wait()

    def _board(self) -> BoardClient:
        assert self._client is not None, "connected in _run before any task"
        return self._client

    def _enqueue(self, epoch: int, what: str, facts: Facts) -> None:
        self._acks.append((epoch, what, facts))
        self._quiet.clear()
        self._news.set()

    def _merge(self, facts: Facts) -> None:
        self._report = {**self._report, **facts}
        self._quiet.clear()

    def _settle(self) -> None:
        if not self._acks and not self._report:
            self._quiet.set()
