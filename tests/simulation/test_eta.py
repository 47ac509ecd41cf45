"""The study of estimates on a small trace: jobs that wait get one, and the scores add up."""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path

import pytest
from heliostat_scheduler.forecast.eta import Scored
from heliostat_scheduler.simulator.__main__ import main
from heliostat_scheduler.simulator.eta.command import run
from heliostat_scheduler.simulator.eta.scoring import corrected, difference
from heliostat_scheduler.simulator.eta.telling import Told
from heliostat_scheduler.simulator.tables import BadInput


def trace(folder: Path, jobs: int = 90, seed: int = 2) -> Namespace:
    """Two tenants with a node each, overloaded in bursts."""
    rng = random.Random(seed)
    vcs, rows = folder / "vcs.csv", folder / "jobs.csv"
    vcs.write_text("vc,nodes_P2\na,1\nb,1\n")
    at, lines = 0, ["job_id,vc,submit_s,duration_s,num_gpus"]
    for index in range(jobs):
        at += rng.choice((30, 60, 600))
        lines.append(
            f"j{index},{rng.choice('ab')},{at},{int(rng.lognormvariate(7.5, 1))},{rng.choice((1, 1, 2, 4, 8))}"
        )
    rows.write_text("\n".join(lines) + "\n")
    return Namespace(trace=rows, vcs=vcs, record=folder / "record", apart=False, unranked=False, share=0.5, samples=3)


@pytest.mark.parametrize(
    ("apart", "unranked"),
    [
        pytest.param(False, False, id="as live"),
        pytest.param(True, True, id="each tenant for itself, nothing is expected of jobs"),
    ],
)
def test_jobs_that_wait_are_told_when_they_start(tmp_path: Path, apart: bool, unranked: bool) -> None:
    asked = trace(tmp_path)
    asked.apart, asked.unranked = apart, unranked
    told = run(asked)
    ours, naive = told["told"], told["naive"]
    assert isinstance(ours, dict) and isinstance(naive, dict)
    assert told["waited"] > told["jobs"] == ours["jobs"] == naive["jobs"] > 10  # type: ignore[operator]
    assert set(told["per_vc"]) == {"a", "b"}  # type: ignore[call-overload]
    assert ours["p90_held"] > naive["p90_held"] + 0.2
    assert ours["pinball_s"] < naive["pinball_s"]
    again = run(asked)
    assert {**again, "wall_s": 0} == {**told, "wall_s": 0}, "nothing is computed twice, and the answer stays"
    asked.unranked = not unranked
    with pytest.raises(BadInput, match="another folder"):
        run(asked)


def test_an_estimate_is_corrected_by_outcomes_from_before_it_only() -> None:
    def row(index: int, at_s: int, waited_s: int) -> Told:
        return Told(f"j{index}", "q", at_s, 1000 * waited_s, 600_000, 900_000, 8, (0, 0), (0, 0))

    early = [row(index, 10 * index, 1_800) for index in range(30)]
    before, after = row(40, 1_000, 1_800), row(41, 3_000, 1_800)
    told = corrected([*early, before, after])
    assert told[-2].p90_ms == 900_000, "nobody has started yet"
    assert told[-1].p90_ms is not None and 1_800_000 <= told[-1].p90_ms < 3_600_000, "thirty have, after twice as long"


def test_the_interval_of_a_difference() -> None:
    ours = [Scored("q", 1_000 * index, 1_000 * index, 1_000 * index) for index in range(1, 50)]
    naive = [Scored("q", 1_000 * index, 0, 0) for index in range(1, 50)]
    found = difference(ours, naive)
    low, high = found["interval_s"]  # type: ignore[misc]
    assert low < found["mean_s"] < high < 0 and found["gain"] == 1.0  # type: ignore[operator]


def test_a_file_where_the_recording_should_go_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record"
    path.write_text("")
    for record in (path, path / "below"):
        assert main(["eta", "--trace", "t.csv", "--vcs", "v.csv", "--record", str(record)]) == 2
        assert f"--record {path} is no folder" in capsys.readouterr().err
