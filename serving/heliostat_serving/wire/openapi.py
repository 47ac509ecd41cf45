"""OpenAPI 3.1 of an endpoint, from the signature of the version that most calls get."""

from __future__ import annotations

from typing import Any  # Any: JSON

from heliostat_serving.spec import Target, TensorSpec

ERRORS = {"400": "The request is wrong", "401": "No valid key", "403": "Not with this key", "404": "No such version",
          "408": "The body came too slowly", "413": "The body is too large", "415": "Unknown encoding",
          "429": "Too many calls", "503": "No version ready", "504": "The model took too long"}  # fmt: skip
INTEGERS = {"INT8": (-128, 127), "INT16": (-32768, 32767), "INT32": (-(2**31), 2**31 - 1), "INT64": (-(2**63), 2**63 - 1),
            "UINT8": (0, 255), "UINT16": (0, 65535), "UINT32": (0, 2**32 - 1), "UINT64": (0, 2**64 - 1)}  # fmt: skip


def document(endpoint: str, prefix: str, target: Target, max_rows: int) -> dict[str, Any]:
    signature = target.signature
    inputs = _tensors(signature.inputs, max_rows)
    outputs = _tensors(signature.outputs, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": endpoint, "version": f"{target.model} {target.model_version}"},
        "servers": [{"url": prefix}],
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/predict": {"post": _post("Predict", "predict", _predict(inputs), _predicted(outputs), "application/problem+json")},
            "/invocations": {"post": _post("MLflow scoring", "invocations", _invocations(inputs), _predictions(), "application/json")},
            "/ping": {"get": _get("Whether a version takes traffic", "ping")},
            f"/v2/models/{target.model}/infer": {
                "post": _post("Open Inference Protocol", "infer", _infer(signature.inputs), {"type": "object"}, "application/json")
            },
            f"/v2/models/{target.model}": {"get": _get("Metadata", "metadata")},
            "/v2": {"get": _get("Server metadata", "server")},
            "/v2/health/live": {"get": _get("Alive", "live")},
            "/v2/health/ready": {"get": _get("Ready", "ready")},
        },
    }  # fmt: skip


def _predict(inputs: dict[str, Any]) -> dict[str, Any]:
    return _object({"inputs": inputs})


def _predicted(outputs: dict[str, Any]) -> dict[str, Any]:
    text, number = {"type": "string"}, {"type": "integer"}
    return _object({"outputs": outputs, "model": text, "version": number, "deployment": text})


def _invocations(inputs: dict[str, Any]) -> dict[str, Any]:
    split = {
        "type": "object",
        "properties": {"columns": {"type": "array"}, "data": {"type": "array"}},
        "required": ["data"],
    }
    records = {"type": "array", "items": {"type": "object"}, "minItems": 1}
    forms = {
        "dataframe_split": split,
        "dataframe_records": records,
        "instances": {"type": "array", "minItems": 1},
        "inputs": inputs,
    }
    return {"oneOf": [_object({name: form}) for name, form in forms.items()]}


def _predictions() -> dict[str, Any]:
    return {"type": "object", "properties": {"predictions": {}}, "required": ["predictions"]}


def _infer(inputs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    entries = [
        _object(
            {
                "name": {"const": spec.name},
                "datatype": {"const": spec.dtype},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "data": {"type": "array"},
            }
        )
        for spec in inputs
    ]
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "items": {"oneOf": entries},
                "minItems": len(entries),
                "maxItems": len(entries),
            },
        },
        "required": ["inputs"],
    }


def _post(summary: str, name: str, request: dict[str, Any], answer: dict[str, Any], errors: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": answer}}},
            **{
                status: {"description": text, "content": {errors: {"schema": {"type": "object"}}}}
                for status, text in ERRORS.items()
            },
        },
    }


def _get(summary: str, name: str) -> dict[str, Any]:
    codes = {status: {"description": ERRORS[status]} for status in ("401", "404", "429", "503")}
    return {"operationId": name, "summary": summary, "responses": {"200": {"description": summary}, **codes}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _tensors(specs: tuple[TensorSpec, ...], max_rows: int | None) -> dict[str, Any]:
    return _object({spec.name: _tensor(spec, max_rows) for spec in specs})


def _tensor(spec: TensorSpec, max_rows: int | None) -> dict[str, Any]:
    schema = _element(spec.dtype)
    for depth in range(len(spec.shape) - 1, -1, -1):
        size = spec.shape[depth]
        schema = {"type": "array", "items": schema}
        if size != -1:
            schema |= {"minItems": size, "maxItems": size}
        elif max_rows is not None:
            schema |= {"minItems": 1, "maxItems": max_rows} if depth == 0 else {"minItems": 1}
    return {**schema, "description": f"{spec.dtype} {list(spec.shape)}"}


def _element(dtype: str) -> dict[str, Any]:
    if dtype in INTEGERS:
        low, high = INTEGERS[dtype]
        return {"type": "integer", "minimum": low, "maximum": high}
    if dtype == "BOOL":
        return {"type": "boolean"}
    return {"type": "string"} if dtype == "BYTES" else {"type": ["number", "null"]}
