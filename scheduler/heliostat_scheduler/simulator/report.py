"""The HTML report of a comparison: a table and plots as inline SVG; no script, no other file, opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from heliostat_scheduler.simulator.results import Finished

COLOURS = ("#c2410c", "#0369a1", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0f766e", "#475569")
WIDTH, HEIGHT, MARGIN = 720, 260, 46
POINTS = 200
STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:780px;margin:2em auto;color:#1c1917}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;text-align:right;border-bottom:1px solid #d6d3d1}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}"
)
COLUMNS = ("avg_jct_s", "p50_jct_s", "p99_jct_s", "mean_delay_s", "makespan_s", "preemptions", "wall_s")


def render(
    trace: str, gpus: int, quotas: dict[str, int], rows: list[dict[str, object]], done: dict[str, list[Finished]]
) -> str:
    """The whole page."""
    head = "".join(f"<th>{name}</th>" for name in ("policy", *COLUMNS))
    body = "".join(
        f"<tr><td>{escape(str(row['policy']))}</td>" + "".join(f"<td>{row[key]}</td>" for key in COLUMNS) + "</tr>"
        for row in rows
    )
    queues = ", ".join(f"{escape(queue)}: {quota}" for queue, quota in sorted(quotas.items()))
    waits = {name: _shares([job.jct_s - job.duration_s for job in jobs]) for name, jobs in done.items()}
    running = {name: _in_system(jobs) for name, jobs in done.items()}
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(trace)}</title><style>{STYLE}</style>"
        f"<h1>{escape(trace)}</h1><p>{gpus} GPUs; quotas {queues}</p>"
        f"<table><tr>{head}</tr>{body}</table>"
        f"<h2>Delay: share of jobs that waited longer than this (s)</h2>{_plot(waits)}"
        f"<h2>Jobs in the system over time (h)</h2>{_plot(running)}"
        f"<h2>Mean delay by queue (s)</h2>{_fairness(rows)}"
    )


def _shares(delays: Sequence[float]) -> list[tuple[float, float]]:
    """Points of the survival function."""
    ordered = sorted(max(0.0, delay) for delay in delays)
    count = len(ordered)
    step = max(1, count // POINTS)
    return [(ordered[i], 1 - i / count) for i in range(0, count, step)]


def _in_system(jobs: list[Finished]) -> list[tuple[float, float]]:
    """(hours, jobs submitted and not finished), thinned."""
    changes = sorted([(job.submit_s, 1) for job in jobs] + [(job.finish_s, -1) for job in jobs])
    step, level, points = max(1, len(changes) // POINTS), 0, []
    for index, (at_s, change) in enumerate(changes):
        level += change
        if index % step == 0:
            points.append((at_s / 3600, float(level)))
    return points


def _plot(lines: dict[str, list[tuple[float, float]]]) -> str:
    """Lines over linear axes with a legend."""
    right = max((x for points in lines.values() for x, _ in points), default=1.0) or 1.0
    top = max((y for points in lines.values() for _, y in points), default=1.0) or 1.0
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    base, span, rise = HEIGHT - MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    parts.append(f'<path d="M{MARGIN} {MARGIN}V{base}H{WIDTH - MARGIN}" fill="none" stroke="#a8a29e"/>')
    for share in (0, 0.5, 1):
        x, y = MARGIN + span * share, base - rise * share
        parts.append(
            f'<text x="{x:.0f}" y="{base + 16}" font-size="11" text-anchor="middle">{right * share:.4g}</text>'
        )
        parts.append(f'<text x="{MARGIN - 6}" y="{y:.0f}" font-size="11" text-anchor="end">{top * share:.3g}</text>')
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{MARGIN + span * x / right:.1f},{base - rise * y / top:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        at = MARGIN + index * 110
        parts.append(f'<text x="{at}" y="{MARGIN - 16}" font-size="12" fill="{colour}">{escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _fairness(rows: list[dict[str, object]]) -> str:
    tables = {str(row["policy"]): row["delay_s"] for row in rows}
    queues = sorted({queue for table in tables.values() if isinstance(table, dict) for queue in table})
    head = "".join(f"<th>{escape(name)}</th>" for name in tables)
    lines = []
    for queue in queues:
        cells = "".join(f"<td>{table.get(queue, '')}</td>" for table in tables.values() if isinstance(table, dict))
        lines.append(f"<tr><td>{escape(queue)}</td>{cells}</tr>")
    return f"<table><tr><th>queue</th>{head}</tr>{''.join(lines)}</table>"
