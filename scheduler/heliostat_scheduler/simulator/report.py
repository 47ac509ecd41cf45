"""The HTML report of a comparison: a table, and plots as inline SVG; opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from heliostat_scheduler.simulator import plots
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.spans import Curves, Floats, Span, curves

POINTS = 200
LAYERS = 7
"""Queues shown apart; the others are one layer."""
OTHERS = "others"
STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em;color:#1c1917;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3em .4em;text-align:right;border-bottom:1px solid #d6d3d1}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}p{color:#57534e}"
)
COLUMNS = ("avg_jct_s", "p50_jct_s", "p99_jct_s", "mean_delay_s", "utilization", "makespan_s", "preemptions", "wall_s")


@dataclass(frozen=True, slots=True)
class Replay:
    """One policy's replay of the trace."""

    row: dict[str, object]
    done: list[Finished]
    spans: list[Span]


def render(
    trace: str,
    gpus: int,
    gpus_per_node: int,
    quotas: dict[str, int],
    replays: dict[str, Replay],
    gpus_of: dict[str, int],
) -> str:
    """The whole page."""
    made = {name: curves(replay.spans, replay.done, gpus_of) for name, replay in replays.items()}
    queues = _layers(quotas, made)
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(trace)}</title><style>{STYLE}</style>",
        f"<h1>{escape(trace)}</h1><p>{len(gpus_of)} jobs on {gpus} GPUs; quotas "
        + ", ".join(f"{escape(queue)}: {quota}" for queue, quota in sorted(quotas.items())) + "</p>",
        _table([replay.row for replay in replays.values()]),
        "<h2>Waiting</h2><p>Share of jobs (upright) that were delayed by more than the time below.</p>",
        plots.lines({name: _survival(replay.done) for name, replay in replays.items()}, x_s=1.0),
        "<h2>Utilization over time</h2><p>Share of the GPUs that are held.</p>",
        plots.lines({name: _points(curve, curve.utilization(gpus)) for name, curve in made.items()}, top=1.0),
        "<h2>Fairness over time</h2><p>The worst-off queue: what it holds of what it is guaranteed and asks for; 1 = nobody is short.</p>",
        plots.lines({name: _points(curve, curve.fairness(quotas)) for name, curve in made.items()}, top=1.0),
        "<h2>Jobs in the system</h2><p>Submitted and not finished.</p>",
        plots.lines({name: _in_system(replay.done) for name, replay in replays.items()}),
        "<h2>Mean delay by queue</h2>",
        _delays([replay.row for replay in replays.values()]),
    ]  # fmt: skip
    for name, replay in replays.items():
        parts.append(_of_policy(name, replay, made[name], queues, gpus, gpus_per_node))
    return "".join(parts)


def _of_policy(name: str, replay: Replay, made: Curves, queues: list[str], gpus: int, gpus_per_node: int) -> str:
    """Who holds the GPUs, in sum and one by one."""
    layers = {queue: made.used[queue].tolist() for queue in queues if queue in made.used}
    rest = [levels for queue, levels in made.used.items() if queue not in queues]
    if rest:
        layers[OTHERS] = sum(rest[1:], rest[0]).tolist()
    shown = [
        span if span.queue in queues else Span(span.job, OTHERS, span.from_s, span.to_s, span.held)
        for span in replay.spans
    ]
    names = [*queues, OTHERS] if rest else queues
    chart, left_out = plots.gantt(shown, gpus_per_node, gpus, names)
    note = f"<p>Shown: {escape(left_out)}.</p>" if left_out else ""
    return (
        f"<h2>{escape(name)}: GPUs by queue</h2>{plots.stacked(made.middles_h.tolist(), layers, float(gpus))}"
        f"<h2>{escape(name)}: every GPU</h2>{note}{chart}"
    )


def _layers(quotas: dict[str, int], made: dict[str, Curves]) -> list[str]:
    """The queues that use most, by name."""
    use = {
        queue: sum(float(curve.used[queue].sum()) for curve in made.values() if queue in curve.used) for queue in quotas
    }
    return sorted(sorted(use, key=lambda queue: (-use[queue], queue))[:LAYERS])


def _table(rows: Sequence[dict[str, object]]) -> str:
    head = "".join(f"<th>{name.removesuffix('_s').replace('_', ' ')}</th>" for name in ("policy", *COLUMNS))
    body = "".join(
        f"<tr><td>{escape(str(row['policy']))}</td>"
        + "".join(f"<td>{_cell(key, row[key])}</td>" for key in COLUMNS)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(name: str, value: object) -> str:
    """Times in the unit that suits each, shares in percent."""
    if isinstance(value, int | float) and name.endswith("_s"):
        return plots.span_text(value)
    return f"{value:.1%}" if isinstance(value, float) and name == "utilization" else escape(str(value))


def _survival(done: Sequence[Finished]) -> list[plots.Point]:
    """(seconds, share of jobs delayed by more)."""
    ordered = sorted(max(0.0, job.jct_s - job.duration_s) for job in done)
    count = len(ordered)
    points = [(ordered[i], 1 - i / count) for i in range(0, count, max(1, count // POINTS))]
    return [*points, (ordered[-1], 0.0)] if points else []


def _points(made: Curves, values: Floats) -> list[plots.Point]:
    return [(float(x), float(y)) for x, y in zip(made.middles_h, values, strict=True)]


def _in_system(done: Sequence[Finished]) -> list[plots.Point]:
    """(hours, jobs submitted and not finished), thinned."""
    changes = sorted([(job.submit_s, 1) for job in done] + [(job.finish_s, -1) for job in done])
    step, level, points = max(1, len(changes) // POINTS), 0, []
    for index, (at_s, change) in enumerate(changes):
        level += change
        if index % step == 0:
            points.append((at_s / 3600, float(level)))
    return points


def _delays(rows: Sequence[dict[str, object]]) -> str:
    tables = {str(row["policy"]): row["delay_s"] for row in rows}
    queues = sorted({queue for table in tables.values() if isinstance(table, dict) for queue in table})
    head = "".join(f"<th>{escape(name)}</th>" for name in tables)
    lines = []
    for queue in queues:
        cells = "".join(
            f"<td>{_cell('delay_s', table.get(queue, ''))}</td>" for table in tables.values() if isinstance(table, dict)
        )
        lines.append(f"<tr><td>{escape(queue)}</td>{cells}</tr>")
    return f"<table><tr><th>queue</th>{head}</tr>{''.join(lines)}</table>"
