"""The protocols with their yardstick policies, on excerpts of the public traces: numbers frozen from runs whose full traces agree
with the published results (Muri, Pollux) and the measured baselines (Philly)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from heliostat_scheduler.simulator.__main__ import main
from heliostat_scheduler.simulator.muri.replay import place_first_fit
from heliostat_scheduler.simulator.openb.data import Shape
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.nodes import NodeGroup
from heliostat_scheduler.simulator.philly.shortfall import Shortfall
from heliostat_scheduler.simulator.philly.tenants import static_delays

DATA = Path(__file__).parent / "data"
MURI = ["bench", "muri", "--trace", str(DATA / "muri_small.csv")]
PHILLY = ["bench", "philly", "--trace", str(DATA / "philly_small.csv"), "--vcs", str(DATA / "philly_vcs.csv")]
OPENB = [
    "bench",
    "openb",
    "--nodes",
    str(DATA / "openb_nodes.csv"),
    "--pods",
    str(DATA / "openb_pods.csv"),
    "--seeds",
    "2",
]


def run(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, object]:
    assert main(arguments) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


@pytest.mark.parametrize("policy", ["srtf", "srsf", "tiresias", "heliostat"])
def test_muri_finishes_every_job_and_is_deterministic(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (run(capsys, [*MURI, "--policy", policy]) for _ in range(2))
    assert first["jobs"] == 60
    assert {**first, "wall_s": 0, "cpu_s": 0} == {**second, "wall_s": 0, "cpu_s": 0}


def test_knowing_durations_beats_not_knowing_them(capsys: pytest.CaptureFixture[str]) -> None:
    srsf, tiresias = (run(capsys, [*MURI, "--policy", policy])["avg_jct_s"] for policy in ("srsf", "tiresias"))
    assert isinstance(srsf, float) and isinstance(tiresias, float)
    assert srsf <= tiresias


@pytest.mark.parametrize("cluster", ["P2", "P3"])
@pytest.mark.parametrize("policy", ["fifo", "sjf", "srtf", "tiresias"])
def test_philly_yardsticks_finish_every_job(cluster: str, policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, [*PHILLY, "--cluster", cluster, "--policy", policy])
    assert result["jobs"] == 150
    if policy in ("fifo", "sjf"):
        assert result["preemptions"] == 0


def test_philly_through_the_engine_reports_tenants_and_shortfall(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, [*PHILLY, "--cluster", "P2", "--policy", "heliostat"])
    assert result["jobs"] == 150
    assert isinstance(result["shortfall_gpu_h"], float)
    tenants = result["per_vc"]
    assert isinstance(tenants, dict)
    assert sorted(tenants) == ["103959", "e13805", "ed69ec"]
    assert all({"jobs", "delay_s", "static_delay_s", "pass"} <= row.keys() for row in tenants.values())


def test_pooled_yardsticks_say_what_they_withhold(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, [*PHILLY, "--cluster", "P3", "--policy", "fifo"])
    assert isinstance(result["shortfall_gpu_h"], float)
    assert isinstance(result["peak_memory_mb"], float) and result["peak_memory_mb"] > 1
    tenants = result["per_vc"]
    assert isinstance(tenants, dict) and sorted(tenants) == ["103959", "e13805", "ed69ec"]


def test_the_shortfall_is_what_borrowers_hold_of_the_entitled() -> None:
    shortfall = Shortfall({"a": 8, "b": 8})
    shortfall.used = {"a": 4, "b": 12}
    shortfall.until(10, lambda: {"a": [8, 2, 1]})  # 2 and 1 fit into a's quota, 8 does not
    assert shortfall.gpu_s == 30
    shortfall.until(20, lambda: {"a": [4, 4]})
    assert shortfall.gpu_s == 30 + 40
    shortfall.used = {"a": 4, "b": 8}
    shortfall.until(30, lambda: {"a": [4]})  # nobody borrows
    assert shortfall.gpu_s == 70


def test_a_tenant_alone_is_replayed_where_no_measurement_fits(tmp_path: Path) -> None:
    jobs = [PhillyJob(str(i), "a", 0, 100, 8) for i in range(3)]
    replayed = static_delays(jobs, {"a": 1, "b": 1}, tmp_path / "trace.csv")
    assert replayed == {"a": pytest.approx(100.0)}
    (tmp_path / "baselines_measured_per_vc.csv").write_text(
        "vc,window,cluster,policy,n_jobs,avg_jct_s\na,dev,P2,fifo,3,150\na,dev,P2,tiresias,99,101\n"
    )
    assert static_delays(jobs, {"a": 1, "b": 1}, tmp_path / "trace.csv") == {"a": pytest.approx(50.0)}


def test_a_shape_asks_at_least_what_a_smaller_one_does() -> None:
    half = Shape(4000, 1024, 1, 500)
    assert Shape(4000, 2048, 2, 1000).asks_at_least(half)
    assert Shape(4000, 1024, 1, 500, ("T4",)).asks_at_least(half)
    assert not half.asks_at_least(Shape(4000, 1024, 1, 500, ("T4",)))
    assert not Shape(3999, 1024, 1, 500).asks_at_least(half)
    assert not Shape(4000, 1024, 1, 499).asks_at_least(half)


@pytest.mark.parametrize("policy", ["random", "bestfit", "fgd", "heliostat"])
def test_openb_fills_the_fleet(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, [*OPENB, "--policy", policy])
    for key in ("alloc_pct_100", "alloc_pct_130", "frag_pct_50"):
        assert isinstance(result[key], float)
    allocated = result["alloc_pct_130"]
    assert isinstance(allocated, float)
    assert 70 < allocated <= 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["bench", "muri", "--trace", "nowhere.csv", "--policy", "srtf"], "no such file", id="a missing file"),
        pytest.param(
            ["bench", "muri", "--trace", str(DATA / "openb_pods.csv"), "--policy", "srtf"],
            "column job_id", id="another table",
        ),
        pytest.param(["scenarios", "nowhere.yaml"], "no such file", id="missing scenarios"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_the_exit_status_is_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_more_than_eight_gpus_take_whole_nodes_first() -> None:
    free = [8, 3, 8, 8]
    assert place_first_fit(18, free)
    assert free == [0, 1, 0, 8]
    assert not place_first_fit(16, free)


def test_up_to_eight_gpus_take_the_fullest_node_with_room() -> None:
    group = NodeGroup(3)
    assert group.take(6) == ((0, 6),)
    assert group.take(2) == ((0, 2),)
    assert group.take(12) == ((1, 8), (2, 4))
    assert group.take(5) is None
    group.give_back(((1, 8), (2, 4)))
    assert group.free == 16


def test_growth_writes_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(
        capsys,
        ["growth", "--out", str(tmp_path), "--sizes", "64", "96", "--gpus", "80", "--pending", "40", "--cycles", "5"],
    )
    points = result["points"]
    assert isinstance(points, list)
    assert [(row["gpus"], row["pending"]) for row in points] == [(64, 40), (96, 40), (80, 64), (80, 96)]
    assert "load average" in (tmp_path / "growth.md").read_text()
    assert (tmp_path / "growth.svg").read_text().count("<polyline") == 4
