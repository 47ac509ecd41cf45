"""The typed protocol: POST /predict {"inputs": {name: nested lists}} -> {"outputs": {name: nested lists}, ...}.

Errors are RFC 9457 problems with `code` and `remedy`, like the control plane's.
"""

from __future__ import annotations

from typing import Any  # Any: JSON

from heliostat_serving.spec import Signature, Target
from heliostat_serving.wire import jsons, tensors
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Tensors

PROBLEM = b"application/problem+json"


def parse(body: bytes, signature: Signature) -> Tensors:
    given = jsons.parse(body)
    inputs = given.get("inputs")
    if not isinstance(inputs, dict):
        raise Fault("missing_input", "The body has no object inputs.", 'Send {"inputs": {"<name>": [[...]]}}.')
    if len(given) > 1:
        extra = next(name for name in given if name != "inputs")
        raise Fault("unsupported", f"The body has an unknown field {extra[:100]}.", "The only one is inputs.")
    return {name: tensors.from_json(data, tensors.input_spec(signature, name)) for name, data in inputs.items()}


def answer(outputs: Tensors, target: Target) -> bytes:
    return jsons.dump(
        {
            "outputs": {name: tensors.to_json(array) for name, array in outputs.items()},
            "model": target.model,
            "version": target.model_version,
            "deployment": target.label,
        }
    )


def problem(fault: Fault, request_id: str) -> bytes:
    body: dict[str, Any] = {
        "type": f"urn:heliostat:{fault.code}",
        "title": fault.code.replace("_", " "),
        "status": fault.status,
        "detail": fault.text,
        "code": fault.code,
        "remedy": fault.remedy,
        "request_id": request_id,
    }
    return jsons.dump(body)
