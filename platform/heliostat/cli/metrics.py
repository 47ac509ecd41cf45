"""`helio metrics`: what a job reported, plotted in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.render.amounts import parse_time
from heliostat.render.plot import plot
from heliostat.wire.shapes import MetricJson

SHOWN = 4


@click.command()
@click.argument("job")
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Print each point as it comes, until the job is over.")
@json_option
@pass_app
def metrics(app: App, job: str, name: str | None, follow: bool, as_json: bool) -> None:
    """Plot what JOB reported: steps, loss, samples per second, GPU utilization. NAME: only this metric."""
    handle = app.client().job(job)
    if follow:
        for point in handle.follow_metrics(name):
            show_json(point) if as_json else show(_line(point))
        return
    points = [point for point in handle.metrics() if name in (None, point.get("name"))]
    if as_json:
        show_json({"items": points})
        return
    series = by_name(points)
    if not series:
        hint(f"{job} has reported nothing{f' called {name}' if name else ''} yet ({handle.data.get('state')}).")
        return
    for title in sorted(series, key=lambda title: ("/" in title, title))[: SHOWN if name is None else None]:
        steps = all(point.get("step") is not None for point in series[title])
        show(plot(title, _curve(series[title], steps), width() or 80, unit="step" if steps else "seconds"))
    if name is None and len(series) > SHOWN:
        hint(f"more: {', '.join(sorted(series)[:20])}. Plot one with: helio metrics {job} NAME")


def by_name(points: Iterable[MetricJson]) -> dict[str, list[MetricJson]]:
    """Points of each metric, oldest first; what cannot be plotted (no value) is left out."""
    series: dict[str, list[MetricJson]] = {}
    for point in points:
        if "value" in point:
            series.setdefault(point.get("name", "?"), []).append(point)
    return series


def _curve(points: list[MetricJson], steps: bool) -> list[tuple[float, float]]:
    """By step where every point has one, else by seconds since the first. A step that was done again counts as its last report."""
    if steps:
        latest = {float(point.get("step") or 0): point["value"] for point in points}
        return sorted(latest.items())
    times = [parse_time(point.get("at")) for point in points]
    first = next((at for at in times if at is not None), None)
    return [
        ((at - first).total_seconds(), point["value"])
        for at, point in zip(times, points, strict=True)
        if at is not None and first is not None
    ]


def _line(point: MetricJson) -> str:
    step = f"step {point['step']}  " if point.get("step") is not None else ""
    return f"{point.get('at', '?')}  {step}{point.get('name', '?')} {point.get('value', 0.0):.6g}"
