"""What the SDK returns where the API returns a list or a document: the data, and a form to look at in any surrounding.

A `Listing` is a real list. In a notebook it shows as a table, in a terminal as aligned text, under rich as text as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from typing import TypeVar

from heliostat.render.explain import endpoint_text, explanation_text
from heliostat.wire.shapes import EndpointExplanationJson, ExplanationJson, MetricJson, RemedyJson

T = TypeVar("T")


class Shown:
    """Something with one text that every surrounding shows in its own way."""

    def text(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text()

    def __rich__(self) -> str:
        from rich.markup import escape as escape_markup

        return escape_markup(self.text())

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        printer.text("..." if cycle else self.text())

    def _repr_html_(self) -> str:
        return f'<pre style="line-height:1.4">{escape(self.text())}</pre>'


class Listing(Shown, list[T]):
    """A list that knows how to show itself. `empty` is what it says when there is nothing."""

    def __init__(self, items: Iterable[T], show: Callable[[list[T]], str], empty: str = "nothing") -> None:
        super().__init__(items)
        self._show = show
        self._empty = empty

    def text(self) -> str:
        return self._show(list(self)) if self else self._empty

    def __reduce__(self) -> tuple[object, ...]:
        return list, (list(self),)


class Explanation(Shown):
    """Why a job is where it is. `raw` is the API's document."""

    def __init__(self, raw: ExplanationJson) -> None:
        self.raw = raw

    @property
    def code(self) -> str | None:
        """The reason's code, None when nothing holds the job back."""
        return self.raw.get("code")

    @property
    def sentence(self) -> str:
        return self.raw.get("sentence", "")

    @property
    def facts(self) -> dict[str, int | str]:
        return self.raw.get("facts", {})

    @property
    def remedies(self) -> list[RemedyJson]:
        return self.raw.get("remedies", [])

    @property
    def position(self) -> int | None:
        return self.raw.get("position")

    @property
    def estimated_start(self) -> datetime | None:
        text = self.raw.get("estimated_start")
        return datetime.fromisoformat(text) if text else None

    def text(self) -> str:
        return explanation_text(self.raw, datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<Explanation {self.code}: {self.sentence}>"

    _repr_pretty_ = Shown._repr_pretty_  # IPython takes the first class that has this or a __repr__


class EndpointExplanation(Shown):
    """Why the versions of an endpoint have the replicas that they have. `raw` is the API's document."""

    def __init__(self, raw: EndpointExplanationJson) -> None:
        self.raw = raw

    @property
    def sentence(self) -> str:
        return self.raw["sentence"]

    @property
    def short(self) -> int:
        """Replicas that its versions want and are not granted."""
        return sum(row["short"] for row in self.raw["versions"])

    def text(self) -> str:
        return endpoint_text(self.raw, datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<EndpointExplanation {self.raw['endpoint']}: {self.sentence}>"

    _repr_pretty_ = Shown._repr_pretty_  # as in Explanation


class Metrics(Listing[MetricJson]):
    """What a job reported, oldest first."""

    def series(self, name: str) -> list[tuple[int | None, float]]:
        """(step, value) of one metric."""
        return [(point.get("step"), point["value"]) for point in self if point.get("name") == name]

    def latest(self) -> dict[str, float]:
        """The last value of each metric."""
        return {point["name"]: point["value"] for point in self}


class _Printer:
    """IPython's pretty printer, as far as it is used here."""

    def text(self, text: str) -> None: ...
