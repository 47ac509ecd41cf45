"""An explanation as text: the sentence, its numbers, the checks behind it, and each remedy with the command to copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from heliostat.render.amounts import by_flavor, clock, count, duration, parse_time, size, unknown_start
from heliostat.wire.shapes import (
    TERMINAL_STATES,
    CheckJson,
    EndpointExplanationJson,
    ExpectedJson,
    ExplanationJson,
    GrowthJson,
    QueueJson,
    RemedyJson,
)

AMOUNTS = frozenset({"needs", "free", "gap", "used", "limit", "quota", "entitled", "most", "lent", "borrowed"})
EPOCH_MS = 10**12
"""Milliseconds above this are a moment, not a span."""
PER_TASK = {"gpu_milli": "GPU", "cpu_milli": "CPU"}


def explanation_text(explanation: ExplanationJson, now: datetime) -> str:
    head = f"{explanation.get('job_id', '?')} is {explanation.get('state', '?')}"
    code = explanation.get("code")
    lines = [head + (f" ({code})" if code else ""), f"  {explanation.get('sentence') or _untold(explanation)}"]
    numbers = facts_text(explanation.get("facts") or {})
    if numbers:
        lines.append(f"  numbers    {numbers}")
    lines += _place(explanation, now)
    lines += _expected(explanation.get("expected"))
    if explanation.get("blockers"):
        lines.append(f"  held by    {', '.join(explanation['blockers'])}")
    lines += _checks(explanation.get("checks") or [])
    lines += _story(explanation.get("story") or [])
    lines += _growth(explanation.get("growth"), now)
    lines += _helps(explanation.get("remedies") or [], now)
    return "\n".join(lines)


def endpoint_text(told: EndpointExplanationJson, now: datetime) -> str:
    """Why an endpoint has the replicas that it has, version by version, and how pressed its queues are."""
    lines = [f"endpoint {told['endpoint']} is {told['state']}: {told['sentence']}"]
    for queue in told["queues"]:
        if pressed := pressure(queue):
            lines.append(f"  queue      {queue['name']}: {pressed}")
    for row in told["versions"]:
        lines += ["", f"{row['version']} is {row['state']}: {row['sentence']}"]
        explanation = row["explanation"]
        growth = explanation.get("growth")
        if growth is not None:
            lines += _growth(growth, now)[1:]
            continue
        if row["state"] != "waiting":
            continue
        if explanation.get("blockers"):
            lines.append(f"  held by    {', '.join(explanation['blockers'])}")
        lines += _place(explanation, now) + _checks(explanation.get("checks") or [])
        lines += _helps(explanation.get("remedies") or [], now)
    return "\n".join(lines)


def pressure(queue: QueueJson) -> str:
    """`2 GPU more are wanted than it holds`; "" for a queue that holds what it wants."""
    parts = [
        _amount(round(value * (1 if resource == "memory" else 1000)), resource)
        for resource, value in sorted((queue.get("pressure") or {}).items())
    ]
    return f"{', '.join(parts)} more wanted than it holds" if parts else ""


def pressures(queues: Sequence[QueueJson]) -> list[str]:
    """A line for each queue with jobs that wants more than it holds."""
    parents = {queue.get("parent") for queue in queues}
    leaves = [queue for queue in queues if queue["name"] not in parents]
    return [f"queue {queue['name']}: {pressed}" for queue in leaves if (pressed := pressure(queue))]


def _growth(growth: GrowthJson | None, now: datetime) -> list[str]:
    """Why it does not get more."""
    if growth is None:
        return []
    lines = [f"  wants more  has {growth['tasks']} of {growth['wanted']} tasks; one more {growth['sentence']}"]
    numbers = facts_text(growth.get("facts") or {})
    if numbers:
        lines.append(f"  numbers    {numbers}")
    if growth.get("blockers"):
        lines.append(f"  held by    {', '.join(growth['blockers'])}")
    return lines + _helps(growth.get("remedies") or [], now)


def _expected(expected: ExpectedJson | None) -> list[str]:
    """What was learned of the job, and what follows from it."""
    if expected is None:
        return []
    lines = []
    if expected["rest_s"] is not None:
        learned = f"{expected['finished_jobs']} finished jobs of" if expected["finished_jobs"] else "finished jobs of"
        turns = "equals go by it" if expected["ranked"] else "equals go by their arrival"
        rest = f"about {duration(expected['rest_s'])} more" if expected["rest_s"] > 0 else "to have ended by now"
        lines.append(f"  expected   {rest}, from {learned} queue {expected['queue']}; {turns}")
    if expected["goodput"]:
        times, per = (3600, "epochs an hour") if expected["unit"] == "epochs" else (1, "samples a second")
        paces = ", ".join(f"{pace['tasks']}: {count(round(times * pace['per_s'], 1))}" for pace in expected["goodput"])
        enough = "; more would gain less than a resize costs" if expected["enough"] else ""
        lines.append(f"  scales     {paces} ({per} by tasks){enough}")
    return lines


def _helps(remedies: list[RemedyJson], now: datetime) -> list[str]:
    lines = ["  what would help"] if remedies else []
    for index, remedy in enumerate(remedies, 1):
        lines += _remedy(index, remedy, now)
    return lines


def remedies_text(explanation: ExplanationJson, now: datetime) -> str:
    """What would help, alone: for remedies that arrive after the explanation."""
    remedies = explanation.get("remedies") or []
    lines = ["  what would help"] if remedies else ["  nothing that was tried would start it sooner"]
    for index, remedy in enumerate(remedies, 1):
        lines += _remedy(index, remedy, now)
    return "\n".join(lines)


def queue_text(told: Mapping[str, object]) -> str:
    """Why the jobs of a queue wait."""
    lines = [f"queue {told.get('name')}: {told.get('sentence') or 'no job waits here'}"]
    for name in ("quota", "limit", "used", "borrowed", "entitled", "wanted"):
        if told.get(name):
            lines.append(f"  {name:<9}  {by_flavor(told[name])}")
    reasons = told.get("waiting_by_reason")
    if isinstance(reasons, dict) and reasons:
        lines.append("  waiting    " + ", ".join(f"{number} x {code}" for code, number in reasons.items()))
    borrowers = told.get("borrowers")
    if isinstance(borrowers, list) and borrowers:
        lines.append(f"  borrowers  {', '.join(borrowers)}")
    return "\n".join(lines)


def _story(story: list[dict[str, Any]]) -> list[str]:  # Any: JSON
    lines = ["  what happened so far"] if story else []
    for past in story:
        at = parse_time(past.get("at"))
        lines.append(f"    {clock(at) if at else ''}  {past.get('sentence') or past.get('code')} ({past.get('code')})")
    return lines


def _untold(explanation: ExplanationJson) -> str:
    if explanation.get("state") in TERMINAL_STATES:
        return f"It is over. How it went: helio ps {explanation.get('job_id')}"
    small = any(check["name"] == "at its largest size" and not check["ok"] for check in explanation.get("checks") or [])
    if small and explanation.get("state") == "running" and explanation.get("growth") is None:
        return "Nothing holds it back. A program of this kind keeps the size that it started with."
    return "Nothing holds it back."


def facts_text(facts: Mapping[str, int | str]) -> str:
    """`needs 2 GPU, free 1 GPU, ...`: amounts have the unit of the fact `resource`, other numbers the one in their name."""
    resource = str(facts.get("resource", ""))
    return ", ".join(
        _fact(name, value, resource)
        for name, value in facts.items()
        if value != "" and (name != "resource" or len(facts) == 1)
    )


def _fact(name: str, value: int | str, resource: str) -> str:
    words = name.replace("_", " ")
    if isinstance(value, str | bool):
        return f"{words} {value}"
    if name in AMOUNTS and resource:
        return f"{words} {_amount(value, resource)}"
    if name in PER_TASK:
        return f"{PER_TASK[name]} per task {count(value / 1000)}"
    if name.endswith("_milli"):
        return f"{words.removesuffix(' milli')} {count(value / 1000)}"
    if name.endswith("_ms") and value > EPOCH_MS:
        return f"{words.removesuffix(' ms')} {clock(datetime.fromtimestamp(value / 1000, UTC))}"
    if name.endswith("_ms"):
        return f"{words.removesuffix(' ms')} {duration(value / 1000)}"
    if name.endswith("_bytes"):
        return f"{words.removesuffix(' bytes')} {size(value)}"
    return f"{words} {value}"


def _amount(value: int, resource: str) -> str:
    """Flavors and `cpu` are counted in thousandths, `memory` in bytes."""
    if resource == "memory":
        return size(value)
    unit = "CPU" if resource == "cpu" else "GPU"
    return f"{count(value / 1000)} {unit}" + (f" ({resource})" if resource not in ("cpu", "gpu") else "")


def _place(explanation: ExplanationJson, now: datetime) -> list[str]:
    lines = []
    if explanation.get("position"):
        lines.append(f"  position   {explanation['position']} in its queue")
    at = parse_time(explanation.get("estimated_start"))
    late = parse_time(explanation.get("estimated_start_p90"))
    made = bool(explanation.get("estimate_made"))
    unknown = explanation.get("unknown_runtimes") or 0
    if unknown:
        lines.append(f"  estimate   {unknown_start(unknown)} (a time would be a guess between a minute and a day)")
    elif at is not None:
        lines.append(
            f"  estimate   starts in about {duration(max(0.0, (at - now).total_seconds()))} ({clock(at)}){_late(late, made, now)}"
        )
    elif made:
        lines.append("  estimate   starts in more than a day")
    return lines


def _late(late: datetime | None, made: bool, now: datetime) -> str:
    """The other end of an estimate that was made by forward simulation."""
    if not made:
        return ""
    if late is None:
        return "; in 1 of 10 cases later than in a day"
    return f"; in 9 of 10 cases within {duration(max(0.0, (late - now).total_seconds()))}"


def _checks(checks: list[CheckJson]) -> list[str]:
    widest = max((len(check.get("name", "?")) for check in checks), default=0)
    return [
        f"  {'✔' if check.get('ok') else '✖'} {check.get('name', '?'):<{widest}}  {facts_text(check.get('facts') or {})}".rstrip()
        for check in checks
    ]


def _remedy(index: int, remedy: RemedyJson, now: datetime) -> list[str]:
    at = parse_time(remedy.get("at"))
    when = f" (in about {duration(max(0.0, (at - now).total_seconds()))}, {clock(at)})" if at else ""
    lines = [f"  {index}. {remedy.get('text', '')}{when}"]
    if remedy.get("command"):
        lines.append(f"       {remedy['command']}")
    if remedy.get("evicts"):
        lines.append(f"       takes GPUs from: {', '.join(remedy['evicts'])}")
    return lines
