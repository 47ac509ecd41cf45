"""The table of the scheduling benchmarks: what holds, what is missed, and that nothing is claimed before it was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.scheduler.commands import commands
from benchmarks.scheduler.lines import rows


def _philly(**changed: Any) -> dict[str, dict[str, Any]]:
    vcs = {f"vc{i}": {"delay_s": 70.0, "static_delay_s": 20.0, "pass": True} for i in range(11)}
    result = {
        "avg_jct_s": 11_700.0,
        "mean_delay_s": 340.0,
        "shortfall_gpu_h": 0.0,
        "cpu_s": 200.0,
        "peak_memory_mb": 140.0,
        "per_vc": vcs,
    }
    return {"philly-P2-heliostat": result | changed}


def _missed(results: dict[str, dict[str, Any]]) -> list[str]:
    return [line.what for line in rows(results) if not line.holds]


def test_a_good_month_holds_every_line_and_says_which_moonshots_it_misses() -> None:
    lines = {line.what: line for line in rows(_philly())}
    assert all(line.holds for line in lines.values())
    assert lines["Philly October P2, average JCT"].reached is False
    assert lines["Philly, delay criterion"].reached is False
    assert lines["Philly, shortfall"].reached is True


@pytest.mark.parametrize(
    "changed, missed",
    [
        ({"avg_jct_s": 11_850.1}, "Philly October P2, average JCT"),
        ({"shortfall_gpu_h": 365.5}, "Philly, shortfall"),
        ({"cpu_s": 301.0}, "Philly, CPU time of one core"),
        ({"per_vc": {"a": {"delay_s": 90.0, "static_delay_s": 20.0, "pass": False}}}, "Philly, delay criterion"),
    ],
)
def test_a_missed_line_is_named(changed: dict[str, Any], missed: str) -> None:
    assert _missed(_philly(**changed)) == [missed]


def test_a_mean_is_claimed_only_when_all_its_workloads_were_run() -> None:
    one = {f"pollux-workloads-{w}-heliostat": {"avg_jct_s": 2_500.0, "wall_s": 40.0} for w in range(1, 6)}
    assert not list(rows(one))
    six = one | {"pollux-workloads-6-heliostat": {"avg_jct_s": 2_700.0, "wall_s": 61.0}}
    assert _missed(six) == [
        "Pollux 1.0x, mean of workloads 1-6",
        "Pollux 1.0x, longest wall time of a workload",
        "Pollux workload 6",
    ]


def test_a_yardstick_has_to_agree() -> None:
    near = {"muri-trace3-srtf": {"avg_jct_s": 193_082 * 1.004}}
    far = {"muri-trace3-srtf": {"avg_jct_s": 193_082 * 1.006}}
    assert not _missed(near) and _missed(far)


def test_commands_have_names_of_their_own() -> None:
    names = [command.name for command in commands(Path("/traces"))]
    assert len(names) == len(set(names)) and not any(
        a != b and b.startswith(a) for a in names for b in names if "1k" in a
    )
