"""Models, versions and where they come from as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from heliostat.render.amounts import age, seconds_between, size
from heliostat.render.table import pairs, table
from heliostat.wire.shapes import LineageJson, ModelJson, ModelVersionJson, TensorJson

if TYPE_CHECKING:
    from heliostat_jobs.spec import Recipe

SHOWN_METRICS = 3


def model_table(models: Sequence[ModelJson], now: datetime, width: int = 0) -> str:
    rows = [
        (
            model.get("name", "?"),
            str(model.get("latest", {}).get("version", "-")),
            ", ".join(f"@{alias} {number}" for alias, number in sorted(model.get("aliases", {}).items())) or "-",
            model.get("latest", {}).get("format", "-"),
            size(model.get("latest", {}).get("size_bytes", 0)),
            age(seconds_between(model.get("latest", {}).get("created_at"), now)),
            _metrics(model.get("latest", {}).get("metrics", {})),
        )
        for model in models
    ]
    head = ("MODEL", "LATEST", "ALIASES", "FORMAT", "SIZE", "AGE", "METRICS")
    return table(head, rows, right=frozenset({"LATEST", "SIZE", "AGE"}), width=width)


def version_table(versions: Sequence[ModelVersionJson], now: datetime, width: int = 0) -> str:
    rows = [
        (
            str(version.get("version", "?")),
            ", ".join(f"@{alias}" for alias in version.get("aliases", [])) or "-",
            version.get("format", "-"),
            size(version.get("size_bytes", 0)),
            age(seconds_between(version.get("created_at"), now)),
            version.get("job") or version.get("created_by") or "-",
            version.get("sha256", "")[:12],
            _metrics(version.get("metrics", {})),
        )
        for version in versions
    ]
    head = ("VERSION", "ALIASES", "FORMAT", "SIZE", "AGE", "FROM", "SHA256", "METRICS")
    return table(head, rows, right=frozenset({"VERSION", "SIZE", "AGE"}), width=width)


def version_card(version: ModelVersionJson, now: datetime) -> str:
    """One version in full."""
    signature = version.get("signature", {})
    rows = [
        ("sha256", version.get("sha256", "-")),
        (
            "format",
            f"{version.get('format', '-')}, {version.get('files', 0)} files, {size(version.get('size_bytes', 0))}",
        ),
        ("inputs", _tensors(signature.get("inputs", []))),
        ("outputs", _tensors(signature.get("outputs", []))),
        ("metrics", ", ".join(f"{name} {value:g}" for name, value in sorted(version.get("metrics", {}).items()))),
        ("tags", ", ".join(f"{name}={value}" for name, value in sorted(version.get("tags", {}).items()))),
        ("aliases", ", ".join(f"@{alias}" for alias in version.get("aliases", []))),
        ("made", f"{age(seconds_between(version.get('created_at'), now))} ago by {_maker(version)}"),
        ("variant of", str(version.get("variant_of") or "")),
    ]
    told = [(name, value) for name, value in rows if value]
    return f"{version.get('model', '?')}:{version.get('version', '?')}\n{pairs(told)}"


def lineage_text(lineage: LineageJson) -> str:
    """Where a version comes from, one fact a line."""
    job = lineage.get("job")
    rows = [("artifact", lineage.get("sha256", "-"))]
    if job:
        state = "" if job.get("known") else " (its row was deleted)"
        rows += [
            ("job", f"{job.get('id')} attempt {job.get('attempt')}{state}"),
            ("by", f"{job.get('user')} in queue {job.get('queue')}"),
            ("command", job.get("entrypoint") or "-"),
        ]
    else:
        rows.append(("pushed by", lineage.get("pushed_by") or "-"))
    rows += [
        ("code", lineage.get("code_digest") or "not told"),
        ("data", lineage.get("data_digest") or "not told"),
        ("package", lineage.get("package_digest") or "none"),
    ]
    params = lineage.get("params", {})
    if params:
        rows.append(("params", ", ".join(f"{name}={value}" for name, value in sorted(params.items()))))
    relatives = (("variant of", lineage.get("ancestors", [])), ("variants", lineage.get("variants", [])))
    rows += [(what, ", ".join(str(one.get("version")) for one in found)) for what, found in relatives if found]
    return f"{lineage.get('model')}:{lineage.get('version')}\n{pairs(rows)}"


def _maker(version: ModelVersionJson) -> str:
    if version.get("job"):
        return f"job {version.get('job')}, attempt {version.get('attempt')}"
    return version.get("created_by") or "-"


def _metrics(metrics: Mapping[str, float]) -> str:
    shown = sorted(metrics.items())[:SHOWN_METRICS]
    return ", ".join(f"{name} {value:.4g}" for name, value in shown) or "-"


def _tensors(tensors: Sequence[TensorJson]) -> str:
    return ", ".join(
        f"{one.get('name')} {one.get('dtype')}[{', '.join(str(n) if n > 0 else '*' for n in one.get('shape', []))}]"
        for one in tensors
    )


def recipe_table(recipes: Sequence[Recipe], width: int = 0) -> str:
    rows = [
        (
            recipe.name,
            "N or A..B" if recipe.workers else "one, no GPU",
            " ".join(f"--{option.name} {option.default}" for option in recipe.options),
            recipe.summary,
        )
        for recipe in recipes
    ]
    return table(("RECIPE", "WORKERS", "OPTIONS", "WHAT"), rows, width=width)
