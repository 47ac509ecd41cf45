"""What a job may not bring along: names that the platform or Ray's security rest on, and environments that our code cannot reach.

Workers find their lease through variables that begin with HELIOSTAT_ and through a hook in the node's own Python. A container, a
conda environment or another interpreter would run without the hook and take GPUs past its lease, so GPU jobs may not use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heliostat_jobs.spec import MODEL_NAME, BadResult, check_alias

from heliostat.packages import BadPackage, uri_name
from heliostat.submission.request import WARM_HANDOVER, Refused

RESERVED_PREFIXES = ("RAY_", "HELIOSTAT_")
RESERVED_NAMES = frozenset({"LD_PRELOAD", "LD_AUDIT", "CUDA_VISIBLE_DEVICES"})
UNCOVERED = ("image_uri", "container", "conda", "nsight", "rocprof_sys")
KNOWN_KEYS = frozenset(
    {
        "working_dir",
        "py_modules",
        "excludes",
        "pip",
        "uv",
        "env_vars",
        "config",
        "worker_process_setup_hook",
        "java_jars",
    }
    | {"_ray_commit", "_ray_release", "_inject_current_ray", *UNCOVERED}
)
REMOTE = ("https://", "s3://", "gs://", "azure://", "abfss://")
MAX_VARIABLES = 500
MAX_METADATA = 64
MAX_TEXT = 32_768


def check_env(env: Mapping[str, str], where: str) -> None:
    """Refuse reserved names and what no process environment can hold."""
    if len(env) > MAX_VARIABLES:
        raise Refused(
            "bad_env", f"{where} has more than {MAX_VARIABLES} variables.", "Put settings into a file.", field=where
        )
    for name, value in env.items():
        if name.startswith(RESERVED_PREFIXES) or name in RESERVED_NAMES:
            raise Refused(
                "reserved_env",
                f"{where} sets {name}. Reserved are RAY_*, HELIOSTAT_* and {', '.join(sorted(RESERVED_NAMES))}: "
                f"the platform's hold on GPUs rests on them.",
                f"Leave {name} out.",
                field=f"{where}.{name}",
            )
        if not name or "=" in name or "\0" in name + value or len(name) + len(value) > MAX_TEXT:
            raise Refused(
                "bad_env",
                f"{where}: '{name[:80]}' cannot be set in an environment.",
                "Rename or shorten it.",
                field=where,
            )


def check_runtime_env(runtime_env: Mapping[str, Any], *, uses_gpus: bool) -> None:  # Any: Ray's own structure
    """Refuse what may not or cannot be covered. `working_dir` and `py_modules` are looked at by `package_uris`."""
    for key in runtime_env:
        if key == "py_executable":
            raise Refused(
                "reserved_env",
                "runtime_env sets py_executable: the interpreter is the node's own, where the platform's code is installed.",
                "Leave it out; add packages with pip or uv.",
                field="runtime_env.py_executable",
            )
        if key in UNCOVERED and uses_gpus:
            raise Refused(
                "uncovered_env",
                f"runtime_env sets {key}: the workers of a GPU job would run without the platform's code and take GPUs past "
                f"their lease.",
                "Use pip or uv for packages, or install them on the nodes.",
                field=f"runtime_env.{key}",
            )
        if key not in KNOWN_KEYS:
            known = ", ".join(sorted(name for name in KNOWN_KEYS if not name.startswith("_")))
            raise Refused(
                "bad_runtime_env",
                f"runtime_env has no key '{key}'.",
                f"Known keys: {known}.",
                field=f"runtime_env.{key}",
            )
    variables = runtime_env.get("env_vars", {})
    if not isinstance(variables, Mapping) or not all(isinstance(v, str) for pair in variables.items() for v in pair):
        raise Refused(
            "bad_runtime_env",
            "runtime_env.env_vars must map names to strings.",
            "Quote the values.",
            field="runtime_env",
        )
    check_env(variables, "runtime_env.env_vars")


def package_uris(runtime_env: Mapping[str, Any], working_dir_package: str) -> tuple[str, list[str]]:  # Any: as above
    """(the working directory's uploaded package or "", all uploaded packages). Refuses paths: this machine's are not the client's."""
    own = runtime_env.get("working_dir") or ""
    modules = runtime_env.get("py_modules") or []
    if (
        not isinstance(own, str)
        or not isinstance(modules, list)
        or not all(isinstance(entry, str) for entry in modules)
    ):
        raise Refused(
            "bad_runtime_env",
            "working_dir is one URI and py_modules a list of URIs.",
            "Upload folders first.",
            field="runtime_env",
        )
    if own and working_dir_package and own != working_dir_package:
        raise Refused(
            "bad_runtime_env",
            "working_dir_package and runtime_env.working_dir differ.",
            "Send one.",
            field="runtime_env",
        )
    uploaded = []
    for uri in dict.fromkeys([uri for uri in (working_dir_package or own, *modules) if uri]):
        if uri.startswith("gcs://"):
            uploaded.append(_named(uri))
        elif not uri.startswith(REMOTE):
            raise Refused(
                "bad_runtime_env",
                f"'{uri[:200]}' is neither an uploaded package (gcs://_ray_pkg_...) nor a remote archive ({', '.join(REMOTE)}).",
                "Submit with --working-dir, or upload with PUT /api/v1/packages/{name}.",
                field="runtime_env",
            )
    working = working_dir_package or own
    return (_named(working) if working.startswith("gcs://") else "", uploaded)


def check_metadata(metadata: Mapping[str, str]) -> None:
    too_long = any(len(key) > 256 or len(value) > MAX_TEXT for key, value in metadata.items())
    if len(metadata) > MAX_METADATA or too_long:
        raise Refused(
            "bad_metadata", f"Metadata: at most {MAX_METADATA} keys of 256 characters.", "Send less.", field="metadata"
        )
    _check_registration(str(metadata.get("register") or ""), str(metadata.get("register_alias") or ""))
    if (warm := metadata.get(WARM_HANDOVER, "true")) not in ("true", "false"):
        text = f"Metadata {WARM_HANDOVER}: '{warm[:100]}' is neither true nor false."
        raise Refused("bad_metadata", text, f"Change {WARM_HANDOVER}.", field=f"metadata.{WARM_HANDOVER}")


def _check_registration(name: str, alias: str) -> None:
    """`register` and `register_alias` name a model and an alias: better refused now than when the job has ended."""
    if name and not MODEL_NAME.fullmatch(name):
        text = f"Metadata register: '{name[:100]}' is no name of a model: letters, digits, '.', '_' and '-'."
        raise Refused("bad_metadata", text, "Change register.", field="metadata.register")
    try:
        if alias:
            check_alias(alias)
    except BadResult as error:
        text = f"Metadata register_alias: {error}."
        raise Refused("bad_metadata", text, "Change register_alias.", field="metadata.register_alias") from error


def _named(uri: str) -> str:
    try:
        return f"gcs://{uri_name(uri)}"
    except BadPackage as error:
        raise Refused(error.code, str(error), error.remedy, field="working_dir") from error
