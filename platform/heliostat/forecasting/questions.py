"""What the forecasting process answers, each question in a fork of it: the engine may be used up, and nothing of it outlives the answer.

A question is JSON with `ask`; the functions here take the mirrored engine, what the store knows, and the question, and return JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heliostat_scheduler.core import Engine, codec
from heliostat_scheduler.core.book import HOLDING
from heliostat_scheduler.core.events import Event, JobSubmitted
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.estimate.expectation import Expectations
from heliostat_scheduler.forecast import (
    Correction,
    Course,
    Estimate,
    Lengths,
    begun_jobs,
    estimates,
    futures,
    like_before,
    waiting_jobs,
)
from heliostat_scheduler.forecast import whatif as what
from heliostat_scheduler.forecast.bands import FEWEST, PAIRS, bands, held_share
from heliostat_scheduler.forecast.future import Rest

from heliostat.control import explaining
from heliostat.forecasting import answers, edits, elsewhere
from heliostat.forecasting.forking import both

Json = dict[str, Any]  # Any: JSON
HORIZON_MS = 24 * 3_600_000
LONGEST_HORIZON_MS = 14 * 24 * 3_600_000
SAMPLES = 16
FEWEST_SAMPLES = 3
REFRESH_BUDGET_S = 20.0
PLAN_BUDGET_S = 4.0
BAND_BUDGET_S = 4.0
EXPLAIN_BUDGET_S = 3.0
NEEDS_SOMEBODY = frozenset({ReasonCode.HELD, ReasonCode.NEVER_FITS, ReasonCode.FLAVOR_MISMATCH})


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows, read before the fork. expected: of the live jobs, as the live engine was told."""

    lengths: Lengths
    recent: Sequence[JobSpec]
    correction: Correction
    flavors: tuple[str, ...]
    expected: Expectations | None = None


def median(lengths: Lengths) -> Rest:
    return lambda spec, ran_ms: lengths.rest_ms(spec, ran_ms, 0.5)


def possible(
    engine: Engine, known: Known, now_ms: int, horizon_ms: int, budget_s: float, wanted: frozenset[str]
) -> list[Course]:
    """As many possible futures as the budget allows, at least a few; the engine stays as it is."""
    until = time.monotonic() + budget_s

    def enough(done: int) -> bool:
        return done >= FEWEST_SAMPLES and time.monotonic() > until

    grid = what.grid_for(engine, horizon_ms)
    return futures(
        engine, known.lengths, known.recent, now_ms, horizon_ms, range(SAMPLES), grid, wanted, known.expected, enough
    )


def unknown_runtimes(engine: Engine, lengths: Lengths) -> int:
    """How many of the jobs that hold something run for nobody knows how long: then a time of start is a guess, and not told as more."""
    jobs = engine.state.book.jobs.values()
    return sum(rec.phase in HOLDING and not lengths.knows(rec.spec) for rec in jobs)


def waits_for_somebody(why: Reason | None) -> bool:
    """Whether the job never starts unless somebody changes it or lets it go: then there is no estimate."""
    if why is None:
        return False
    return why.code in NEEDS_SOMEBODY or (why.code is ReasonCode.DEPENDENCY_WAIT and bool(why.fact("outcome")))


def refresh(engine: Engine, known: Known, now_ms: int) -> Json:
    """An estimate for every waiting job: as computed (`raw`) and as told, and on how many unknown run times it rests. Waits in
    milliseconds from `made_ms`."""
    began = time.monotonic()
    jobs = [spec.id for spec in waiting_jobs(engine) if not waits_for_somebody(engine.reason(spec.id))]
    courses = [] if not jobs else possible(engine, known, now_ms, HORIZON_MS, REFRESH_BUDGET_S, frozenset(jobs))
    rows, unknown = [], unknown_runtimes(engine, known.lengths)
    for raw in estimates(courses, jobs):
        told = raw if unknown else known.correction.correct(raw)
        rows.append([raw.job_id, raw.queue, told.p50_ms, told.p90_ms, raw.p50_ms, raw.p90_ms, raw.samples, unknown])
    return {"made_ms": now_ms, "estimates": rows, "took_s": time.monotonic() - began}


def whatif(engine: Engine, known: Known, asked: Json, now_ms: int) -> Json:
    """The future with and without the edit, at the median lengths; who will be submitted is left out unless asked for.

    While few jobs wait, the same in futures with drawn lengths: how sure it is.
    """
    began = time.monotonic()
    horizon_ms = min(LONGEST_HORIZON_MS, int(asked.get("horizon_ms", HORIZON_MS)))
    events = edits.events_of(engine, asked, known.flavors)
    grid = what.grid_for(engine, horizon_ms)
    lengths = known.lengths.beside(begun_jobs(engine, now_ms, known.expected))

    def course(rest: Rest, seed: int, edit: Sequence[Event]) -> Course:
        coming = like_before(known.recent, rest, now_ms, horizon_ms, seed) if asked.get("arrivals") else []
        return what.course_of(engine, now_ms, rest, coming, horizon_ms, edit, grid, known.expected)

    rest = median(lengths)
    base, edited = both(lambda: course(rest, 0, ()), lambda: course(rest, 0, events))
    verdict = what.compare(base, edited, engine, events, coarse=bool(grid.first_ms))

    def drawn(seeds: range) -> list[tuple[Course, Course]]:
        pairs = []
        for seed in seeds:
            draw = lengths.draw(seed)
            pairs.append((course(draw, seed, ()), course(draw, seed, events)))
            if time.monotonic() - began > BAND_BUDGET_S:
                break
        return pairs

    halves = ([], []) if verdict.coarse else both(lambda: drawn(range(1, PAIRS, 2)), lambda: drawn(range(0, PAIRS, 2)))
    pairs = [*halves[0], *halves[1]]
    told = bands(pairs) if len(pairs) >= FEWEST else {}
    sure = held_share(len(pairs)) if told else None
    unknown = unknown_runtimes(engine, known.lengths)
    answer = answers.of_verdict(verdict, told, sure, now_ms, time.monotonic() - began)
    return {**answer, "unknown_runtimes": unknown, "warnings": edits.doubts(engine, asked)}


def plan(engine: Engine, known: Known, asked: Json, now_ms: int) -> Json:
    """What would happen to this job if it were submitted now: where, when, at what cost, and what would make it start sooner."""
    spec: JobSpec = codec.decode(JobSpec, asked["job"])
    failed = tuple((other, outcome) for other, outcome in asked.get("failed") or ())
    event = JobSubmitted(spec, bool(asked.get("held")), failed=failed)
    told = explaining.of_submission(engine, event, now_ms)
    copy = engine.branch()
    copy.apply(event, now_ms)
    courses = possible(copy, known, now_ms, HORIZON_MS, PLAN_BUDGET_S, frozenset({spec.id}))
    (raw,) = estimates(courses, [spec.id])
    now = Estimate(spec.id, spec.queue, 0, 0, len(courses))
    eta = now if told["starts_now"] else known.correction.correct(raw)
    nodes = next((course.node_of[spec.id] for course in courses if spec.id in course.node_of), ())
    told["remedies"] = [_for_submission(remedy, spec.id) for remedy in told["remedies"]]
    unknown = 0 if told["starts_now"] else unknown_runtimes(engine, known.lengths)
    return {**told, "eta": _eta(eta, now_ms, unknown), "nodes": list(nodes), "cost": _cost(known.lengths, spec)}


def _for_submission(remedy: Json, job_id: str) -> Json:
    """A change of a job that is not submitted yet is other options of the submission; what is done to others stays a command."""
    others, options = [], {}
    for step in remedy["command"].split(" && "):
        words = step.split()
        if words[2:3] != [job_id]:
            others.append(step)
        elif words[1] == "priority":
            options["--priority"] = words[3]
        elif words[1] == "edit":
            given = [word for word in words[3:] if word != "--no-after"]
            options |= dict(zip(given[::2], given[1::2], strict=True))
    typed = " ".join(f"{name} {value}" for name, value in options.items())
    return {**remedy, "command": " && ".join(others), "options": typed}


def _eta(eta: Estimate, now_ms: int, unknown: int) -> Json:
    """No times where they would be a guess."""
    return {
        "p50": answers.time_of(None if unknown or eta.p50_ms is None else now_ms + eta.p50_ms),
        "p90": answers.time_of(None if unknown or eta.p90_ms is None else now_ms + eta.p90_ms),
        "samples": eta.samples,
        "unknown_runtimes": unknown,
        "horizon_s": HORIZON_MS / 1000,
    }


def _cost(lengths: Lengths, spec: JobSpec) -> Json:
    """GPU-hours at its smallest size: of a typical run, of nine runs in ten (where anything is known), and at most (its declared limit)."""
    gpus = spec.shape.gpu_milli * spec.min_tasks / 1000
    known = lengths.knows(spec)
    typical, most = (round(gpus * lengths.rest_ms(spec, 0, u) / 3_600_000, 3) if known else None for u in (0.5, 0.9))
    limit = None if spec.max_runtime_ms is None else round(gpus * spec.max_runtime_ms / 3_600_000, 3)
    return {"gpu_hours_p50": typical, "gpu_hours_p90": most, "gpu_hours_limit": limit}


def explain(engine: Engine, known: Known, asked: Json, now_ms: int) -> Json:
    """The whole explanation of a waiting job, remedies included; where nothing starts it now without harm, what would start it sooner.

    Looking for the latter takes a future for each other queue. While many jobs wait that is seconds, so then it is done only when asked
    for by `sooner`; without, `open` says that asking again may find one. Nothing is promised on run times of which nothing is known.
    """
    job_id = str(asked["job_id"])
    told = engine.explain(job_id, now_ms)
    harmless = any(remedy.command and not remedy.evicts for remedy in told.remedies)
    may = told.reason.code in elsewhere.SHARED and not harmless and not unknown_runtimes(engine, known.lengths)
    quick = not what.grid_for(engine, HORIZON_MS).first_ms
    if may and (quick or asked.get("sooner")):
        rest = median(known.lengths.beside(begun_jobs(engine, now_ms, known.expected)))
        spec = engine.state.book.jobs[job_id].spec
        found = elsewhere.sooner_elsewhere(
            engine, spec, rest, now_ms, HORIZON_MS, known.expected, elsewhere.deadline(EXPLAIN_BUDGET_S)
        )
        if found is not None and found.command not in {remedy.command for remedy in told.remedies}:
            told = replace(told, remedies=(found, *told.remedies))
        may = False
    return {**explaining.of_explanation(told), "open": may}


ANSWERS: dict[str, Callable[[Engine, Known, Json, int], Json]] = {"whatif": whatif, "plan": plan, "explain": explain}
