"""Users' own traces: the format, the comparison and its report."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest
from heliostat_scheduler.simulator import compare, plots, policies
from heliostat_scheduler.simulator.own_traces import quotas
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.spans import Span, curves
from heliostat_scheduler.simulator.tables import BadInput

ROWS = ["job_id,queue,submit_s,duration_s,num_gpus"] + [
    f"j{i},{'ab'[i % 2]},{30 * i},{100 + 40 * (i % 5)},{(1, 2, 8, 4)[i % 4]}" for i in range(24)
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def test_every_policy_finishes_every_job_and_the_report_stands_alone(trace: Path) -> None:
    found = compare(trace, list(policies()), nodes=2)
    assert [row["jobs"] for row in found.rows] == [24] * len(policies())
    page = found.html()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 4 + 2 * len(policies())  # four of all together, two of each
    assert "<script" not in page
    assert "http" not in page


def test_nobody_holds_a_gpu_twice_and_every_job_gets_its_time(trace: Path) -> None:
    found = compare(trace, ["default", "tiresias"], nodes=2)
    for replay in found.replays.values():
        ran: dict[str, float] = {}
        for span in replay.spans:
            assert span.gpus == found.gpus_of[span.job]
            ran[span.job] = ran.get(span.job, 0) + span.to_s - span.from_s
        assert all(ran[job.id] >= job.duration_s for job in replay.done)
        for at in {span.from_s for span in replay.spans}:
            held: dict[int, int] = {}
            for span in replay.spans:
                if span.from_s <= at < span.to_s:
                    for node, gpus in span.held:
                        held[node] = held.get(node, 0) + gpus
            assert max(held.values()) <= 8


def test_curves_are_means_over_bins() -> None:
    spans = [Span("x", "a", 0, 120, ((0, 4),)), Span("y", "b", 120, 240, ((0, 8),))]
    done = [Finished("x", "a", 0, 120, 120), Finished("y", "b", 0, 120, 240)]
    made = curves(spans, done, {"x": 4, "y": 8})
    assert made.used["a"][:120].tolist() == [4.0] * 120
    assert made.utilization(8)[0] == 0.5 and made.utilization(8)[-1] == 1
    assert made.fairness({"a": 4, "b": 4})[0] == 0  # b wants its 4 GPUs and has none
    assert made.fairness({"a": 4, "b": 4})[-1] == 1


def test_without_nodes_the_cluster_follows_the_trace(trace: Path) -> None:
    found = compare(trace, ["fifo"])
    assert found.gpus % 8 == 0
    utilization = found.rows[0]["utilization"]
    assert isinstance(utilization, float) and 0.4 < utilization <= 1


def test_parquet_says_the_same(trace: Path, tmp_path: Path) -> None:
    other = tmp_path / "own.PARQUET"
    parquet.write_table(csv.read_csv(trace), other)
    one, two = (compare(path, ["default"], nodes=2).rows[0] for path in (trace, other))
    assert one["avg_jct_s"] == two["avg_jct_s"]


def test_quotas_follow_demand_and_add_up() -> None:
    jobs = [PhillyJob("1", "a", 0, 300, 1), PhillyJob("2", "b", 0, 100, 1), PhillyJob("3", "c", 0, 1, 1)]
    assert sum(quotas(jobs, 16).values()) == 16
    assert quotas(jobs, 16, {"c": 8})["c"] == 8
    with pytest.raises(BadInput, match="add up"):
        quotas(jobs, 4, {"a": 5})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("submit_s,num_gpus\n1,1\n", "duration_s is missing", id="a column is missing"),
        pytest.param("submit_s,duration_s,num_gpus\n1,x,1\n", "not a number", id="a cell is no number"),
        pytest.param("submit_s,duration_s,num_gpus\n0,nan,1\n", "line 2.*not a finite number >= 0", id="not a number"),
        pytest.param("submit_s,duration_s,num_gpus\n1700000000000,5,1\n", "seconds are needed", id="milliseconds"),
        pytest.param("submit_s,duration_s,num_gpus\n0,1e300,1\n", "seconds are needed", id="a time beyond all bounds"),
        pytest.param("submit_s,duration_s,num_gpus,job_id\n0,5,1,x\n1,5,1,x\n", "line 3: job_id x", id="a job twice"),
        pytest.param("submit_s,duration_s,num_gpus\n1,5,99\n", "never fit", id="a job is larger than the cluster"),
        pytest.param("submit_s;duration_s;num_gpus\n1;2;3,4\n", "separated by commas", id="another separator"),
        pytest.param("submit_s,duration_s,num_gpus\n\n1,5,1,9\n", "line 3: 4 cells under 3", id="a row too long"),
        pytest.param("submit_s,duration_s,num_gpus,num_gpus\n1,5,1,2\n", "num_gpus is there twice", id="a column twice"),
        pytest.param("submit_s,duration_s,num_gpus\n1,5,1_0\n", "'1_0', not a number", id="a number as Python has it"),
        pytest.param(
            'submit_s,duration_s,num_gpus,queue\n1,5,1,"a\n2,5,1,b\n', "line 2: .*a quote missing", id="an open quote",
        ),
        pytest.param(
            'submit_s,duration_s,num_gpus,queue\n1,5,1,"a\n2,5,1,b"\n3,5,1,c\n', "line 2: a cell goes on to line 3.*quote",
            id="a quote that closes in another row",
        ),
        pytest.param(
            'submit_s,duration_s,num_gpus,queue\n1,5,1,"a\n2,5,1,"b"\n', "line 2: .*a quote missing", id="a quote too many",
        ),
    ],
)  # fmt: skip
def test_a_bad_trace_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        compare(path, ["default"], nodes=1)


def test_what_is_not_named_gets_a_name_that_nobody_has(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("submit_s,duration_s,num_gpus,job_id\n0,5,1,row-2\n1,5,1,\n2,5,1,\n")
    assert set(compare(path, ["fifo"]).gpus_of) == {"row-2", "row-2'", "row-3"}


def test_a_trace_is_unpacked_by_what_it_is_and_not_by_its_name(trace: Path, tmp_path: Path) -> None:
    plain, packed, cut = tmp_path / "plain.csv.gz", tmp_path / "packed.csv", tmp_path / "cut.csv.gz"
    plain.write_bytes(trace.read_bytes())
    packed.write_bytes(gzip.compress(trace.read_bytes()))
    assert len(compare(plain, ["fifo"]).gpus_of) == len(compare(packed, ["fifo"]).gpus_of) == 24
    cut.write_bytes(packed.read_bytes()[:50])
    with pytest.raises(BadInput, match="not a readable CSV table: Compressed file ended"):
        compare(cut, ["fifo"])
    cut.write_bytes(b"submit_s\n\xff")
    with pytest.raises(BadInput, match="byte 9 is no UTF-8 text"):
        compare(cut, ["fifo"])


def test_a_job_that_needs_a_cluster_beyond_all_bounds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("submit_s,duration_s,num_gpus\n1,5,1000000000\n")
    with pytest.raises(BadInput, match="1250000000 GPUs is not simulated"):
        compare(path, ["default"])


def test_a_null_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "null.parquet"
    parquet.write_table(pa.table({"submit_s": [0, 1], "duration_s": [5, None], "num_gpus": [1, 1]}), path)
    with pytest.raises(BadInput, match="row 2: column duration_s holds None"):
        compare(path, ["default"], nodes=1)


def test_the_origin_of_time_and_a_byte_order_mark_make_no_difference(trace: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in ROWS[1:]]
    moved = [",".join([job, queue, str(int(submit) - 500), *rest]) for job, queue, submit, *rest in rows]
    other = tmp_path / "moved.csv"
    other.write_text("\n".join([ROWS[0], *reversed(moved)]) + "\n", encoding="utf-8-sig")
    one, two = (compare(path, ["default"], nodes=2).replays["default"] for path in (trace, other))
    assert one.spans == two.spans


def test_names_in_a_legend_do_not_cover_each_other_and_every_policy_has_its_colour() -> None:
    names = [*policies(), "a-queue-whose-name-is-longer-than-anybody-can-read"]
    texts = re.findall(
        r'<text x="(\d+)" y="(\d+)" font-size="12" fill="(.*?)">(.*?)</text>', plots.lines({name: [] for name in names})
    )
    assert [name for *_, name in texts[:-1]] == list(policies()) and texts[-1][3].endswith("…")
    assert len({colour for _, _, colour, _ in texts[:-1]}) == len(policies())
    for (x, y, _, name), (next_x, next_y, *_) in pairwise(texts):
        assert int(x) + 6.5 * len(name) < (int(next_x) if y == next_y else plots.WIDTH)
    assert int(texts[-1][1]) < plots.MARGIN


@pytest.mark.parametrize(
    ("seconds", "longest", "text"),
    [
        pytest.param(65_220, None, "18.1 h", id="hours"),
        pytest.param(600_000, None, "6.94 d", id="days"),
        pytest.param(3_000, 600_000, "0.0347 d", id="on an axis of days"),
        pytest.param(0, 5_400, "0 min", id="the origin"),
        pytest.param(61.26, None, "61.3 s", id="seconds"),
        pytest.param(86_400 * 5_000, None, "5,000 d", id="thousands"),
    ],
)
def test_times_are_told_in_a_unit_and_without_powers_of_ten(seconds: float, longest: float | None, text: str) -> None:
    assert plots.span_text(seconds, longest) == text


def test_every_axis_of_the_report_has_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("submit_s,duration_s,num_gpus\n" + "".join(f"{600 * i},70000,1\n" for i in range(1_500)))
    page = compare(path, ["fifo"], nodes=16).html()
    ticks = re.findall(r'font-size="11" text-anchor="middle">(.*?)</text>', page)
    assert len(ticks) == 6 * 3 and all(re.fullmatch(r"[\d.,]+ (d|h|min|s)", tick) for tick in ticks), ticks
    numbers = re.findall(r'font-size="11" text-anchor="end">(.*?)</text>', page)
    assert numbers and not [number for number in (*ticks, *numbers) if "e+" in number]
    assert re.search(r"<td>\d+\.\d%</td>", page), "utilization in percent"


def test_an_unknown_policy_lists_the_known_ones(trace: Path) -> None:
    with pytest.raises(BadInput, match="tiresias"):
        compare(trace, ["magic"], nodes=1)
