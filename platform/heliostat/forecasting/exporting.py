"""The heads of both chains, exported on a schedule: appended to a file, and posted to a webhook where one is named.

The file is `$HELIOSTAT_HOME/state/heads.jsonl`; put it (or the webhook's end) where whoever can write the database cannot write. A
webhook is called without redirects, over https or to this machine, and its failure is told in the log and tried again next time.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heliostat.forecasting.auditing import heads
from heliostat.settings import is_loopback
from heliostat.store import Store

EVERY_S = 3600.0
FIRST_S = 60.0
PATIENCE_S = 10.0
Json = dict[str, Any]  # Any: JSON


class BadWebhook(ValueError):
    """The webhook's address may not be used."""


def check_webhook(url: str) -> str:
    """https anywhere, http on this machine only, no credentials in the address."""
    parts = urlsplit(url)
    if parts.username or parts.password or not parts.hostname:
        raise BadWebhook(f"'{url}' is no address for a webhook: write https://HOST/PATH, without credentials.")
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        return url
    raise BadWebhook(f"'{url}': a webhook needs https, or http on this machine.")


class Exporter:
    """One thread: `run(stop)`. post: for tests."""

    def __init__(
        self,
        store: Store,
        path: Path,
        webhook: str,
        now_ms: Callable[[], int],
        log: Callable[[str, str, Json], None],
        post: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._store = store
        self._path = path
        self._webhook = check_webhook(webhook) if webhook else ""
        self._now_ms = now_ms
        self._log = log
        self._post = post or _post

    def run(self, stop: threading.Event) -> None:
        wait_s = FIRST_S
        while not stop.wait(wait_s):
            self.export()
            wait_s = EVERY_S

    def export(self) -> Json:
        with self._store.read() as session:
            told = heads(session, self._now_ms())
        line = json.dumps(told, sort_keys=True, separators=(",", ":"))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            if self._webhook:
                self._post(self._webhook, line.encode())
        except (OSError, urllib.error.URLError) as error:
            self._log("error", "head_not_exported", {"text": str(error)})
        else:
            self._log("info", "head_exported", told)
        return told


def exported(path: Path) -> list[Json]:
    """What was exported to the file, oldest first. A torn last line (the disk was full) is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:  # Any: urllib's own signature
        return None


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=PATIENCE_S):
        return
