"""The client is light: which modules it loads, in a fresh interpreter. Seconds are measured in benchmarks/platform."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "ray", "torch", "numpy", "pandas", "pyarrow", "fastapi", "starlette", "sqlalchemy", "pydantic", "uvicorn", "httpx", "psutil",
    "yaml", "IPython", "cloudpickle",
}  # fmt: skip
SUBMIT = """
from heliostat.cli.main import run
from heliostat.cli.app import App
from heliostat.wire.call import Caller
from heliostat.wire.transport import Response

class Queue:
    def send(self, request):
        return Response(201, {"content-type": "application/json"}, b'{"id": "job-1", "state": "queued"}')

app = App(environ={"HELIOSTAT_HOME": "/nowhere", "HELIOSTAT_TOKEN": "t"},
          caller=lambda settings: Caller(Queue(), token="t", url=settings.url, user_agent="t"))
assert run(["submit", "--gpus", "1", "--", "echo", "hi"], app) == 0
"""
CASES = [
    pytest.param("import heliostat", {"click", "rich", "http.client", "asyncio", "ssl"}, 12, id="importing the SDK loads nothing yet"),
    pytest.param("import heliostat; heliostat.submit; heliostat.Job; heliostat.connect", {"click", "rich", "asyncio"}, 60,
                 id="naming its functions loads the standard library only"),
    pytest.param(SUBMIT, {"rich", "asyncio", "heliostat.local", "tomllib"}, 60, id="a whole helio submit"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "also_not", "most_of_ours"), CASES)
def test_modules_loaded(code: str, also_not: set[str], most_of_ours: int) -> None:
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(told.splitlines()[-1]))
    assert not loaded & (HEAVY | also_not)
    assert len([name for name in loaded if name.startswith("heliostat")]) <= most_of_ours
