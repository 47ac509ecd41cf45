"""What a job leaves behind, as the platform reads it: result.json, the model it names, steps.jsonl, and the recipes. Ray-free.

A job never talks to the registry. It writes `result.json` and the folder of its model into its run folder, and the control plane
validates and registers them when the job has succeeded. Standard library only: the platform imports this module.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

RESULT_FILE = "result.json"
STEPS_FILE = "steps.jsonl"
MODEL_FILE = "model.json"
MAX_RESULT_BYTES = 1 << 20
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ALIAS_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
WEIGHTS = {"safetensors": "model.safetensors", "skops": "model.skops", "onnx": "model.onnx", "pickle": "model.pkl"}
"""Format -> the file with the weights."""
DTYPES = frozenset(
    {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"}
)  # fmt: skip
"""Names of the Open Inference Protocol v2 that `heliostat_serving` can serve (a test compares). Not BF16: numpy does not know it."""
MAX_TAGS = 64
MAX_TEXT = 2_000


class BadResult(ValueError):
    """result.json cannot be used; says which field and why."""


class BadModel(ValueError):
    """model.json cannot be used; says which field and why."""


Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model. shape: the first dimension is the batch, -1; others are sizes, or -1 for any.

    example: the values of one row of an input, in order, each -1 taken as 1; what a model is tried with that cannot answer zeros or "".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    example: tuple[Scalar, ...] | None = None

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 200 or not self.name.isprintable():
            raise BadModel(f"signature: {self.name[:40]!r} is no name of a tensor")
        if self.dtype not in DTYPES:
            raise BadModel(f"signature: {self.name}: dtype {self.dtype!r} is none of {', '.join(sorted(DTYPES))}")
        if not self.shape or self.shape[0] != -1 or any(size != -1 and size < 1 for size in self.shape):
            raise BadModel(f"signature: {self.name}: shape {list(self.shape)} must begin with -1 (the batch)")
        if self.example is not None:
            self._check_example(self.example)

    def _check_example(self, example: tuple[Scalar, ...]) -> None:
        size = math.prod(max(1, size) for size in self.shape[1:])
        if len(example) != size:
            raise BadModel(
                f"signature: {self.name}: example has {len(example)} values; one row of {list(self.shape)} has {size}"
            )
        fits: tuple[type, ...] = (float, int)
        fits = {"BOOL": (bool,), "BYTES": (str,)}.get(self.dtype, (int,) if "INT" in self.dtype else fits)
        if not all(type(value) in fits and (type(value) is not float or math.isfinite(value)) for value in example):
            raise BadModel(f"signature: {self.name}: example has a value that is no {self.dtype}")

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        row: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        return row if self.example is None else {**row, "example": list(self.example)}

    @classmethod
    def read(cls, body: Any) -> Tensor:  # Any: JSON
        shape = body.get("shape") if isinstance(body, dict) else None
        numbers = isinstance(shape, list) and all(type(size) is int for size in shape)
        if not numbers or not isinstance(body.get("name"), str) or not isinstance(body.get("dtype"), str):
            raise BadModel("signature: each input and output needs name, dtype and shape (a list of whole numbers)")
        example = body.get("example")
        if example is not None and not isinstance(example, list):
            raise BadModel(f"signature: {body['name']}: example must be a list, the values of one row")
        return cls(body["name"], body["dtype"], tuple(body["shape"]), None if example is None else tuple(example))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. allow_nan: whether inputs may hold NaN or infinities."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    allow_nan: bool = False

    def __post_init__(self) -> None:
        for what, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if not names or len(names) != len(set(names)):
                raise BadModel(f"signature: {what} must have at least one tensor, each with a name of its own")

    @classmethod
    def read(cls, body: Any) -> Signature:  # Any: JSON
        if not isinstance(body, dict) or not all(isinstance(body.get(key), list) for key in ("inputs", "outputs")):
            raise BadModel("signature: an object with the lists inputs and outputs is missing")
        if not isinstance(body.get("allow_nan", False), bool):
            raise BadModel("signature: allow_nan is true or false")
        tensors = [tuple(Tensor.read(tensor) for tensor in body[key]) for key in ("inputs", "outputs")]
        return cls(tensors[0], tensors[1], body.get("allow_nan", False))

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        rows = [[tensor.to_json() for tensor in tensors] for tensors in (self.inputs, self.outputs)]
        return {"inputs": rows[0], "outputs": rows[1], "allow_nan": self.allow_nan}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`model.json`: how a model folder is loaded and called.

    format: safetensors, skops, onnx or pickle; the weights lie beside it under the name in WEIGHTS.
    factory, args: for safetensors: `module:callable` that builds the module to load the weights into, from `code/` or an installed package.
    skops_trusted: types that skops may load beyond its own list.
    """

    format: str
    signature: Signature
    factory: str = ""
    args: dict[str, Any] = field(default_factory=dict)  # Any: JSON
    skops_trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in WEIGHTS:
            raise BadModel(f"format: {self.format!r} is none of {', '.join(WEIGHTS)}")
        if self.format == "safetensors" and not FACTORY.fullmatch(self.factory):
            raise BadModel(f"factory: {self.factory!r} is not module:callable; safetensors hold weights and no model")

    @property
    def weights(self) -> str:
        return WEIGHTS[self.format]

    @classmethod
    def parse(cls, text: str) -> ModelCard:
        """Raises BadModel. Unknown fields are ignored: a newer job may write more."""
        body = _object(text, BadModel)
        kind, factory, args = body.get("format"), body.get("factory", ""), body.get("args", {})
        trusted = body.get("skops_trusted", [])
        if (
            not isinstance(kind, str)
            or not isinstance(factory, str)
            or not isinstance(args, dict)
            or not _is_finite(args)
        ):
            raise BadModel("format and factory are strings, args is an object of plain JSON")
        if not isinstance(trusted, list) or not all(isinstance(name, str) for name in trusted):
            raise BadModel("skops_trusted: a list of type names")
        return cls(kind, Signature.read(body.get("signature")), factory, args, tuple(trusted))

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        body: dict[str, Any] = {"format": self.format, "signature": self.signature.to_json()}
        if self.factory:
            body |= {"factory": self.factory, "args": self.args}
        return body | ({"skops_trusted": list(self.skops_trusted)} if self.skops_trusted else {})

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n"
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The model that a job made. path: its folder inside the run folder. name: empty for a model that is not to be registered.

    sha256: of the artifact, when the job wants it compared. code_digest, data_digest: of what it was made from, as the job says.
    """

    path: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    code_digest: str = ""
    data_digest: str = ""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if not self.path or "\0" in self.path or path == PurePosixPath(".") or path.is_absolute() or ".." in path.parts:
            raise BadResult(f"model.path: {self.path[:200]!r} is no folder inside the run folder")
        if self.name and not MODEL_NAME.fullmatch(self.name):
            raise BadResult(f"model.name: {self.name[:200]!r} is no name: letters, digits, '.', '_' and '-'")
        for alias in self.aliases:
            check_alias(alias)
        check_tags(self.tags)
        for name in ("sha256", "code_digest", "data_digest"):
            if getattr(self, name) and not DIGEST.fullmatch(getattr(self, name)):
                raise BadResult(f"model.{name}: not 64 hexadecimal digits")

    @classmethod
    def read(cls, body: Any) -> ModelEntry:  # Any: JSON
        if not isinstance(body, dict):
            raise BadResult("model: an object with path, and name where it is to be registered")
        texts = {key: body.get(key, "") for key in ("path", "name", "sha256", "code_digest", "data_digest")}
        wrong = [key for key, value in texts.items() if not isinstance(value, str)]
        aliases, tags = body.get("aliases", []), body.get("tags", {})
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            wrong.append("aliases")
        if not isinstance(tags, dict):
            wrong.append("tags")
        if wrong:
            raise BadResult(f"model.{wrong[0]}: path, name and digests are strings, aliases a list, tags an object")
        return cls(**texts, aliases=tuple(aliases), tags=tags)


def check_alias(alias: str) -> None:
    """Raises BadResult for what is no alias. `latest` is computed, never set."""
    if not ALIAS_NAME.fullmatch(alias) or alias == "latest":
        raise BadResult(f"alias {alias[:80]!r}: lower-case letters, digits, '_' and '-', not 'latest'")


def check_tags(tags: Mapping[str, Any]) -> None:  # Any: JSON
    if len(tags) > MAX_TAGS or not all(isinstance(part, str) for pair in tags.items() for part in pair):
        raise BadResult(f"tags: at most {MAX_TAGS}, names and values are strings")
    if any(not key or len(key) > 100 or len(value) > MAX_TEXT for key, value in tags.items()):
        raise BadResult(f"tags: names of 1 to 100 characters, values of at most {MAX_TEXT}")


def check_metrics(metrics: Mapping[str, Any]) -> None:  # Any: JSON
    """Raises BadResult unless all are finite numbers."""
    for name, value in metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= sys.float_info.max:
            raise BadResult(f"metrics.{name}: {str(value)[:40]!r} is not a finite number")


@dataclass(frozen=True, slots=True)
class Result:
    """What a job achieved. metrics: finite numbers by name, e.g. accuracy. params: what it was trained with (JSON)."""

    metrics: dict[str, float]
    model: ModelEntry | None = None
    params: dict[str, Any] = field(default_factory=dict)  # Any: JSON

    def __post_init__(self) -> None:
        check_metrics(self.metrics)

    def to_json(self) -> str:
        body = asdict(self)
        if self.model is None:
            del body["model"]
        return json.dumps(body, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Raises BadResult. Unknown fields are ignored: a newer job may write more."""
        body = _object(text, BadResult)
        if not isinstance(body.get("metrics"), dict):
            raise BadResult("metrics: an object of numbers is missing")
        if not isinstance(body.get("params", {}), dict) or not _is_finite(body.get("params")):
            raise BadResult("params: not an object of plain JSON (NaN and infinities are none)")
        model = None if body.get("model") is None else ModelEntry.read(body["model"])
        return cls(body["metrics"], model, body.get("params", {}))

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


def _is_finite(body: object) -> bool:
    """Whether it is JSON that every reader takes: Python writes and reads NaN, others do not."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        return False
    return True


def _object(text: str, error: type[BadResult | BadModel]) -> dict[str, Any]:  # Any: JSON
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"not JSON: {fault}") from fault
    if not isinstance(body, dict):
        raise error("not a JSON object (metrics: is missing)" if error is BadResult else "not a JSON object")
    return body


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
class Option:
    """One setting of a recipe: `--name VALUE` on its command line, `name=value` in the SDK."""

    name: str
    kind: Literal["int", "float"]
    default: int | float
    help: str

    def check(self, value: object) -> str:
        """The word for the command line; ValueError for what is no value of it."""
        text = str(value)
        number = int(text) if self.kind == "int" else float(text)
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError(f"{text} is no number")
        return f"{number:d}" if isinstance(number, int) else repr(number)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training program that comes with the wheel: `python -m <module> --help`. workers: whether it runs on several, with GPUs."""

    name: str
    module: str
    summary: str
    workers: bool
    options: tuple[Option, ...]

    def option(self, name: str) -> Option | None:
        return next((option for option in self.options if option.name == name), None)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "digits-cnn",
            "heliostat_jobs.recipes.digits_cnn",
            "CNN on scikit-learn's digits, data parallel over N workers, resumes mid-epoch",
            workers=True,
            options=(
                Option("epochs", "int", 60, "passes over the 1,438 training images"),
                Option("batch-size", "int", 48, "images per step over all workers"),
                Option("width", "int", 32, "channels of the first convolution"),
                Option("learning-rate", "float", 1e-3, "of Adam"),
                Option("seed", "int", 7, "of split, order and weights"),
                Option("checkpoint-every", "int", 100, "steps between checkpoints"),
                Option("look-every", "int", 2, "steps between looks for a preemption"),
            ),
        ),
        Recipe(
            "wine-forest",
            "heliostat_jobs.recipes.wine_forest",
            "random forest on scikit-learn's wine, one process without GPU",
            workers=False,
            options=(
                Option("trees", "int", 200, "trees of the forest"),
                Option("max-depth", "int", 0, "levels of a tree, 0 for no limit"),
                Option("seed", "int", 7, "of split and forest"),
            ),
        ),
    )
}
