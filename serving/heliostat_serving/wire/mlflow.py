"""MLflow's scoring protocol (and SageMaker's container contract): POST /invocations, GET /ping, /health, /version.

`dataframe_split` and `dataframe_records` hold columns: where the columns are the model's inputs they are taken by name, else the
only input [-1, d] takes the d columns in their order. `inputs` and `instances` hold tensors. One output is answered bare, several
by name. `text/csv` is a data frame, too. Errors are {"error_code", "message"}.
"""

from __future__ import annotations

import csv
import io
from typing import Any  # Any: JSON

from heliostat_serving.spec import Signature, TensorSpec
from heliostat_serving.wire import jsons, tensors
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Tensors

WORDS = {"true": True, "1": True, "false": False, "0": False}
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
ERROR_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
               429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}  # fmt: skip


def parse(body: bytes, signature: Signature) -> Tensors:
    given = jsons.parse(body)
    if given.pop("params", None):
        raise Fault("unsupported", "This model takes no params.", "Leave params away.")
    form = next(iter(given), "")
    if len(given) != 1 or form not in FORMS:
        raise Fault(
            "missing_input", "The body has not exactly one of the known forms.", f"Send one of {', '.join(FORMS)}."
        )
    value = given[form]
    match form:
        case "dataframe_split":
            return _split(value, signature)
        case "dataframe_records":
            return _records(value, signature)
        case "instances":
            return _instances(value, signature)
        case _:
            return _inputs(value, signature)


def parse_csv(body: bytes, signature: Signature) -> Tensors:
    """`text/csv`: a line of column names, then rows."""
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig")), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Fault("bad_tensor", f"The body is no CSV: {error}.") from error
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise Fault("bad_tensor", "The CSV has no rows, or rows of different lengths.", "Send names, then rows.")
    kinds = {spec.name: spec.dtype for spec in signature.inputs}
    only = signature.inputs[0]
    by_name = set(kinds) == set(rows[0])
    cells = [
        [_cell(text, kinds[name] if by_name else only.dtype, name) for name, text in zip(rows[0], row, strict=True)]
        for row in rows[1:]
    ]
    return _columns(rows[0], cells, signature)


def _cell(text: str, dtype: str, column: str) -> object:
    try:
        if dtype == "BYTES":
            return text
        if dtype == "BOOL":
            return WORDS[text.strip().lower()]
        return float(text) if dtype.startswith("FP") else int(text)
    except (ValueError, KeyError) as error:
        raise Fault("wrong_dtype", f"Column {column[:100]} holds {text[:50]!r}, not {dtype}.") from error


def answer(outputs: Tensors) -> bytes:
    if len(outputs) == 1:
        return jsons.dump({"predictions": tensors.to_json(next(iter(outputs.values())))})
    return jsons.dump({"predictions": {name: tensors.to_json(array) for name, array in outputs.items()}})


def error(fault: Fault) -> bytes:
    code = ERROR_CODES.get(fault.status, "BAD_REQUEST" if fault.status < 500 else "INTERNAL_ERROR")
    return jsons.dump({"error_code": code, "message": fault.sentence(), "code": fault.code})


def _split(value: object, signature: Signature) -> Tensors:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise Fault("bad_tensor", "dataframe_split has no list data.", 'Send {"columns": [...], "data": [[...]]}.')
    rows: list[Any] = value["data"]
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    if any(not isinstance(row, list) or len(row) != width for row in rows):
        raise Fault("bad_tensor", "The rows of dataframe_split are not lists of one length.")
    columns = value.get("columns")
    if columns is None:
        columns = list(range(width))
    if not isinstance(columns, list) or (rows and len(columns) != width):
        raise Fault("bad_tensor", f"dataframe_split names other columns than its {width}.")
    return _columns([str(name) for name in columns], rows, signature)


def _records(value: object, signature: Signature) -> Tensors:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise Fault("bad_tensor", "dataframe_records is not a list of objects.", 'Send [{"<column>": value}].')
    columns = list(value[0])
    if any(row.keys() != value[0].keys() for row in value):
        raise Fault("bad_tensor", "The records do not all have the same columns.")
    return _columns(columns, [[row[name] for name in columns] for row in value], signature)


def _columns(columns: list[str], rows: list[list[Any]], signature: Signature) -> Tensors:
    if {spec.name for spec in signature.inputs} == set(columns):
        return {spec.name: _column([row[columns.index(spec.name)] for row in rows], spec) for spec in signature.inputs}
    only = signature.inputs[0]
    if len(signature.inputs) == 1 and len(only.shape) == 2:
        return {only.name: tensors.from_json(rows, only)}
    names = ", ".join(spec.name for spec in signature.inputs)
    raise Fault("unknown_input", f"The columns are not the model's inputs ({names}).", "Name them so, or use inputs.")


def _column(cells: list[Any], spec: TensorSpec) -> tensors.Array:
    array = tensors.from_json(cells, spec)
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        return array.reshape(-1, 1)
    return array


def _instances(value: object, signature: Signature) -> Tensors:
    if not isinstance(value, list) or not value:
        raise Fault("bad_tensor", "instances is not a list with at least one entry.")
    if not isinstance(value[0], dict):
        return {_only(signature).name: tensors.from_json(value, _only(signature))}
    if any(not isinstance(row, dict) or row.keys() != value[0].keys() for row in value):
        raise Fault("bad_tensor", "The instances do not all have the same names.")
    return {
        name: tensors.from_json([row[name] for row in value], tensors.input_spec(signature, name)) for name in value[0]
    }


def _inputs(value: object, signature: Signature) -> Tensors:
    if isinstance(value, dict):
        return {name: tensors.from_json(data, tensors.input_spec(signature, name)) for name, data in value.items()}
    return {_only(signature).name: tensors.from_json(value, _only(signature))}


def _only(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise Fault("missing_input", f"The model has several inputs ({names}).", "Send them by name.")
    return signature.inputs[0]
