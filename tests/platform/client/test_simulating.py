"""`helio simulate` and `helio queue policy`: what they print, what they write, and how they fail."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from heliostat.client.client import Client
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.simulator.__main__ import main as simulator

from tests.platform.client.conftest import Outcome

Helio = Callable[..., Outcome]
ROWS = [
    "submit_s,duration_s,num_gpus,queue",
    *(f"{30 * i},{100 + 40 * (i % 5)},{(1, 2, 8)[i % 3]},{'ab'[i % 2]}" for i in range(12)),
]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.csv"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def test_one_line_per_policy_and_a_report(trace: Path, helio: Helio) -> None:
    told = helio("simulate", str(trace), "--policy", "default", "--policy", "fifo", "--nodes", "2")
    assert told.code == 0
    assert [line.split()[0] for line in told.out.splitlines()] == ["POLICY", "default", "fifo"]
    assert "16 GPUs" in told.err and "own-simulation.html" in told.err
    page = (trace.parent / "own-simulation.html").read_text()
    assert page.startswith("<!doctype html>") and "Fairness over time" in page


def test_as_json_with_quotas_and_a_report_elsewhere(trace: Path, helio: Helio) -> None:
    told = helio("simulate", str(trace), "--nodes", "2", "--quota", "a=12", "--report", "here.html", "--json")
    document = json.loads(told.out)
    assert document["quotas"] == {"a": 12, "b": 4}
    assert [row["policy"] for row in document["items"]] == ["default", "fifo"]
    assert (trace.parent / "here.html").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        pytest.param(["--policy", "magic"], "unknown policy magic", id="an unknown policy"),
        pytest.param(["--quota", "a"], "not QUEUE=GPUS", id="a quota without a number"),
        pytest.param(["--quota", "a=²"], "not QUEUE=GPUS", id="a quota in digits that are no number"),
        pytest.param(["--quota", "c=4"], "given to c; the trace's queues: a, b", id="a quota of a queue without jobs"),
        pytest.param(["--nodes", "999999999"], "at most 100000", id="more nodes than can be simulated"),
        pytest.param(["--quota", "a=99", "--nodes", "1"], "add up to 99", id="quotas above the cluster"),
        pytest.param(["--report", "/nowhere/at/all.html"], "cannot be written", id="a report that cannot be written"),
    ],
)
def test_what_is_wrong_is_named(more: list[str], says: str, trace: Path, helio: Helio) -> None:
    told = helio("simulate", str(trace), *more)
    assert told.code == 2
    assert says in told.err


def test_a_compressed_trace_gives_its_report_the_same_name(trace: Path, helio: Helio) -> None:
    packed = trace.with_name("packed.csv.gz")
    packed.write_bytes(gzip.compress(trace.read_bytes()))
    assert helio("simulate", str(packed), "--policy", "fifo").code == 0
    assert (trace.parent / "packed-simulation.html").exists()


def test_a_missing_trace_is_named(helio: Helio) -> None:
    told = helio("simulate", "nowhere.csv")
    assert told.code == 2 and "nowhere.csv: no such file" in told.err


def test_the_policy_digest_is_that_of_the_engine_and_of_the_benchmarks(
    helio: Helio, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = helio("queue", "policy", "--digest").out.strip()
    assert digest == Engine().policy_digest()
    assert simulator(["bench", "decide", "--gpus", "16", "--pending", "4", "--queues", "2", "--cycles", "3"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["policy_digest"] == digest
    shown = helio("queue", "policy").out
    assert shown.startswith(f"policy default, digest {digest}") and "work_budget" in shown
    assert json.loads(helio("queue", "policy", "--json").out)["digest"] == digest


def test_another_policy_in_the_control_plane_is_told(helio: Helio, monkeypatch: pytest.MonkeyPatch) -> None:
    own, runs = Engine().policy_digest(), {"digest": ""}
    monkeypatch.setattr(Client, "cluster", lambda self: {"control": {"policy_digest": runs["digest"]}})
    runs["digest"] = own
    assert helio("queue", "policy", "--live", "--digest") == Outcome(0, own + "\n", "")
    runs["digest"] = "feed"
    told = helio("queue", "policy", "--live")
    assert (told.code, told.out) == (1, "policy default, digest feed\n")
    assert own in told.err
