"""The handle of one job. Cheap to make, safe to pickle (it carries an address and an id, never a token), awaitable.

`state` is current: it asks the server again when the last answer is older than half a second and the job is not over. All
other attributes are of the last answer; `refresh()` brings them up to date. In a notebook the handle shows as a card that
`wait()` and `await` keep up to date.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from heliostat.client.asking import Gpus, gpu_fields, memory_bytes
from heliostat.client.listing import Explanation, Metrics
from heliostat.client.logs import Logs
from heliostat.client.notebook import LiveCard, current_cell
from heliostat.render.card import card_html, card_rich, card_text
from heliostat.render.jobs import job_line
from heliostat.wire.call import PATIENT, segment
from heliostat.wire.errors import JobFailed, WaitTimeout
from heliostat.wire.shapes import TERMINAL_STATES, EventJson, JobJson, MetricJson, ReasonJson

if TYPE_CHECKING:
    from rich.panel import Panel

    from heliostat.client.client import Client
    from heliostat.client.models import ModelVersion

FRESH_S = 0.5
FIRST_POLL_S = 0.1
LONGEST_POLL_S = 1.0


class Job:
    """A job of one control plane."""

    def __init__(self, client: Client, data: JobJson) -> None:
        self._client = client
        self._data = data
        self._read_at = client.caller.now()
        self._metrics: list[MetricJson] = []
        self._card_cell: int | None = None

    # ---- what it is

    @property
    def id(self) -> str:
        return self._data["id"]

    @property
    def name(self) -> str:
        return self._data.get("name") or ""

    @property
    def state(self) -> str:
        if not self.is_over and self._client.caller.now() - self._read_at > FRESH_S:
            self.refresh()
        return self._data.get("state", "")

    @property
    def is_over(self) -> bool:
        """Whether the last answer was a terminal state."""
        return self._data.get("state") in TERMINAL_STATES

    @property
    def data(self) -> JobJson:
        """The API's document as of the last answer."""
        return self._data

    @property
    def queue(self) -> str:
        return self._data.get("queue", "")

    @property
    def reason(self) -> ReasonJson | None:
        return self._data.get("reason")

    @property
    def attempts(self) -> int:
        return self._data.get("attempts", 0)

    @property
    def exit_code(self) -> int | None:
        return self._data.get("exit_code")

    def refresh(self) -> Self:
        self._data = self._client.read_job(self.id)
        self._read_at = self._client.caller.now()
        return self

    # ---- waiting for it

    def wait(self, timeout: float | None = None, until: str | Collection[str] = "terminal") -> Self:
        """Block until the job is over, or in (one of) the states `until`; a job that ends also ends the wait.

        Raises `WaitTimeout` after `timeout` seconds; the job goes on. In a notebook its card follows along.
        """
        card = LiveCard(self)
        for pause_s in self._polls(timeout, until):
            card.update()
            self._client.caller.pause(pause_s)
        card.update()
        self._card_cell = current_cell()
        return self

    def watch(self, timeout: float | None = None, until: str | Collection[str] = "terminal") -> Iterator[Self]:
        """`wait` step by step: yields after each look at the job, the last time when the wait is over."""
        for pause_s in self._polls(timeout, until):
            yield self
            self._client.caller.pause(pause_s)
        yield self

    async def wait_async(self, until: str | Collection[str] = "terminal") -> Self:
        """`wait` without blocking the event loop; bound it with `asyncio.timeout`."""
        import asyncio  # 75 ms that a submission does not need

        card = LiveCard(self)
        polls = self._polls(None, until)
        while (pause_s := await asyncio.to_thread(next, polls, None)) is not None:
            card.update()
            await asyncio.sleep(pause_s)
        card.update()
        self._card_cell = current_cell()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.wait_async().__await__()

    def result(self, timeout: float | None = None) -> dict[str, Any]:  # Any: what the job wrote
        """The job's result.json, once it is over. Raises `JobFailed` if it did not succeed."""
        self.wait(timeout)
        if self._data.get("state") != "succeeded":
            raise self.failure()
        return self._data.get("result") or {}

    def model(self, timeout: float | None = 60.0) -> ModelVersion:
        """The model version that it registered. Waits for its end, then at most `timeout` seconds for the registry.

        Raises `JobFailed` when it did not succeed, or when its model was refused (with the reason).
        """
        self.wait()
        if self._data.get("state") != "succeeded":
            raise self.failure()
        deadline = self._client.caller.now() + (timeout if timeout is not None else float("inf"))
        while True:
            for event in self.events():
                data = event.get("data") or {}
                if event.get("kind") == "model_registered":
                    calls = self._client.models_of(self._data.get("project", ""))
                    return calls.find(f"{data['model']}:{data['version']}")
                if event.get("kind") in ("model_refused", "result_refused"):
                    code, remedy = str(data.get("code", "")), str(data.get("remedy", ""))
                    raise JobFailed(f"{self.id} registered no model. {data.get('text')}", code=code, remedy=remedy)
            if self._client.caller.now() > deadline:
                raise WaitTimeout(f"{self.id} has registered no model yet.", remedy=f"See: helio events {self.id}")
            self._client.caller.pause(FIRST_POLL_S)

    def failure(self) -> JobFailed:
        """The exception that stands for this job's end."""
        told = job_line(self._data, datetime.now(UTC))
        return JobFailed(
            f"{told}.", code=self._data.get("state", "failed"), remedy=f"Read its log: helio logs {self.id}"
        )

    # ---- what it says

    def logs(self, follow: bool = False, offset: int = 0) -> Logs:
        """Its log: iterate for lines, `str()` for all of it. `follow=True` goes on until the job is over."""
        return Logs(self._client.caller, self.id, follow=follow, offset=offset)

    def explain(self, wait: float = 10.0) -> Explanation:
        """Why it waits (or why it has what it has), with numbers and with what would help.

        wait: seconds to give to remedies that are still being tried; 0 answers at once with what is known.
        """
        return Explanation(self._client.caller.json("GET", self._path("/explanation"), query={"wait_s": wait}))

    def metrics(self) -> Metrics:
        """What it reported so far."""
        self._metrics = self._client.caller.json("GET", self._path("/metrics"))["items"]
        return Metrics(self._metrics, lambda points: card_text(self._data, datetime.now(UTC), points), "no metrics yet")

    def follow_metrics(self, name: str | None = None) -> Iterator[MetricJson]:
        """Each point from the first on, then as they come, until the job is over."""
        from heliostat.client.metrics import follow_metrics

        return follow_metrics(self._client.caller, self.id, name)

    def events(self) -> list[EventJson]:
        """Its story, oldest first."""
        return cast("list[EventJson]", self._client.caller.json("GET", self._path("/events"))["items"])

    # ---- what to do with it

    def cancel(self) -> Self:
        return self._act("/cancel")

    def hold(self) -> Self:
        return self._act("/hold")

    def release(self) -> Self:
        return self._act("/release")

    def edit(
        self,
        *,
        priority: str | int | None = None,
        queue: str | None = None,
        gpus: Gpus | None = None,
        flavor: str | None = None,
        cpus: float | None = None,
        memory: int | str | None = None,
        preemptibility: str | None = None,
        after: Sequence[str] | None = None,
    ) -> Self:
        """Change a waiting job; its priority may change at any time. after: of the jobs it waits for, those that stay (`[]`: none)."""
        asked: dict[str, object] = {"priority": priority, "queue": queue, "flavor": flavor, "cpus": cpus}
        asked |= {"preemptibility": preemptibility, "memory_bytes": memory_bytes(memory)}
        asked |= {"after": None if after is None else list(after)}
        changes = {key: value for key, value in {**asked, **gpu_fields(gpus)}.items() if value is not None}
        return self._take(self._client.caller.json("PATCH", self._path(), changes))

    def delete(self) -> None:
        """Remove a finished job and its history."""
        self._client.caller.json("DELETE", self._path())

    # ---- how it looks

    def __repr__(self) -> str:
        return f"<Job {self.id} {self._data.get('state', '?')}>"

    def __str__(self) -> str:
        return card_text(self._data, datetime.now(UTC), self._metrics)

    def __rich__(self) -> Panel:
        return card_rich(self._data, datetime.now(UTC))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Mapping[str, str]:
        """The card; a single line as the result of the cell whose wait has shown the card already."""
        if self._card_cell is not None and self._card_cell == current_cell():
            return {"text/plain": repr(self)}
        return self.card()

    def card(self) -> Mapping[str, str]:
        """Plain text and HTML of the handle as of the last answer."""
        now = datetime.now(UTC)
        return {
            "text/plain": card_text(self._data, now, self._metrics),
            "text/html": card_html(self._data, now, self._metrics),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (other.id, other._client.url) == (self.id, self._client.url)

    def __hash__(self) -> int:
        return hash((self.id, self._client.url))

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self._client.url, self._client.settings.profile, self._data)

    # ---- inside

    def _polls(self, timeout: float | None, until: str | Collection[str]) -> Iterator[float]:
        """Ask until the state is reached; yields how long to pause before asking again. Survives a restart of the server."""
        wanted = {until} if isinstance(until, str) else set(until)
        now = self._client.caller.now
        deadline = None if timeout is None else now() + timeout
        pause_s = FIRST_POLL_S
        while True:
            self._take(self._client.read_job(self.id, retry=PATIENT))
            if self.is_over or self._data.get("state") in wanted:
                return
            left = pause_s if deadline is None else deadline - now()
            if left <= 0:
                raise self._timeout(timeout or 0.0)
            yield min(pause_s, left)
            pause_s = min(pause_s * 1.3, LONGEST_POLL_S)

    def _timeout(self, timeout: float) -> WaitTimeout:
        told = job_line(self._data, datetime.now(UTC))
        return WaitTimeout(f"After {timeout:g} s: {told}.", remedy=f"It goes on. Ask why with: helio explain {self.id}")

    def _act(self, verb: str) -> Self:
        return self._take(self._client.caller.json("POST", self._path(verb)))

    def _take(self, data: JobJson) -> Self:
        self._data = data
        self._read_at = self._client.caller.now()
        return self

    def _path(self, rest: str = "") -> str:
        return f"/jobs/{segment(self.id)}{rest}"


def _restore(url: str, profile: str, data: JobJson) -> Job:
    """A handle out of a pickle: connects with the reader's own settings and token."""
    from heliostat.client.client import Client
    from heliostat.settings import load

    return Job(Client(load(url=url, profile=profile or None)), data)
