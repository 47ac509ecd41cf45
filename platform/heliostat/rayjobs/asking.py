"""From Ray's submit request to ours. Ray's fields stay as they are; what Ray has no field for comes in `metadata`.

Known metadata keys: queue, priority, kind, name, gpus, min_gpus, max_gpus, gpus_per_task, flavor, project, preemptibility,
max_runtime_s; register, register_alias and warm_handover are read elsewhere. Others are kept with the job and mean nothing to us.
`--entrypoint-num-gpus n` is the request itself (min = max = n), never a reservation for the driver: the driver runs without a GPU, its
workers take the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heliostat.submission import Asked, Refused

NUMBERS = ("gpus", "min_gpus", "max_gpus", "gpus_per_task", "max_runtime_s")
WORDS = ("queue", "priority", "kind", "name", "flavor", "project", "preemptibility")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "entrypoint": str,
    "submission_id": str,
    "job_id": str,
    "runtime_env": dict,
    "metadata": dict,
    "entrypoint_num_cpus": (int, float),
    "entrypoint_num_gpus": (int, float),
    "entrypoint_memory": int,
    "entrypoint_resources": dict,
    "entrypoint_label_selector": dict,
}
FLAVOR_LABELS = ("heliostat/flavor", "ray.io/accelerator-type")


def asked_of(body: object) -> Asked:
    """What a POST /api/jobs/ asks for, or Refused in words for a terminal."""
    request = _checked(body)
    metadata: dict[str, str] = request.get("metadata", {})
    words = {key: metadata[key].strip() for key in WORDS if key in metadata}
    numbers = {key: _number(metadata[key], key) for key in NUMBERS if key in metadata}
    least, most = _gpus(numbers, request.get("entrypoint_num_gpus"))
    flavor = _flavor(words.get("flavor", ""), request.get("entrypoint_label_selector", {}))
    _refuse_resources(request.get("entrypoint_resources", {}))
    return Asked(
        kind=words.get("kind") or "ray",
        entrypoint=request["entrypoint"],
        name=words.get("name", ""),
        queue=words.get("queue", ""),
        priority=words.get("priority", ""),
        project=words.get("project", ""),
        min_gpus=least,
        max_gpus=most,
        gpus_per_task=numbers.get("gpus_per_task"),
        cpus=request.get("entrypoint_num_cpus") or None,
        memory_bytes=request.get("entrypoint_memory") or None,
        flavor=flavor,
        preemptibility=words.get("preemptibility") or "preemptible",
        runtime_env=request.get("runtime_env", {}),
        max_runtime_s=numbers.get("max_runtime_s"),
        metadata=metadata,
        id=request.get("submission_id") or request.get("job_id") or "",
    )


def _checked(body: object) -> dict[str, Any]:  # Any: JSON, checked below
    if not isinstance(body, dict) or not isinstance(body.get("entrypoint"), str):
        raise Refused(
            "invalid_request", "The request has no entrypoint.", "Submit a command: ray job submit -- python train.py"
        )
    request = {key: value for key, value in body.items() if value is not None}
    for key, value in request.items():
        if key not in FIELDS:
            raise Refused(
                "invalid_request", f"The field '{key[:80]}' is not known here.", "Use Ray 2.60's client.", field=key
            )
        if not isinstance(value, FIELDS[key]) or isinstance(value, bool):
            raise Refused(
                "invalid_request", f"{key} has the wrong type ({type(value).__name__}).", "Correct it.", field=key
            )
    for key, value in request.get("metadata", {}).items():
        if not isinstance(value, str):
            raise Refused(
                "bad_metadata",
                f"metadata['{key[:80]}'] is {value!r:.80}, not a string.",
                'Quote it: {"min_gpus": "2"}.',
                field="metadata",
            )
    return request


def _number(text: str, key: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise Refused(
            "bad_metadata",
            f"metadata['{key}'] is '{text[:80]}', not a number.",
            f'Write it as {{"{key}": "2"}}.',
            field="metadata",
        )
    return value


def _gpus(numbers: Mapping[str, float], entrypoint: float | None) -> tuple[float | None, float | None]:
    """(min, max): from metadata, from --entrypoint-num-gpus, or both when they agree."""
    least, most = numbers.get("min_gpus"), numbers.get("max_gpus")
    fixed = numbers.get("gpus", entrypoint or None)
    if "gpus" in numbers and entrypoint and numbers["gpus"] != entrypoint:
        fixed = None
    if fixed is None and ("gpus" in numbers or entrypoint):
        raise _disagree()
    if fixed is None:
        return least, most
    if (least is not None and least > fixed) or (most is not None and most < fixed):
        raise _disagree()
    return fixed, fixed


def _disagree() -> Refused:
    return Refused(
        "bad_metadata",
        "--entrypoint-num-gpus and the GPUs in the metadata leave no number that satisfies both.",
        "Give one of them: metadata min_gpus and max_gpus, or --entrypoint-num-gpus.",
        field="metadata",
    )


def _flavor(named: str, selector: Mapping[str, Any]) -> str:  # Any: JSON
    for label, value in selector.items():
        if label not in FLAVOR_LABELS or not isinstance(value, str) or value.startswith(("!", "in(")):
            raise Refused(
                "invalid_request",
                f"--entrypoint-label-selector {label}={value} is not supported: the scheduler chooses the nodes.",
                f"Select a flavor: metadata flavor, or {FLAVOR_LABELS[0]}.",
                field="entrypoint_label_selector",
            )
        if named and value != named:
            raise Refused("bad_metadata", f"Two flavors: {named} and {value}.", "Give one.", field="metadata")
        named = value
    return named


def _refuse_resources(resources: Mapping[str, Any]) -> None:  # Any: JSON
    for name in resources:
        if "_group_" in name:
            raise Refused(
                "reserved_resource",
                f"The resource '{name[:120]}' belongs to a placement group; asking for it by name would take a GPU past its lease.",
                "Ask for GPUs with metadata min_gpus, or --entrypoint-num-gpus.",
                field="entrypoint_resources",
            )
        raise Refused(
            "invalid_request",
            f"--entrypoint-resources {name[:120]} is not supported: drivers run on the head, their workers in the lease.",
            "Ask for GPUs with --entrypoint-num-gpus, for CPUs with --entrypoint-num-cpus.",
            field="entrypoint_resources",
        )
