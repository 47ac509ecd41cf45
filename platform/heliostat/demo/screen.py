"""The audience at a terminal: acts and typed commands stay, the jobs below them move. Without a terminal, one line per change."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from heliostat.demo.stage import Audience, Glance
from heliostat.render.jobs import ICONS, gpus, job_line, why
from heliostat.wire.shapes import JobJson

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from heliostat.local import Step


class Lines(Audience):
    """For pipes and logs: prints to standard error, only what changed."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def step(self, step: Step) -> None:
        if step.state != "start":
            self._print(f"  {step.text}")

    def act(self, title: str) -> None:
        self._print(f"\n== {title}")

    def typed(self, line: str) -> None:
        self._print(f"$ {line}")

    def said(self, text: str) -> None:
        self._print("\n".join(f"  {line}" for line in text.splitlines()))

    def glance(self, glance: Glance) -> None:
        for job in glance.jobs:
            steps = glance.steps.get(job["id"], 0)
            shown = steps // 200 * 200 if job.get("state") == "running" else 0
            hundreds = f" ({shown}+ of {glance.totals[job['id']]} steps)" if shown else ""
            key = f"{job.get('state')} {(job.get('reason') or {}).get('code')} {job.get('attempts')} {gpus(job)} {hundreds}"
            if self._said.get(job["id"]) != key:
                self._said[job["id"]] = key
                self._print(f"  [{glance.seconds:4.0f} s] {job_line(job, datetime.now(UTC))}{hundreds}")

    def _print(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Screen(Audience):
    """For people: a live panel of the jobs under the story so far."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def step(self, step: Step) -> None:
        if step.state == "start":
            self._live.update(f"… {step.text}", refresh=True)
        else:
            self._live.update("")
            self._console.print(f"✔ {step.text}", markup=False)

    def act(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")

    def typed(self, line: str) -> None:
        self._console.print(f"$ {line}", style="cyan", markup=False, soft_wrap=True)

    def said(self, text: str) -> None:
        self._console.print(text, markup=False)

    def glance(self, glance: Glance) -> None:
        self._live.update(_panel(glance), refresh=True)


@contextmanager
def audience() -> Iterator[Lines | Screen]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live("", console=console, transient=True, auto_refresh=False) as live:
        yield Screen(console, live)


def _panel(glance: Glance) -> RenderableType:
    from rich.table import Table

    grid = Table(title=f"{glance.seconds:.0f} s", title_justify="right", expand=True)
    for name in ("job", "queue", "state", "GPUs", "steps", "why"):
        grid.add_column(name, overflow="fold")
    for job in glance.jobs:
        state = job.get("state", "?")
        cells = (
            job["id"],
            job.get("queue", ""),
            f"{ICONS.get(state, '•')} {state}",
            gpus(job),
            _bar(job, glance),
            why(job, datetime.now(UTC)),
        )
        grid.add_row(*(cell.replace("[", r"\[") for cell in cells))
    return grid


def _bar(job: JobJson, glance: Glance, width: int = 20) -> str:
    steps = glance.steps.get(job["id"], 0)
    if not steps:
        return ""
    total = glance.totals[job["id"]]
    full = round(width * min(1.0, steps / total))
    return "█" * full + "░" * (width - full) + f" {steps}/{total}"
