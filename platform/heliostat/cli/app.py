"""What every command needs: settings, a client, the time, and one way to print.

Standard output carries the answer, standard error everything else (progress, hints, errors), so that `$(helio submit ...)`
is the job's id and `helio ps --json | jq` works. Tests give `App` a transport, a clock and an environment of their own.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from heliostat.settings import Settings, load

if TYPE_CHECKING:
    from heliostat.client.client import Client
    from heliostat.wire.call import Caller

NARROWEST = 60
"""Tables are cut to the terminal, but never below this: a line that wraps beats a reason that is gone."""


@dataclass
class App:
    """One run of `helio`."""

    profile: str | None = None
    url: str | None = None
    environ: Mapping[str, str] | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    caller: Callable[[Settings], Caller] | None = None

    def settings(self) -> Settings:
        return load(profile=self.profile, url=self.url, environ=self.environ)

    def client(self) -> Client:
        from heliostat.client.client import Client

        settings = self.settings()
        return Client(settings, caller=self.caller(settings) if self.caller else None)


pass_app = click.make_pass_decorator(App)
F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """`--json`: the API's own document on standard output (JSON Lines for streams)."""
    return click.option("--json", "as_json", is_flag=True, help="Print the API's own document.")(function)


def show(text: str) -> None:
    click.echo(text)


def show_json(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))


def hint(text: str) -> None:
    """The next thing to type, on standard error."""
    click.echo(text, err=True)


def width() -> int:
    """Columns for a table: the terminal's, 0 (whole lines) for a pipe or a file."""
    return max(NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0
