"""What a job leaves behind, as the platform reads it: result.json, steps.jsonl, and the names of the recipes. Ray-free.

A job never talks to the registry. It writes `result.json` and the files it names into its run folder, and the control plane
validates and registers them when the attempt has ended. Standard library only: the platform imports this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

RESULT_FILE = "result.json"
STEPS_FILE = "steps.jsonl"
MAX_RESULT_BYTES = 1 << 20
SIGNATURE_TYPES = frozenset({"float32", "float64", "int32", "int64", "uint8", "bool", "string"})


class BadResult(ValueError):
    """result.json cannot be used; says which field and why."""


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output of a model. shape: -1 is any size (the batch)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a job achieved.

    metrics: finite numbers by name, e.g. accuracy.
    model: path of the model's artifact inside the run folder, empty for a job without a model.
    framework: what loads it: torch-safetensors, skops, onnx.
    inputs, outputs: the model's signature.
    params: what it was trained with (JSON).
    """

    metrics: dict[str, float]
    model: str = ""
    framework: str = ""
    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)  # Any: JSON

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BadResult(f"metrics.{name}: {value!r} is not a finite number")
        path = PurePosixPath(self.model)
        if path.is_absolute() or ".." in path.parts:
            raise BadResult(f"model: {self.model!r} leaves the run folder")
        for port in (*self.inputs, *self.outputs):
            if port.dtype not in SIGNATURE_TYPES:
                raise BadResult(f"{port.name}: dtype {port.dtype!r} is none of {', '.join(sorted(SIGNATURE_TYPES))}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Raises BadResult. Unknown fields are ignored: a newer job may write more."""
        try:
            body = json.loads(text)
        except ValueError as error:
            raise BadResult(f"not JSON: {error}") from error
        if not isinstance(body, dict) or not isinstance(body.get("metrics"), dict):
            raise BadResult("metrics: an object of numbers is missing")
        model, framework, params = body.get("model", ""), body.get("framework", ""), body.get("params", {})
        if not isinstance(model, str) or not isinstance(framework, str) or not isinstance(params, dict):
            raise BadResult("model and framework are strings, params is an object")
        return cls(body["metrics"], model, framework, _fields(body, "inputs"), _fields(body, "outputs"), params)

    def write(self, run_dir: Path) -> Path:
        """Write result.json into the run folder, whole or not at all."""
        target = run_dir / RESULT_FILE
        scratch = target.with_suffix(".tmp")
        scratch.write_text(self.to_json(), encoding="utf-8")
        return scratch.replace(target)


def read_result(run_dir: Path) -> Result | None:
    """The job's result, None when it wrote none. Raises BadResult."""
    path = run_dir / RESULT_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_RESULT_BYTES:
        raise BadResult(f"{RESULT_FILE} is larger than {MAX_RESULT_BYTES} bytes")
    return Result.from_json(path.read_text(encoding="utf-8"))


def _fields(body: Mapping[str, Any], key: str) -> tuple[Field, ...]:  # Any: JSON
    try:
        return tuple(
            Field(str(f["name"]), str(f["dtype"]), tuple(int(n) for n in f["shape"])) for f in body.get(key, ())
        )
    except (TypeError, KeyError, ValueError) as error:
        raise BadResult(f"{key}: each needs name, dtype and shape ({error})") from error


@dataclass(frozen=True, slots=True)
class StepCount:
    """A recount of steps.jsonl: what really ran, over all attempts.

    executed: optimizer steps run. distinct: different step numbers. recomputed: steps run again after a restart.
    missing: step numbers below the highest that never ran. changed: steps whose batch differed when they ran again.
    """

    executed: int
    distinct: int
    recomputed: int
    missing: int
    changed: int


def recount(lines: Iterable[str]) -> StepCount:
    """Count the lines of a steps.jsonl. A line cut off by a kill is not a step: its step had not ended."""
    batches: dict[int, str] = {}
    executed = changed = 0
    for line in lines:
        try:
            row = json.loads(line)
            step, batch = int(row["step"]), str(row["batch"])
        except (ValueError, KeyError, TypeError):
            continue
        executed += 1
        if batches.setdefault(step, batch) != batch:
            changed += 1
    highest = max(batches, default=-1)
    return StepCount(executed, len(batches), executed - len(batches), highest + 1 - len(batches), changed)


def recount_run(run_dir: Path) -> StepCount:
    """The recount of a job's run folder; all zero when it wrote no steps."""
    path = run_dir / STEPS_FILE
    if not path.is_file():
        return recount(())
    with path.open(encoding="utf-8", errors="replace") as lines:
        return recount(lines)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training program that comes with the wheel: `python -m <module> --help`."""

    name: str
    module: str
    summary: str


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "digits-cnn",
            "heliostat_jobs.recipes.digits_cnn",
            "CNN on scikit-learn's digits, data parallel over N workers, resumes mid-epoch",
        ),
    )
}
