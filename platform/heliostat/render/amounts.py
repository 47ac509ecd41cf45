"""Numbers as people read them: ages rather than timestamps, short units, no more digits than anybody acts on."""

from __future__ import annotations

from datetime import UTC, datetime

UNITS_S = (("d", 86400), ("h", 3600), ("m", 60))


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time, aware."""
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def seconds_between(earlier: str | None, later: datetime) -> float | None:
    at = parse_time(earlier)
    return None if at is None else (later - at).total_seconds()


def duration(seconds: float | None) -> str:
    """`0.4s`, `12s`, `4m`, `1h 5m`, `2d 3h`: two units where the larger one is small, and `-` for unknown."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if 0.05 <= seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    for index, (unit, size) in enumerate(UNITS_S):
        if seconds >= size:
            whole = int(seconds // size)
            smaller = UNITS_S[index + 1] if index + 1 < len(UNITS_S) else ("s", 1)
            rest = int((seconds - whole * size) // smaller[1])
            return f"{whole}{unit} {rest}{smaller[0]}" if rest and whole < 10 else f"{whole}{unit}"
    return f"{int(seconds)}s"


def age(seconds: float | None) -> str:
    """One unit only, for columns: `4m`, `1h`, `2d`."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    for unit, size in UNITS_S:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def unknown_start(jobs: int) -> str:
    """Of an estimate that would be a guess: no time is told."""
    which = "the running job" if jobs == 1 else f"{jobs} running jobs"
    return f"may start at any time: nothing is known yet about how long {which} will run"


def count(value: float | None) -> str:
    """A number of GPUs: `2`, `0.5`, `-` for unknown."""
    if value is None:
        return "-"
    return f"{value:.3f}".rstrip("0").rstrip(".")


def by_flavor(value: object) -> str:
    """Amounts by resource: `a100 4, cpu 8`, without what is zero; `-` for none, `unlimited` for no bound."""
    if isinstance(value, dict):
        told = [f"{name} {_resource(name, amount)}" for name, amount in sorted(value.items()) if amount != 0]
        return ", ".join(told) or ("0" if value else "-")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return count(float(value))
    return "-" if value is None or value == "" else str(value)


def _resource(name: str, amount: float | None) -> str:
    if amount is None:
        return "unlimited"
    return size(amount) if name == "memory" else count(amount)


def size(amount: float) -> str:
    """Bytes: `512 B`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{count(round(amount, 1))} {unit}"
        amount /= 1024
    return f"{count(round(amount, 1))} TiB"


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction * 100:.0f} %"


def clock(at: datetime) -> str:
    """Local wall-clock time, with the date when it is not today's."""
    local, today = at.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"


def sparkline(values: list[float], width: int = 24) -> str:
    """The last values as blocks, the smallest at the bottom: `▁▂▅▇█`."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    blocks = "▁▂▃▄▅▆▇█"
    if high == low:
        return blocks[3] * len(shown)
    return "".join(blocks[round((value - low) / (high - low) * (len(blocks) - 1))] for value in shown)
