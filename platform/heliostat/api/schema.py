"""The OpenAPI document: FastAPI's, with what FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

OPEN = frozenset({"/healthz", "/readyz"})
SCHEME = "token"


def describe(app: FastAPI) -> None:
    """Add the bearer token to every operation but the health checks."""
    plain = app.openapi

    def described() -> dict[str, Any]:  # Any: OpenAPI's own structure
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = plain()
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[SCHEME] = {"type": "http", "scheme": "bearer", "description": "A token of `helio token create`."}
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN else [{SCHEME: []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
