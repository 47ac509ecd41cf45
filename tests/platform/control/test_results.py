"""What a job writes into result.json arrives in its row, and rubbish is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from heliostat.control import results

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert results.read(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"metrics": {"accuracy": "high"}}', '{"metrics": {}, "model": {"path": "../../etc/passwd"}}']
)
def test_rubbish_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    found = results.read(tmp_path)
    assert found is not None and found["problem"]


def test_the_result_of_a_job_is_in_its_row(plant: Plant) -> None:
    plant.submit("r1", work=Script(runs_ms=700))
    plant.until(lambda: plant.state("r1") == "running", "r1 to run")
    body = {"metrics": {"accuracy": 0.97}, "model": {"path": "model"}}
    (plant.folder / "runs" / "r1" / "result.json").write_text(json.dumps(body))
    plant.until(lambda: plant.state("r1") == "succeeded", "r1 to succeed")
    result = plant.job("r1").result
    assert result is not None and result["metrics"] == {"accuracy": 0.97}
