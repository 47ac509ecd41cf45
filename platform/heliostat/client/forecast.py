"""What would happen if, how past estimates held, who held what: the SDK's answers, as lists of rows with a text and a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from heliostat.client.asking import Command, Target, command_of, span_s
from heliostat.client.listing import Listing, Shown
from heliostat.render.forecast import report_text, whatif_text
from heliostat.wire.call import segment

if TYPE_CHECKING:
    from heliostat.client.client import Client

Row = dict[str, Any]  # Any: JSON
DAY_S = 24 * 3600.0
COLUMNS = ("job", "queue", "change", "before", "after", "by_s", "after_from", "after_until")
WHATIF_S, REPLAY_S = 150.0, 630.0
"""How long an answer may take."""


class WhatIf(Listing[Row]):
    """The jobs that would start at another time, the soonest first. `raw` is the API's document.

    Columns: job, queue, change (earlier, later, new; again: it runs now and starts again after an eviction), before, after, by_s;
    after_from and after_until, between which `after` lies for the share of the jobs that `raw["band_share"]` names (None: too many jobs
    wait for that).
    """

    def __init__(self, raw: Row) -> None:
        super().__init__(
            raw["rows"], lambda _rows: whatif_text(raw, datetime.now(UTC)), whatif_text(raw, datetime.now(UTC))
        )
        self.raw = raw

    @property
    def evicted(self) -> list[Row]:
        """Running jobs that would be evicted more often than without the change."""
        return list(self.raw["evicted"])

    @property
    def cost(self) -> Row:
        return dict(self.raw["cost"])

    def to_dataframe(self) -> Any:  # Any: a pandas.DataFrame; the SDK itself does without pandas
        """The rows as a DataFrame with times and timedeltas; needs pandas."""
        pandas = import_module("pandas")
        frame = pandas.DataFrame(list(self), columns=list(COLUMNS))
        for name in ("before", "after", "after_from", "after_until"):
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        frame["by"] = pandas.to_timedelta(frame.pop("by_s"), unit="s")
        return frame


class EtaReport(Shown):
    """How well past estimates held. `raw` is the API's document."""

    def __init__(self, raw: Row) -> None:
        self.raw = raw

    @property
    def coverage(self) -> float | None:
        """How many jobs started no later than the p90 that they were told first, 0 to 1."""
        return cast("float | None", self.raw["all"].get("p90_held"))

    def text(self) -> str:
        return report_text(self.raw)


class ForecastCalls:
    """Everything under /whatif, /forecast, /timeline, /replay and /records."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def whatif(
        self,
        *,
        quota: str | Mapping[str, float] | Sequence[str] = (),
        nodes: str | Sequence[str] = (),
        cancel: str | Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,  # Any: field values of the policy
        queues: str = "",
        job: Row | None = None,
        target: Target | None = None,
        horizon: float | str | timedelta = DAY_S,
        arrivals: bool = False,
        **asked: Any,  # Any: as submit
    ) -> WhatIf:
        """What would change if all of this were so: quotas, more nodes, cancelled jobs, another policy, one more job."""
        body: Row = {
            "quota": [f"{name}={gpus:g}" for name, gpus in quota.items()]
            if isinstance(quota, Mapping)
            else _many(quota),
            "nodes": _many(nodes),
            "cancel": _many(cancel),
            "policy": dict(policy or {}),
            "queues": queues,
            "horizon_s": span_s(horizon, "horizon"),
            "arrivals": arrivals,
        }
        if target is not None:
            command = command_of(target, None)
            job = self._client.request_of(Command(command.argv, command.line), asked)
        if job is not None:
            body["job"] = job
        return WhatIf(self._client.caller.json("POST", "/whatif", body, timeout_s=WHATIF_S))

    def report(self, queue: str | None = None) -> EtaReport:
        return EtaReport(self._client.caller.json("GET", "/forecast/report", query={"queue": queue}))

    def explain_queue(self, name: str) -> Row:
        return cast("Row", self._client.caller.json("GET", f"/queues/{segment(name)}/explanation"))

    def timeline(self, since: float | str | timedelta = 3600.0, until_ms: int | None = None) -> Row:
        """Spans of leases. since: how far back from `until_ms` (default: now)."""
        end = until_ms if until_ms is not None else int(datetime.now(UTC).timestamp() * 1000)
        window = span_s(since, "since")
        query = {"from_ms": end - int(1000 * window), "to_ms": end}
        return cast("Row", self._client.caller.json("GET", "/timeline", query=query))

    def replay(self, first: int | None = None, last: int | None = None) -> Row:
        return cast(
            "Row", self._client.caller.json("POST", "/replay", query={"first": first, "last": last}, timeout_s=REPLAY_S)
        )

    def records(self) -> Row:
        return cast("Row", self._client.caller.json("GET", "/records", timeout_s=WHATIF_S))

    def audit(self, after: int = 0, limit: int = 100) -> Row:
        return cast("Row", self._client.caller.json("GET", "/audit", query={"after": after, "limit": limit}))


def _many(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
