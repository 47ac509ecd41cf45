"""What the front doors may ask of the endpoint service. Every method may be called from any thread and returns at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from heliostat.endpoints.serve_rest import Application


class Endpoints(Protocol):
    def look(self) -> None:
        """The store has changed."""
        ...

    def base_url(self) -> str:
        """Where Serve's HTTP answers, without a trailing slash."""
        ...

    def application(self, name: str) -> Application | None:
        """As Serve showed it last."""
        ...

    def log_path(self, endpoint: str) -> Path:
        """The endpoint's access log."""
        ...

    @property
    def trouble(self) -> str:
        """Why Serve cannot be brought in line now; "" when it can."""
        ...


class Unattended:
    """No service: what the doors get where nothing is served."""

    def __init__(
        self, folder: Path, base_url: str = "http://127.0.0.1:8000", shown: Mapping[str, Application] | None = None
    ) -> None:
        self._folder = folder
        self._base_url = base_url
        self._shown = shown or {}
        self.looks = 0

    def look(self) -> None:
        self.looks += 1

    def base_url(self) -> str:
        return self._base_url

    def application(self, name: str) -> Application | None:
        return self._shown.get(name)

    def log_path(self, endpoint: str) -> Path:
        return self._folder / f"{endpoint}.jsonl"

    @property
    def trouble(self) -> str:
        return ""
