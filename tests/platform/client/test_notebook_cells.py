"""The cells of docs/examples/first_job.ipynb run, in order, against the fake server. (tests/e2e runs them in a kernel.)"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from heliostat.client.client import Client

from tests.platform.client.conftest import Clock
from tests.platform.client.fake_server import FakeServer

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "examples" / "first_job.ipynb"


def code_cells() -> list[str]:
    return [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]


async def run_cell(source: str, names: dict[str, Any]) -> None:
    code = compile(source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


async def test_the_cells_run(client: Client, server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_sleep(seconds: float) -> None:
        clock.sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    for job_id in ("job-01", "job-02"):
        server.logs[job_id] = "step 0\n"
        server.explanations[job_id] = {"code": "Held", "sentence": "somebody holds it"}
    names: dict[str, Any] = {}
    for source in code_cells():
        if "await job" in source:
            server.script("job-01", {}, {"state": "running"}, {"state": "succeeded", "ran_s": 2})
        if "await later" in source:
            server.script("job-02", {"state": "running"}, {"state": "succeeded", "ran_s": 1})
        await run_cell(source, names)
    assert [job["state"] for job in server.jobs.values()] == ["succeeded", "succeeded"]


def test_the_notebook_was_executed_and_failed_nowhere() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    shown = json.dumps(cells)
    assert "succeeded" in shown and "text/html" in shown and "hs_" not in shown, "cards are in, tokens are not"
