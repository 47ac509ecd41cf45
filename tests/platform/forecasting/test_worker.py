"""The forecasting process itself: started as the control plane starts it, told of a commit, and asked."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat.forecasting import worker
from heliostat.forecasting.expecting import FEWEST
from heliostat.forecasting.link import Forecaster
from heliostat_scheduler.core import codec
from heliostat_scheduler.core.model import JobSpec, TaskShape

from tests.platform.control.plant import Plant
from tests.platform.forecasting.teaching import ran
from tests.platform.forecasting.worlds import live

LIMIT_S = 60.0
Json = dict[str, Any]


class Asker:
    """The parent's end of the pipes."""

    def __init__(self, url: str, now_ms: int) -> None:
        argv = [sys.executable, "-m", "heliostat.forecasting.worker", url]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.now_ms = now_ms
        self.rest = b""

    def say(self, message: Json) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, fits: Callable[[Json], bool], what: str) -> Json:
        assert self.process.stdout is not None
        fd, until = self.process.stdout.fileno(), time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            while b"\n" in self.rest:
                line, _, self.rest = self.rest.partition(b"\n")
                message: Json = json.loads(line)
                if fits(message):
                    return message
            if select.select([fd], [], [], 1.0)[0]:
                self.rest += os.read(fd, 1 << 16)
        raise AssertionError(f"waited for {what}")

    def ask(self, number: int, question: Json) -> Json:
        self.say({**question, "id": number, "now_ms": self.now_ms})
        return self.hear(lambda message: message.get("id") == number, f"the answer to {question['ask']}")


@pytest.fixture
def lived(plant: Plant) -> Plant:
    live(plant)
    return plant


@pytest.fixture
def asker(lived: Plant) -> Iterator[Asker]:
    made = Asker(lived.store.url, lived.cluster.now_ms)
    yield made
    assert made.process.stdin is not None and made.process.stdout is not None
    made.process.stdin.close()
    assert made.process.wait(10) == 0
    made.process.stdout.close()


@pytest.mark.parametrize(
    ("p50s_ms", "after_s"),
    [
        pytest.param([], 60.0, id="nobody waits"),
        pytest.param([None], 60.0, id="later than a day"),
        pytest.param([3_600_000, 30_000], 31.0, id="when the first estimate has passed"),
        pytest.param([500], 10.0, id="not all the time"),
    ],
)
def test_an_estimate_that_has_passed_is_renewed(p50s_ms: list[int | None], after_s: float) -> None:
    assert worker.until_overdue([["job", "q", p50] for p50 in p50s_ms]) == after_s


def test_it_estimates_answers_and_refuses(lived: Plant, asker: Asker) -> None:
    asker.say({"look": True})
    told = asker.hear(lambda message: message.get("id") == 0, "estimates")["answer"]
    late = next(row for row in told["estimates"] if row[0] == "late")
    assert late[1] == "default" and late[6] >= 3

    plan = asker.ask(1, {"ask": "plan", "job": codec.encode(JobSpec("new", "default", asker.now_ms, TaskShape(1000)))})[
        "answer"
    ]
    assert plan["starts_now"] is False and plan["reason"]["code"] == "InsufficientFree"
    assert plan["eta"]["samples"] >= 3 and plan["cost"]["gpu_hours_limit"] is None

    changed = asker.ask(2, {"ask": "whatif", "cancel": ["long"], "horizon_ms": 3_600_000})["answer"]
    moved = {row["job"]: row for row in changed["rows"]}
    assert moved["late"]["change"] == "earlier" and changed["exact"] is True
    assert changed["band_share"] == 0.9, "nineteen futures with drawn run times"
    assert moved["late"]["after_from"] == moved["late"]["after_until"] == moved["late"]["after"], (
        "its GPUs are free at once"
    )

    nodes = asker.ask(3, {"ask": "whatif", "nodes": ["+1xgpu:2"]})["answer"]
    assert {row["job"] for row in nodes["rows"]} == {"late"}

    why = asker.ask(4, {"ask": "explain", "job_id": "late"})["answer"]
    assert why["code"] == "InsufficientFree" and any(remedy["command"] for remedy in why["remedies"])

    for number, question, words in (
        (5, {"ask": "whatif", "quota": ["nobody=3"]}, "no queue nobody"),
        (6, {"ask": "whatif", "quota": ["3"]}, "write QUEUE=GPUS"),
        (7, {"ask": "whatif", "nodes": ["two"]}, "write +COUNTxFLAVOR:GPUS"),
        (8, {"ask": "whatif", "policy": {"cleverness": 9}}, "no field cleverness"),
        (9, {"ask": "whatif", "policy": {"reclaim": 3}}, "must be like true, not 3"),
        (10, {"ask": "whatif"}, "nothing to change"),
        (11, {"ask": "explain", "job_id": "train"}, "does not wait"),
        (12, {"ask": "whatif", "quota": ["default=1:h100"]}, "no node has this flavor"),
        (13, {"ask": "whatif", "queues": "nonsense: 4"}, "line 1: the file: unknown key 'nonsense'"),
        (14, {"ask": "whatif", "queues": "queues:\n  other: {}"}, "queue default still has jobs"),
    ):
        error = asker.ask(number, question)["error"]
        assert error["code"] == "bad_question" and words in error["message"]

    spec = codec.encode(JobSpec("new", "default", asker.now_ms, TaskShape(1000)))
    plan = asker.ask(20, {"ask": "plan", "job": spec, "held": True})["answer"]
    assert (plan["starts_now"], plan["reason"]["code"], plan["eta"]["p50"]) == (False, "Held", None)
    assert plan["remedies"] and "new" not in plan["remedies"][0]["command"]

    behind = codec.encode(JobSpec("new", "default", asker.now_ms, TaskShape(1000), dependencies=("gone",)))
    plan = asker.ask(21, {"ask": "plan", "job": behind, "failed": [["gone", "failed"]]})["answer"]
    assert (plan["reason"]["code"], plan["reason"]["facts"]["outcome"]) == ("DependencyWait", "failed")

    digest = lived.loop.engine.digest()
    lived.advance(100)
    assert lived.loop.engine.digest() == digest, "nothing live is touched"


def test_the_control_plane_hears_what_is_learned(lived: Plant, tmp_path: Path) -> None:
    ran(lived, "train", 3_600_000, FEWEST)
    heard: queue.SimpleQueue[Json] = queue.SimpleQueue()
    forecaster = Forecaster(
        lived.store, tmp_path / "forecast.log", lambda *_: None, lambda: lived.cluster.now_ms, heard.put
    )
    forecaster.start()
    try:
        told = heard.get(timeout=LIMIT_S)
    finally:
        forecaster.close()
    assert {job for job, _ in told["rests"]} == {"late", "long"} and not told["curves"]
    assert set(told["fresh"]) == {"default"}
