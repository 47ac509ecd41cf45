"""What will happen and what happened: /api/v1/whatif, /forecast, /timeline, /replay, /records, and explanations of queues."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query
from heliostat_scheduler.core import codec
from heliostat_scheduler.forecast.eta import Scored, summary
from pydantic import Field, JsonValue
from starlette.concurrency import run_in_threadpool

from heliostat.access import Action, Principal
from heliostat.api.answers import PROBLEMS
from heliostat.api.doors import Caller, Doors, TheDoors, need
from heliostat.api.jobs_routes import asked_of
from heliostat.api.masking import foreign_jobs, masked
from heliostat.api.models import JobSubmission, Model
from heliostat.api.problems import Problem
from heliostat.forecasting import auditing, exporting, knowledge, replaying
from heliostat.forecasting.answers import time_of
from heliostat.forecasting.doubting import quota_doubts
from heliostat.forecasting.timeline import timeline as spans_between
from heliostat.queuefile import BadQueueFile, parse
from heliostat.store import jobs
from heliostat.submission import accept

router = APIRouter(prefix="/api/v1", tags=["forecast"], responses=PROBLEMS)
Json = dict[str, Any]  # Any: JSON
HOUR_S = 3600.0
WHATIF_S = 120.0
REPLAY_S = 600.0
BINS = 20


class WhatIf(Model):
    """Edits of one question; all of them happen at once. policy: fields of the policy in force that change. queues: a whole queue file."""

    quota: list[str] = Field(default_factory=list, max_length=100)
    nodes: list[str] = Field(default_factory=list, max_length=100)
    cancel: list[str] = Field(default_factory=list, max_length=1000)
    policy: dict[str, JsonValue] = Field(default_factory=dict)
    queues: str = Field(default="", max_length=1_000_000)
    job: JobSubmission | None = None
    horizon_s: Annotated[float, Field(ge=1, le=14 * 24 * HOUR_S)] = 24 * HOUR_S
    arrivals: bool = False


@router.post("/whatif", operation_id="whatif")
async def whatif(asked: WhatIf, doors: TheDoors, caller: Caller) -> Json:
    """Who would start earlier or later, who would be evicted, and what it would cost. Nothing live is touched."""
    question = asked.model_dump(exclude={"job", "horizon_s"})
    warnings = await run_in_threadpool(_doubts, doors, asked) if asked.quota or asked.queues else []
    for job_id in asked.cancel:
        doors.job(job_id, caller)
    if asked.job is not None:
        question["job"] = await _spec(doors, asked.job, caller)
    question |= {"ask": "whatif", "horizon_ms": int(1000 * asked.horizon_s)}
    told = await run_in_threadpool(doors.control.forecast, question, WHATIF_S)
    told = {**told, "warnings": [*warnings, *told.get("warnings", ())]}
    return await run_in_threadpool(_for_eyes_of, doors, told, caller)


def _doubts(doors: Doors, asked: WhatIf) -> list[str]:
    """What `queue apply` would warn of; what it would refuse is refused here, too."""
    in_force = doors.queue_file()
    base = parse(asked.queues) if asked.queues else in_force
    try:
        return quota_doubts(asked.quota, asked.nodes, base, in_force, doors.capacity())
    except BadQueueFile as error:
        why = "; ".join(problem.text for problem in error.problems)
        text = f"quota {', '.join(asked.quota)}: helio queue apply would refuse it: {why}."
        remedy = "Change the quotas or limits that this names in the same question, or ask for less."
        raise Problem(400, "bad_question", text, remedy) from error


async def _spec(doors: Doors, submission: JobSubmission, caller: Principal) -> Json:
    """The job as it would be entered, checked like any submission."""
    now = doors.clock_ms()
    accepted = accept(
        asked_of(submission),
        principal=caller,
        file=doors.queue_file(),
        capacity=await doors.capacity_now(),
        job_id=jobs.new_id(now),
        now_ms=now,
    )
    spec: Json = codec.encode(jobs.core_spec(jobs.as_added(accepted.values)))
    return spec


def _for_eyes_of(doors: Doors, told: Json, caller: Principal) -> Json:
    named = {
        str(row.get(key) or "")
        for part in ("rows", "evicted", "spared", "spans")
        for row in told.get(part) or ()
        for key in ("job", "for")
    }
    named |= {
        str(name)
        for row in told.get("spans") or ()
        for why in (row["opened"], row["closed"])
        if why
        for name in why["for"]
    }
    with doors.store.read() as session:
        return masked(told, foreign_jobs(session, named, caller))


@router.get("/queues/{name}/explanation", operation_id="explain_queue")
def explain_queue(name: str, doors: TheDoors, caller: Caller) -> Json:
    """What the queue has, uses and may have, and why its jobs wait."""
    told = doors.control.explain_queue(name)
    first = told.get("first") or {}
    with doors.store.read() as session:
        return masked(told, foreign_jobs(session, [first.get("job_id", ""), *first.get("blockers", ())], caller))


@router.get("/forecast/report", operation_id="eta_report")
def report(doors: TheDoors, _caller: Caller, queue: str | None = None) -> Json:
    """How well past estimates held: of each job the first one, against when it started. `calibration`: how many started within it.
    `guessed`: the first ones that rested on run times of which nothing was known; no time was told, and they count nowhere else."""
    with doors.store.read() as session:
        rows, guessed = knowledge.scored(session, queue), knowledge.scored(session, queue, guessed=True)
    if queue and not rows and not guessed:
        doors.control.explain_queue(queue)  # refuses a queue that there is not
    queues = sorted({row.queue for row in rows})
    return {
        "all": summary(rows),
        "queues": {name: summary([row for row in rows if row.queue == name]) for name in queues},
        "calibration": _calibration(rows),
        "guessed": summary(guessed),
    }


def _calibration(rows: list[Scored]) -> Json:
    """Histogram of waited / told p90: bins of a tenth, the last one is everything above."""
    counts = [0] * (BINS + 1)
    for row in rows:
        counts[min(BINS, int(10 * row.waited_ms / max(1000, row.p90_ms)))] += 1
    return {"width": 0.1, "counts": counts}


@router.get("/timeline", operation_id="timeline")
def timeline(
    doors: TheDoors,
    caller: Caller,
    from_ms: Annotated[int | None, Query(ge=0)] = None,
    to_ms: Annotated[int | None, Query(ge=0)] = None,
) -> Json:
    """Who held which slot when, with the decision and reason under each change. Default: the last hour."""
    until = to_ms if to_ms is not None else doors.clock_ms()
    since = from_ms if from_ms is not None else until - int(1000 * HOUR_S)
    if since >= until:
        raise Problem(400, "bad_request", "The window ends before it begins.", "Let from be earlier than to.")
    with doors.store.read() as session:
        told = spans_between(session, since, until)
    return _for_eyes_of(doors, told, caller)


@router.post("/replay", operation_id="replay")
def replay(
    doors: TheDoors,
    caller: Caller,
    first: Annotated[int | None, Query(ge=0)] = None,
    last: Annotated[int | None, Query(ge=0)] = None,
) -> Json:
    """Execute recorded cycles again, in another process with another hash seed, and compare the bytes."""
    need(caller, Action.PLATFORM)
    if first is not None and last is not None and first > last:
        raise Problem(400, "bad_request", f"There is no cycle from {first} to {last}.", "Let first be at most last.")
    seed = secrets.randbelow(2**32 - 1) + 1
    return replaying.in_another_process(doors.store.url, first, last, seed, REPLAY_S)


@router.get("/records", operation_id="verify_records")
def records(doors: TheDoors, caller: Caller) -> Json:
    """Whether audit log and decision log are whole, and whether the exported heads are still in them."""
    need(caller, Action.PLATFORM)
    told = exporting.exported(doors.settings.heads_path)
    with doors.store.read() as session:
        chains = [auditing.verify_audit(session), auditing.verify_decisions(session)]
        lost = auditing.contradicted(session, told)
    return {
        "chains": [_chain(chain) for chain in chains],
        "exported": len(told),
        "last_export": _last(told),
        "contradiction": lost,
    }


def _chain(chain: auditing.Chain) -> Json:
    return {"name": chain.name, "rows": chain.rows, "head": chain.head, "first_broken": chain.broken, "why": chain.why}


def _last(told: list[Json]) -> str | None:
    return time_of(told[-1]["at_ms"]) if told else None
