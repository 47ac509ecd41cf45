"""Dynamic batching without a timer. One thread computes; what arrives meanwhile is the next batch.

A model that answers in under `inline_ms` is called at once in the event loop: handing it to a thread would cost more than the call.
A slower one gets the thread, and calls that queued while it computed are put together along the first dimension, up to `max_rows`.
At low load nothing ever waits for company; under load the batch grows by itself. `wait_ms` > 0 adds a wait, for a GPU that is much
cheaper per row. The cost of a call is watched (moving average per call of one row or more), so the way is chosen by measurement.

Only calls whose tensors agree in all but the first dimension go together. When a batch fails, its calls are tried one by one: one
caller's data never fails another's call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from heliostat_serving.model.loading import Predict
from heliostat_serving.spec import Batching
from heliostat_serving.wire.tensors import Tensors

SMOOTHING = 0.1
OUTLIER = 2.0
"""A call counts as at most so many times the usual one: on a crowded machine one in twenty is interrupted for 20 ms, and a model of
0.1 ms must not be handed to a thread for that. One that has really become slow is found out within some 25 calls."""
LEAST_S = 0.0001


@dataclass(slots=True)
class Waiting:
    inputs: Tensors
    rows: int
    answer: asyncio.Future[Tensors]


class Batcher:
    """`run` from one event loop only. `batched`: whether the signature lets rows be put together."""

    def __init__(
        self,
        predict: Predict,
        batching: Batching,
        batched: bool,
        cost_s: float,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._predict = predict
        self._batching = batching
        self._batched = batched and batching.mode == "adaptive"
        self._cost_s = cost_s
        self._clock_s = clock_s
        self._queue: deque[Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heliostat-predict")
        self._since_s: float | None = None
        self.calls = 0
        self.batches = 0

    @property
    def inline(self) -> bool:
        return self._cost_s * 1000 < self._batching.inline_ms

    def busy_s(self) -> float:
        """How long the call that computes now has been at it."""
        since_s = self._since_s
        return 0.0 if since_s is None else self._clock_s() - since_s

    async def run(self, inputs: Tensors, rows: int) -> Tensors:
        self.calls += 1
        if self._worker is None and self.inline:
            return self._timed(inputs)
        waiting = Waiting(inputs, rows, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        """Lives while there is a queue."""
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                if self._batching.wait_ms and self._batched:
                    await asyncio.sleep(self._batching.wait_ms / 1000)
                batch = self._next()
                if batch:
                    found = await loop.run_in_executor(self._thread, self._answers, batch)
                    for waiting, answer in zip(batch, found, strict=True):
                        _settle(waiting.answer, answer)
        finally:
            self._worker = None

    def _next(self) -> list[Waiting]:
        """The calls at the head of the queue that go together; whose caller has gone is dropped."""
        batch: list[Waiting] = []
        rows = 0
        while self._queue:
            head = self._queue[0]
            if head.answer.done():
                self._queue.popleft()
                continue
            fits = not batch or (
                self._batched and rows + head.rows <= self._batching.max_rows and _alike(head.inputs, batch[0].inputs)
            )
            if not fits:
                break
            batch.append(self._queue.popleft())
            rows += head.rows
        return batch

    def _answers(self, batch: list[Waiting]) -> list[Tensors | Exception]:
        """In the thread."""
        if len(batch) == 1:
            return [self._tried(batch[0].inputs)]
        names = batch[0].inputs.keys()
        together = {name: np.concatenate([waiting.inputs[name] for waiting in batch]) for name in names}
        outputs = self._tried(together)
        if isinstance(outputs, Exception):
            return [self._tried(waiting.inputs) for waiting in batch]
        parts: list[Tensors | Exception] = []
        at = 0
        for waiting in batch:
            parts.append({name: array[at : at + waiting.rows] for name, array in outputs.items()})
            at += waiting.rows
        return parts

    def _tried(self, inputs: Tensors) -> Tensors | Exception:
        try:
            return self._timed(inputs)
        except Exception as error:  # noqa: BLE001  (whatever a model raises is its caller's answer)
            return error

    def _timed(self, inputs: Tensors) -> Tensors:
        begun_s = self._since_s = self._clock_s()
        try:
            outputs = self._predict(inputs)
        finally:
            self._since_s = None
        took_s = min(self._clock_s() - begun_s, OUTLIER * max(self._cost_s, LEAST_S))
        self._cost_s += SMOOTHING * (took_s - self._cost_s)
        self.batches += 1
        return outputs


def _alike(one: Tensors, other: Tensors) -> bool:
    return all(one[name].shape[1:] == array.shape[1:] for name, array in other.items())


def _settle(future: asyncio.Future[Tensors], answer: Tensors | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
