"""Answers that are models already: serialised once, without a second validation on the way out."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from heliostat.api.models import ProblemDocument

PROBLEMS: dict[int | str, dict[str, Any]] = {  # Any: FastAPI's own structure
    "default": {
        "model": ProblemDocument,
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}


def answer(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(by_alias=True), status, headers=headers, media_type="application/json")
