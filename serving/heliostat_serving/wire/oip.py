"""Open Inference Protocol v2 (KServe, Triton) with the binary tensor extension, as unmodified `tritonclient[http]` speaks it.

A binary body is JSON of `Inference-Header-Content-Length` bytes, then the raw inputs in the order of their JSON entries, each of
`parameters.binary_data_size` bytes. Errors are {"error": text}. Not offered: shared memory, classification, sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any  # Any: JSON

from heliostat_serving.spec import Signature, Target, TensorSpec
from heliostat_serving.wire import jsons, tensors
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Array, Tensors

HEADER = b"inference-header-content-length"
REFUSED = ("classification", "shared_memory_region", "sequence_id", "sequence_start", "sequence_end")
MAX_RANK = 16
MOST = 1 << 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the answer must look like. outputs: (name, binary?), in the order asked for."""

    id: str
    outputs: tuple[tuple[str, bool], ...]


def parse(body: bytes, header: bytes | None, signature: Signature) -> tuple[Tensors, Wanted]:
    head, rest = _parts(body, header)
    given = jsons.parse(head)
    parameters = _parameters(given, "The request")
    entries = given.get("inputs")
    if not isinstance(entries, list):
        raise Fault("missing_input", "The request has no list inputs.")
    found: Tensors = {}
    at = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise Fault("bad_json", "An entry of inputs is not an object.")
        spec = tensors.input_spec(signature, entry.get("name"))
        if spec.name in found:
            raise Fault("bad_tensor", f"Input {spec.name} comes twice.")
        found[spec.name], at = _tensor(entry, spec, rest, at)
    if at != len(rest):
        raise Fault("bad_binary", f"{len(rest) - at} bytes follow the last input.")
    return found, _wanted(given, parameters, signature)


def answer(outputs: Tensors, wanted: Wanted, target: Target, signature: Signature) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part where binary data follow."""
    dtypes = {spec.name: spec.dtype for spec in signature.outputs}
    entries: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, binary in wanted.outputs:
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": dtypes[name], "shape": list(array.shape)}
        if binary:
            raw.append(tensors.to_bytes(array, dtypes[name]))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = tensors.to_json(array.reshape(-1))
        entries.append(entry)
    body: dict[str, Any] = {"model_name": target.model, "model_version": str(target.model_version), "outputs": entries}
    if wanted.id:
        body["id"] = wanted.id
    head = jsons.dump(body)
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)


def metadata(target: Target, versions: list[str]) -> dict[str, Any]:
    return {
        "name": target.model,
        "versions": versions,
        "platform": "heliostat",
        "inputs": [_described(spec) for spec in target.signature.inputs],
        "outputs": [_described(spec) for spec in target.signature.outputs],
    }


def error(fault: Fault) -> bytes:
    return jsons.dump({"error": fault.sentence(), "code": fault.code})


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)}


def _parts(body: bytes, header: bytes | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header is None:
        return view, view[len(view) :]
    if not header.isdigit() or len(header) > 12:
        raise Fault("bad_header", "Inference-Header-Content-Length is not a number.")
    size = int(header)
    if size > len(view):
        raise Fault("bad_header", f"Inference-Header-Content-Length is {size}, the body has {len(view)} bytes.")
    return view[:size], view[size:]


def _parameters(entry: dict[str, Any], what: str) -> dict[str, Any]:
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Fault("bad_json", f"{what}: parameters is not an object.")
    for name in REFUSED:
        if found.get(name):
            raise Fault("unsupported", f"{what} asks for {name}.", "This server does not offer it.")
    return found


def _tensor(entry: dict[str, Any], spec: TensorSpec, rest: memoryview, at: int) -> tuple[Array, int]:
    if entry.get("datatype") != spec.dtype:
        said = str(entry.get("datatype"))[:20]
        raise Fault("wrong_dtype", f"Input {spec.name} is said to be {said}, not {spec.dtype}.")
    shape = _shape(entry.get("shape"), spec)
    size = _parameters(entry, f"Input {spec.name}").get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise Fault("bad_tensor", f"Input {spec.name} has neither data nor binary_data_size.")
        array = tensors.from_json(entry["data"], spec)
        return _shaped(array, shape, spec), at
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or "data" in entry:
        raise Fault("bad_binary", f"Input {spec.name}: binary_data_size is no size, or there is data as well.")
    if at + size > len(rest):
        raise Fault("bad_binary", f"Input {spec.name} is said to have {size} bytes, {len(rest) - at} are left.")
    return tensors.from_bytes(rest[at : at + size], shape, spec), at + size


def _shape(value: object, spec: TensorSpec) -> tuple[int, ...]:
    if (
        isinstance(value, list)
        and len(value) <= MAX_RANK
        and all(type(size) is int and 0 < size < MOST for size in value)
    ):
        return tuple(value)
    raise Fault("wrong_shape", f"Input {spec.name}: shape is not a list of sizes from 1.")


def _shaped(array: Array, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    count = 1
    for size in shape:
        count *= size
    if array.size != count or (array.ndim > 1 and array.shape != shape):
        raise Fault("wrong_shape", f"Input {spec.name}: data has shape {list(array.shape)}, declared is {list(shape)}.")
    return array.reshape(shape)


def _wanted(given: dict[str, Any], parameters: dict[str, Any], signature: Signature) -> Wanted:
    known = [spec.name for spec in signature.outputs]
    every = parameters.get("binary_data_output") is True
    said = given.get("id", "")
    if not isinstance(said, str):
        raise Fault("bad_json", "id is not a string.")
    entries = given.get("outputs")
    if not entries:
        return Wanted(said, tuple((name, every) for name in known))
    if not isinstance(entries, list):
        raise Fault("bad_json", "outputs is not a list.")
    asked: list[tuple[str, bool]] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if name not in known:
            raise Fault("unknown_output", f"There is no output {str(name)[:100]}.", f"Outputs are {', '.join(known)}.")
        binary = _parameters(entry, f"Output {name}").get("binary_data", every)
        asked.append((str(name), binary is True))
    return Wanted(said, tuple(asked))
