"""Weights -> something that predicts. One function per format; every one of them gets verified files only.

safetensors holds numbers and skops holds types from a list, so neither runs code on load; the code of a torch model comes with its
artifact (`code/`), under a private module name, or from an installed package. A pickle runs whatever it wants: only where an
administrator allowed it.

BYTES are bytes on the wire. What scikit-learn and ONNX call a string is text, so their models get str: to an encoder b"red" is
no "red", and it would say so by another prediction, not by an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast  # Any: models of other libraries

import numpy as np

from heliostat_serving.model.artifact import Artifact, HeliostatLoadError
from heliostat_serving.spec import Signature, VersionSpec
from heliostat_serving.wire.tensors import NUMPY, Array, Tensors

Predict = Callable[[Tensors], Tensors]
FILES = {"safetensors": "model.safetensors", "skops": "model.skops", "onnx": "model.onnx", "pickle": "model.pkl"}
PACKAGES = {"sklearn": "scikit-learn"}
"""Modules that are not called like the package that brings them."""


class Estimator(Protocol):
    """What scikit-learn calls one."""

    def predict(self, features: Array) -> Array: ...

    def predict_proba(self, features: Array) -> Array: ...


def load(artifact: Artifact, spec: VersionSpec) -> Predict:
    card = artifact.card
    if card.signature != spec.signature:
        raise HeliostatLoadError("The signature in model.json is not the registered one. Push the model again.")
    try:
        return _loaded(artifact, spec)
    except ModuleNotFoundError as error:
        package = PACKAGES.get(error.name or "", error.name)
        raise HeliostatLoadError(
            f"This {card.format} model needs {error.name}, which is not installed where its replica runs. "
            f"On every node: pip install -c constraints.txt {package}"
        ) from error


def _loaded(artifact: Artifact, spec: VersionSpec) -> Predict:
    match artifact.card.format:
        case "safetensors":
            return _torch(artifact, spec)
        case "skops":
            return _skops(artifact)
        case "onnx":
            return _onnx(artifact, spec)
        case "pickle":
            return _pickle(artifact, spec)
    raise HeliostatLoadError(f"Format {artifact.card.format} is not served; known are {', '.join(FILES)}.")


def _torch(artifact: Artifact, spec: VersionSpec) -> Predict:
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(spec.threads)
    device = "cuda" if spec.num_gpus > 0 and torch.cuda.is_available() else "cpu"
    module = _factory(artifact)(**artifact.card.args)
    module.load_state_dict(load_file(artifact.folder / FILES["safetensors"]))
    module.eval().to(device)
    names = [tensor.name for tensor in spec.signature.inputs]

    def predict(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            given = [torch.from_numpy(_writable(inputs[name])).to(device) for name in names]
            return _named(module(*given), spec.signature, lambda tensor: tensor.cpu().numpy())

    return predict


def _writable(array: Array) -> Array:
    """Torch warns about read-only memory (a binary tensor is a view of the request's body)."""
    return array if array.flags.writeable else array.copy()


def _skops(artifact: Artifact) -> Predict:
    from skops.io import load as load_skops

    trusted = list(artifact.card.skops_trusted)
    return _estimator(load_skops(artifact.folder / FILES["skops"], trusted=trusted), artifact.card.signature)


def _pickle(artifact: Artifact, spec: VersionSpec) -> Predict:
    if not spec.allow_pickle:
        raise HeliostatLoadError(
            "This version is a pickle, which runs code when it is loaded. An administrator can allow it for the version."
        )
    with (artifact.folder / FILES["pickle"]).open("rb") as file:
        model = pickle.load(file)
    if callable(model) and not hasattr(model, "predict"):
        return cast(Predict, model)
    return _estimator(model, artifact.card.signature)


def _onnx(artifact: Artifact, spec: VersionSpec) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    wanted = ["CUDAExecutionProvider"] if spec.num_gpus > 0 else []
    providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(artifact.folder / FILES["onnx"]), options, providers=providers)
    outputs = [tensor.name for tensor in spec.signature.outputs]

    def predict(inputs: Tensors) -> Tensors:
        found = session.run(outputs, {name: _texts(array) for name, array in inputs.items()})
        return dict(zip(outputs, found, strict=True))

    return predict


def _estimator(model: Estimator, signature: Signature) -> Predict:
    """A scikit-learn estimator: its first output is `predict`, its second `predict_proba`; several inputs are its columns.

    A list of texts alone (one input, BYTES, [-1]) stays a list, which is what text vectorizers take; all else becomes a table.
    """
    names = [tensor.name for tensor in signature.outputs]
    if len(names) > 2:
        raise HeliostatLoadError("An estimator has at most two outputs: predict and predict_proba.")
    columns = [tensor.name for tensor in signature.inputs]
    alone = signature.inputs[0] if len(columns) == 1 else None
    is_list = alone is not None and alone.dtype == "BYTES" and len(alone.shape) == 1

    def predict(inputs: Tensors) -> Tensors:
        given = [_texts(inputs[name]) for name in columns]
        parts = given if is_list else [array.reshape(len(array), -1) for array in given]
        features = parts[0] if len(parts) == 1 else np.column_stack(parts)
        found = {names[0]: np.asarray(model.predict(features))}
        if len(names) == 2:
            found[names[1]] = np.asarray(model.predict_proba(features))
        return _cast(found, signature)

    return predict


def _texts(array: Array) -> Array:
    """BYTES as str; other types as they are. What is no UTF-8 becomes a text that equals no proper one."""
    if array.dtype != NUMPY["BYTES"]:
        return array
    found = np.empty(array.size, dtype=np.object_)
    found[:] = [raw.decode("utf-8", "surrogateescape") for raw in array.reshape(-1).tolist()]
    return found.reshape(array.shape)


def _named(found: Any, signature: Signature, to_numpy: Callable[[Any], Array]) -> Tensors:
    """One tensor, a tuple in the order of the signature, or a dictionary by name."""
    names = [tensor.name for tensor in signature.outputs]
    if isinstance(found, dict):
        return {name: to_numpy(found[name]) for name in names}
    if isinstance(found, tuple | list):
        return {name: to_numpy(tensor) for name, tensor in zip(names, found, strict=True)}
    return {names[0]: to_numpy(found)}


def _cast(found: Tensors, signature: Signature) -> Tensors:
    return {tensor.name: found[tensor.name].astype(NUMPY[tensor.dtype], copy=False) for tensor in signature.outputs}


def _factory(artifact: Artifact) -> Callable[..., Any]:
    name, _, attribute = artifact.card.factory.partition(":")
    if not name or not attribute:
        raise HeliostatLoadError('model.json of a torch model needs a factory, "<module>:<callable>".')
    try:
        module = _own_module(artifact.folder / "code", name) or importlib.import_module(name)
        found: Callable[..., Any] = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        raise HeliostatLoadError(f"The factory {artifact.card.factory} cannot be imported: {error}.") from error
    return found


def _own_module(code: Path, name: str) -> ModuleType | None:
    """A module of the artifact's own code. Its folder is put last on the path, so it can shadow nothing that is installed."""
    file = code.joinpath(*name.split(".")).with_suffix(".py")
    if not file.is_file():
        return None
    if str(code) not in sys.path:
        sys.path.append(str(code))
    private = f"heliostat_artifact_{name.replace('.', '_')}"
    found = importlib.util.spec_from_file_location(private, file)
    if found is None or found.loader is None:
        raise ImportError(f"{file.name} is no module")
    module = importlib.util.module_from_spec(found)
    sys.modules[private] = module
    found.loader.exec_module(module)
    return module
