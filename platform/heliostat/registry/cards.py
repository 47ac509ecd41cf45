"""A staged folder is looked at before it becomes an artifact: model.json, the weights, the code, and nothing that does not belong."""

from __future__ import annotations

from pathlib import Path

from heliostat_jobs.spec import MODEL_FILE, WEIGHTS, BadModel, ModelCard

from heliostat.artifacts.manifest import walk
from heliostat.registry.errors import RegistryError
from heliostat.registry.weights import check_weights

MAX_CARD = 1 << 20
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".bin", ".npy", ".npz")
"""Files whose usual readers unpickle."""
CODE = "code/"


def read_card(folder: Path, *, allow_pickle: bool) -> ModelCard:
    """The card of a folder that may become a version; RegistryError says what is wrong with it."""
    path = folder / MODEL_FILE
    if not path.is_file():
        text = f"The folder has no {MODEL_FILE} at its top."
        raise RegistryError("bad_model", text, "docs/models.md says what goes into it.")
    if path.stat().st_size > MAX_CARD:
        raise RegistryError("bad_model", f"{MODEL_FILE} is larger than {MAX_CARD} bytes.", "Keep weights out of it.")
    try:
        card = ModelCard.parse(path.read_text(encoding="utf-8"))
    except (BadModel, UnicodeDecodeError) as error:
        remedy = "Correct model.json; docs/models.md has the format."
        raise RegistryError("bad_model", f"{MODEL_FILE}: {error}.", remedy) from error
    _check_files(folder, card, allow_pickle)
    check_weights(folder / card.weights, card.format)
    if card.format == "safetensors":
        _check_factory(folder, card)
    return card


def _check_files(folder: Path, card: ModelCard, allow_pickle: bool) -> None:
    for name, _path in walk(folder):
        pickled = name.lower().endswith(PICKLES)
        if pickled and not allow_pickle:
            raise RegistryError(
                "pickle_refused",
                f"{name} is a pickle or may hold one: whoever loads it runs whatever its author wrote.",
                "Save weights as safetensors, scikit-learn models with skops, or export to ONNX. An admin of the project may "
                "push it with --allow-pickle.",
                403,
            )
        if name in WEIGHTS.values() and name != card.weights:
            text = f"The folder has {name} beside {card.weights}, the weights of format {card.format}."
            raise RegistryError("bad_model", text, "One artifact holds one model; push the other one by itself.")


def _check_factory(folder: Path, card: ModelCard) -> None:
    """A factory from code/ is there as a file; one of an installed package cannot be checked here."""
    module = card.factory.split(":")[0].replace(".", "/")
    places = (f"{CODE}{module}.py", f"{CODE}{module}/__init__.py")
    if (folder / CODE).is_dir() and not any((folder / place).is_file() for place in places):
        text = f"{MODEL_FILE}: factory {card.factory} is not in code/: there is no {places[0]}."
        raise RegistryError("bad_model", text, "Put the module's file into code/, or correct factory.")
