"""Training by name, from a script, or from a function: what `train` asks the queue for.

A recipe comes with the wheel (`recipes()` lists them) and its options are checked here, before anything waits. A script is a Ray
program, or any program: it runs as a driver, its folder travels along. A function is the `train_loop_per_worker` of Ray Train: it
travels as a pickle made by cloudpickle, and a checkpoint that it reports with a model.json in it becomes the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heliostat_jobs.spec import MODEL_NAME, RECIPES, BadResult, Recipe, check_alias

from heliostat.client.asking import Gpus, gpu_fields
from heliostat.client.listing import Listing
from heliostat.render.models import recipe_table
from heliostat.wire.errors import BadRequest, NeverFits

if TYPE_CHECKING:
    from heliostat.client.client import Client
    from heliostat.client.job import Job

Device = Literal["auto", "cpu", "gpu"]
Trainable = str | Path | Callable[..., object]
FUNCTION_MODULE = "heliostat_jobs.recipes.function"
FUNCTION_FILE, ABOUT_FILE = "function.pkl", "function.json"
ON_CPUS = "Or train without GPUs: --device cpu (SDK: device='cpu')."


@dataclass(frozen=True, slots=True)
class Training:
    """What `train` asks for beside the target. options: of a recipe. args: of a script. config: of a function."""

    workers: Gpus | None = None
    device: Device = "auto"
    register: str = ""
    alias: str = ""
    options: Mapping[str, object] | None = None
    args: Sequence[str] = ()
    config: Mapping[str, object] | None = None
    working_dir: str | Path | None = None


def recipes() -> Listing[Recipe]:
    """The training programs that come with Heliostat."""
    return Listing(RECIPES.values(), recipe_table)


def train(client: Client, target: Trainable, training: Training, **asked: Any) -> Job:  # Any: arguments of submit
    """Queue a training; `asked` goes to `Client.submit`."""
    asked["metadata"] = {**(asked.get("metadata") or {}), **_registration(training)}
    least, most = _range(training.workers)
    if callable(target):
        return _function(client, target, training, (least, most), asked)
    recipe = None if isinstance(target, Path) else RECIPES.get(target)
    if recipe is not None:
        return _recipe(client, recipe, training, (least, most), asked)
    return _script(client, Path(target), training, (least, most), asked)


def _recipe(client: Client, recipe: Recipe, training: Training, size: tuple[int, int], asked: dict[str, Any]) -> Job:
    if training.args or training.config:
        raise BadRequest(f"{recipe.name} is a recipe and takes options by name.", remedy=_options(recipe))
    words = ["python", "-m", recipe.module, *_option_words(recipe, training.options or {})]
    asked.setdefault("name", recipe.name)
    if not recipe.workers:
        if size != (1, 1) or training.device == "gpu":
            raise BadRequest(f"{recipe.name} is one process without GPU.", remedy="Leave workers and device out.")
        return client.submit(words, kind="command", **asked)
    words += ["--workers", _span(size), "--device", training.device]
    return _submit(client, words, training.device, size, asked)


def _script(client: Client, path: Path, training: Training, size: tuple[int, int], asked: dict[str, Any]) -> Job:
    if path.suffix != ".py":
        known = ", ".join(RECIPES)
        raise BadRequest(
            f"'{path}' is neither a recipe nor a Python script.",
            remedy=f"Recipes: {known}. Other programs: helio submit",
        )
    if training.options:
        first = next(iter(training.options))
        raise BadRequest(
            f"{path.name} is a script: '{first}' is no option of train.",
            remedy="Arguments of a script come after -- (SDK: args=[...]).",
        )
    folder = Path(training.working_dir or path.expanduser().absolute().parent).expanduser().resolve()
    script = path if path.is_absolute() else (folder / path if (folder / path).is_file() else path.absolute())
    if not script.is_file() or not script.resolve().is_relative_to(folder):
        raise BadRequest(f"There is no script {path} in {folder}.", remedy="Check the path, and working_dir.")
    words = ["python", str(script.resolve().relative_to(folder)), *training.args]
    asked.setdefault("name", path.stem)
    return _submit(client, words, training.device, size, {**asked, "working_dir": folder})


def _function(
    client: Client, target: Callable[..., object], training: Training, size: tuple[int, int], asked: dict[str, Any]
) -> Job:
    if training.options or training.args:
        raise BadRequest("A function takes its settings as config={...}.", remedy="Put them there.")
    name = getattr(target, "__name__", "function")
    asked.setdefault("name", name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / FUNCTION_FILE).write_bytes(_pickled(target))
        about = {"name": name, "python": list(sys.version_info[:2]), "config": dict(training.config or {})}
        try:
            (folder / ABOUT_FILE).write_text(json.dumps(about, allow_nan=False), encoding="utf-8")
        except (TypeError, ValueError) as error:
            raise BadRequest(f"config is no plain JSON: {error}.", remedy="Use numbers, strings, lists.") from error
        words = ["python", "-m", FUNCTION_MODULE, "--workers", _span(size), "--device", training.device]
        return _submit(client, words, training.device, size, {**asked, "working_dir": folder})


def _submit(client: Client, words: list[str], device: Device, size: tuple[int, int], asked: dict[str, Any]) -> Job:
    if device == "cpu":
        return client.submit(words, kind="ray", **asked)
    try:
        return client.submit(words, kind="ray", gpus=size, **asked)
    except NeverFits as error:
        remedy = f"{error.remedy} {ON_CPUS}".strip()
        raise NeverFits(
            error.message, code=error.code, remedy=remedy, status=error.status, problem=error.problem
        ) from error


def _pickled(target: Callable[..., object]) -> bytes:
    """The function by value: also what its own module defines, because that module is not on the cluster."""
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError as error:
        text = "Sending a function takes the package cloudpickle, which is not installed here."
        raise BadRequest(text, remedy="pip install cloudpickle, or train a script.") from error
    module = sys.modules.get(getattr(target, "__module__", ""), None)
    by_value = module is not None and module.__name__ != "__main__" and "site-packages" not in str(module.__file__)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        content: bytes = cloudpickle.dumps(target)
    except Exception as error:
        text = f"The function cannot be sent: {type(error).__name__}: {error}."
        raise BadRequest(text, remedy="Open files, locks and models inside the function, not outside.") from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return content


def _option_words(recipe: Recipe, given: Mapping[str, object]) -> list[str]:
    words: list[str] = []
    for name, value in given.items():
        option = recipe.option(name.replace("_", "-"))
        if option is None:
            raise BadRequest(f"{recipe.name} has no option '{name}'.", remedy=_options(recipe))
        try:
            words += [f"--{option.name}", option.check(value)]
        except ValueError as error:
            kind = "a whole number" if option.kind == "int" else "a number"
            raise BadRequest(f"{option.name}: '{value}' is not {kind}.", remedy=_options(recipe)) from error
    return words


def _options(recipe: Recipe) -> str:
    return "Its options: " + ", ".join(f"{option.name} ({option.default})" for option in recipe.options) + "."


def _registration(training: Training) -> dict[str, str]:
    if training.alias and not training.register:
        raise BadRequest("An alias without a model to register.", remedy="Say register as well.")
    if training.register and not MODEL_NAME.fullmatch(training.register):
        text = f"'{training.register[:100]}' is no name of a model: letters, digits, '.', '_' and '-'."
        raise BadRequest(text, remedy="Change register.")
    try:
        if training.alias:
            check_alias(training.alias)
    except BadResult as error:
        raise BadRequest(f"{error}.", remedy="Change alias.") from error
    named = {"register": training.register, "register_alias": training.alias}
    return {key: value for key, value in named.items() if value}


def _range(workers: Gpus | None) -> tuple[int, int]:
    """(fewest, most) of `4`, `"1..4"`, `(1, 4)`, `range(1, 5)`."""
    fields = gpu_fields(1 if workers is None else workers)
    least, most = fields.get("gpus", fields.get("min_gpus")), fields.get("gpus", fields.get("max_gpus"))
    if type(least) is not int or type(most) is not int or least < 1:
        raise BadRequest(f"workers: {workers!r} is no number of workers.", remedy="Write 2, or a range such as 1..4.")
    return least, most


def _span(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}-{size[1]}"
