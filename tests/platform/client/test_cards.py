"""How things look: cards for notebooks, text for terminals, and other people's text that stays text."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat.client.client import Client
from heliostat.client.notebook import LiveCard
from heliostat.render.amounts import age, by_flavor, count, duration, size, sparkline
from heliostat.render.card import card_html, card_text
from heliostat.render.jobs import gpus, receipt, why
from heliostat.render.table import table
from heliostat.wire.shapes import STATES, JobJson

from tests.platform.client.fake_server import NOON, FakeServer, stamp

QUEUED: JobJson = {
    "id": "job-01", "name": "digits", "queue": "research", "state": "queued", "state_since": stamp(NOON), "position": 2,
    "reason": {"code": "InsufficientFree", "sentence": "needs 2 GPUs, 1 is free", "facts": {}},
    "estimated_start": "2026-01-31T12:12:00Z", "gpus": {"min": 2, "max": 2, "held": 0}, "submitted_at": stamp(NOON),
}  # fmt: skip
DONE: JobJson = {
    "id": "job-01", "name": "digits", "queue": "research", "state": "succeeded", "gpus": {"min": 2, "max": 2, "held": 0},
    "metrics": {"accuracy": 0.9712345}, "waited_s": 4, "ran_s": 61.2, "attempts": 2, "gpu_seconds": {"held": 122.4, "used": 100.0},
}  # fmt: skip


def test_a_waiting_job_as_text() -> None:
    assert card_text(QUEUED, NOON) == (
        "◔  job-01  digits  queued  2/- GPUs  for 0s\n   needs 2 GPUs, 1 is free; position 2; starts in about 12m"
    )


def test_a_finished_job_as_text() -> None:
    assert card_text(DONE, NOON) == (
        "✔  job-01  digits  succeeded  2 GPUs\n   accuracy 0.9712, ran 1m 1s\n"
        "   waited 4s, ran 1m 1s, 2 attempts, 122.4 GPU-seconds held, 100 used"
    )


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_card(state: str) -> None:
    html = card_html({**QUEUED, "state": state}, NOON)
    assert state in html and "<script" not in html
    assert html.count("<div") == html.count("</div>")


def test_other_peoples_text_is_escaped() -> None:
    nasty: JobJson = {**QUEUED, "name": "<img src=x onerror=alert(1)>", "reason": {"sentence": "<s>&"}, "id": "<i>"}
    html = card_html(nasty, NOON, [{"name": "<u>", "value": 1.0}])
    assert "<img" not in html and "<s>&" not in html and "<i>" not in html and "<u>" not in html
    assert "\x1b" not in table(("A",), [("\x1b[31mred\n",)])


def test_a_job_shows_itself_everywhere(client: Client) -> None:
    from rich.console import Console

    job = client.submit(["x"], name="digits")
    bundle = job._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"} and "digits" in bundle["text/html"]
    console = Console(record=True, width=80, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(job)
    assert "queued" in console.export_text()
    assert repr(job) == "<Job job-01 queued>"
    assert "JOB" in client.jobs().text() and "<pre" in client.jobs()._repr_html_()
    assert "[" in client.queues().__rich__() or client.queues().text()


class Display:
    """What IPython's display() returns, as far as it is used."""

    shown: list[dict[str, str]]

    def __init__(self) -> None:
        self.shown = []

    def __call__(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Display:
        assert raw and display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        self.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """A surrounding that looks like a notebook's kernel."""
    display = Display()
    shell = SimpleNamespace(kernel=object(), execution_count=7)
    fake: Any = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return display


def test_waiting_in_a_notebook_updates_one_card(client: Client, server: FakeServer, notebook: Display) -> None:
    job = client.submit(["x"], name="digits")
    server.script(job.id, {}, {"state": "running", "reason": None}, {}, {"state": "succeeded", "ran_s": 3})
    job.wait()
    told = [
        next(state for state in ("queued", "running", "succeeded") if state in bundle["text/plain"])
        for bundle in notebook.shown
    ]
    assert told[0] == "queued" and told[-1] == "succeeded" and "running" in told
    assert job._repr_mimebundle_() == {"text/plain": "<Job job-01 succeeded>"}, "no second card as the cell's result"
    sys.modules["IPython"].get_ipython().execution_count = 8
    assert "text/html" in job._repr_mimebundle_()


def test_a_terminal_gets_no_card(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=SimpleNamespace))
    card = LiveCard(client.submit(["x"]))
    card.update()
    assert card._display is None


GPUS = [
    pytest.param({"min": 8, "max": 8, "held": 0}, "queued", "8/-", id="wants eight, has none"),
    pytest.param({"min": 2, "max": 8, "held": 5}, "running", "5/2+", id="holds five, needs two, takes more"),
    pytest.param({"min": 2, "max": 2, "held": 2}, "running", "2/2", id="has what it asked for"),
    pytest.param({"min": 0, "max": 0, "held": 0}, "running", "-", id="needs none"),
    pytest.param({"min": 2, "max": 4, "held": 0}, "succeeded", "2+", id="is over"),
    pytest.param({"min": 0.5, "max": 0.5, "held": 0.5}, "running", "0.5/0.5", id="half a GPU"),
]


@pytest.mark.parametrize(("amounts", "state", "expected"), GPUS)
def test_the_gpus_column(amounts: Any, state: str, expected: str) -> None:
    assert gpus({"gpus": amounts, "state": state}) == expected


WHY = [
    pytest.param(
        {"state": "running", "attempts": 2, "reason": {"sentence": "grew 2 -> 5"}},
        "grew 2 -> 5; attempt 2",
        id="running",
    ),
    pytest.param({"state": "failed", "error": "out of memory"}, "out of memory", id="failed with a message"),
    pytest.param({"state": "failed", "exit_code": 3, "ran_s": 0.4}, "exit code 3, ran 0.4s", id="failed with a code"),
    pytest.param({"state": "cancelled"}, "never ran", id="cancelled before it ran"),
    pytest.param({"state": "queued"}, "submitted a moment ago", id="queued without a reason yet"),
]


@pytest.mark.parametrize(("job", "expected"), WHY)
def test_the_why_column(job: JobJson, expected: str) -> None:
    assert why(job, NOON) == expected


def test_amounts() -> None:
    assert [duration(s) for s in (0.04, 12, 245, 3900, 86400 * 2 + 3700, None)] == [
        "0s",
        "12s",
        "4m 5s",
        "1h 5m",
        "2d 1h",
        "-",
    ]
    assert [age(s) for s in (3, 240, 7200, 200000)] == ["3s", "4m", "2h", "2d"]
    assert [count(n) for n in (2.0, 0.5, None)] == ["2", "0.5", "-"]
    assert by_flavor({"b": 2, "a": None, "c": 0, "memory": 2**30}) == "a unlimited, b 2, memory 1 GiB"
    assert [by_flavor(value) for value in ({"gpu": 0}, {}, None, 3)] == ["0", "-", "-", "3"]
    assert [size(b) for b in (512, 1536 * 1024**2)] == ["512 B", "1.5 GiB"]
    assert sparkline([1, 2, 3]) == "▁▅█" and sparkline([]) == "" and sparkline([1, 1]) == "▄▄"
    assert receipt({}) == "waited 0s, ran 0s, 0 attempts"


def test_columns_line_up_in_every_script() -> None:
    text = table(("NAME", "N"), [("数字", "1"), ("abc", "22")], right=frozenset({"N"}))
    assert text == "NAME   N\n数字   1\nabc   22"
    assert table(("A",), [("x" * 50,)], width=10) == "A\n" + "x" * 9 + "…"
