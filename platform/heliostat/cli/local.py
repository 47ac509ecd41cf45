"""`helio up`, `down` and `doctor`: this machine's processes, by `heliostat.local`, with its steps on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.client.asking import memory_bytes
from heliostat.settings import is_loopback
from heliostat.wire.errors import ExitCode, ServiceError

if TYPE_CHECKING:
    from heliostat.local import Progress, Running, Step

MARKS = {"ok": "✔", "warn": "!", "fail": "✖"}


@click.command()
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="Logical GPUs, for a machine without any.")
@click.option(
    "--address", metavar="HOST:PORT", default="", help="Join this running Ray cluster instead of starting one."
)
@click.option("--dashboard", metavar="URL", default="", help="That cluster's dashboard, where it cannot be found.")
@click.option("--ray-token-file", type=click.Path(exists=True, dir_okay=False), help="That cluster's token.")
@click.option("--object-store", metavar="SIZE", help="Ray's object store, for example 2GiB.")
@click.option("--host", metavar="ADDRESS", default="", help="Address to listen on (default 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, metavar="N", help="Port to listen on (default 8700)."
)
@click.option(
    "--cluster-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", default=None,
    help="Take port and queues from metadata.heliostat of this Ray cluster file.",
)  # fmt: skip
@click.option("--show-token", is_flag=True, help="Print the administrator's token.")
@click.option("--i-have-a-firewall", is_flag=True, help="Start although this machine can be reached from outside.")
@json_option
@pass_app
def up(
    app: App, gpus: int | None, address: str, dashboard: str, ray_token_file: str | None, object_store: str | None,
    host: str, port: int | None, cluster_file: Path | None, show_token: bool, i_have_a_firewall: bool, as_json: bool,
) -> None:  # fmt: skip
    """Start Ray and the control plane here, or join a cluster. Harmless to repeat: only what is missing is started."""
    with local_errors(), _steps(as_json) as progress:
        from heliostat import local

        told = local.read_cluster_file(cluster_file) if cluster_file else local.ClusterFile()
        options = local.UpOptions(
            gpus=gpus, address=address, dashboard=dashboard, ray_token_path=ray_token_file or "", host=host,
            object_store_bytes=memory_bytes(object_store), port=port or told.port, i_have_a_firewall=i_have_a_firewall,
        )  # fmt: skip
        running = local.up(app.settings(), options, progress)
    if told.queue_file:
        _apply_queues(app, running, told.queue_file)
    token = app.settings().admin_token_path.read_text(encoding="utf-8").strip() if show_token else ""
    if as_json:
        show_json(_running_json(running, token))
        return
    show(f"control plane  {running.control.url}")
    show(
        f"token          {token or running.token_path}"
        + ("" if token else "  (readable by you only; --show-token prints it)")
    )
    settings = app.settings()
    if settings.profile and not is_loopback(settings.url):
        hint(
            f"Commands go to profile '{settings.profile}' ({settings.url}); for this one: helio --url {running.control.url} ps"
        )
    hint(f"next: {running.next_command}")


def _apply_queues(app: App, running: Running, queue_file: str) -> None:
    from heliostat import connect

    token = app.settings().admin_token_path.read_text(encoding="utf-8").strip()
    changes = connect(running.control.url, token=token).apply_queues(queue_file).get("changes") or []
    hint(f"{len(changes)} changes of queues put in force" if changes else "the queues are as the cluster file says")


@click.command()
@json_option
@pass_app
def down(app: App, as_json: bool) -> None:
    """End what helio up started. Jobs, history and models are kept; helio up brings them back."""
    with local_errors(), _steps(as_json) as progress:
        from heliostat import local

        local.down(app.settings(), progress)
    if as_json:
        show_json({"down": True})


@click.command()
@json_option
@pass_app
def doctor(app: App, as_json: bool) -> int:
    """Check Ray, tokens, ports, disk, memory and telemetry; say how to fix what is wrong. Exit 8 when something fails."""
    with local_errors():
        from heliostat import local

        findings = local.doctor(app.settings())
    failed = any(finding.status == "fail" for finding in findings)
    if as_json:
        show_json({"findings": [asdict(finding) for finding in findings]})
    else:
        widest = max(len(finding.check) for finding in findings)
        for finding, following in zip_longest(findings, findings[1:]):
            show(f"{MARKS.get(finding.status, '?')} {finding.check:<{widest}}  {finding.text}")
            if finding.fix and (following is None or following.fix != finding.fix):  # one fix under a run of listeners
                show(f"  {'':<{widest}}  fix: {finding.fix}")
    return ExitCode.SERVICE if failed else ExitCode.OK


@contextmanager
def local_errors() -> Iterator[None]:
    """An error of the local processes, as one that the command line knows how to print."""
    try:
        from heliostat.local.errors import LocalError
    except ImportError as error:
        raise ServiceError(
            f"This command needs the server's parts, and {error.name} is not installed.",
            code="server_not_installed",
            remedy="pip install 'heliostat[server]'",
        ) from error
    try:
        yield
    except LocalError as error:
        raise ServiceError(str(error), code=error.code, remedy=error.remedy) from error


@contextmanager
def _steps(quiet: bool) -> Iterator[Progress]:
    """Steps as they happen: a spinner on the one at work in a terminal, one line per finished step everywhere."""
    if quiet:
        yield lambda step: None
    elif sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        with console.status("") as spinner:

            def live(step: Step) -> None:
                if step.state == "start":
                    spinner.update(step.text)
                else:
                    console.print(_step_line(step), markup=False)

            yield live
    else:
        yield lambda step: hint(_step_line(step))


def _step_line(step: Step) -> str:
    mark = {"start": "…", "done": "✔", "skip": "·", "late": "!"}[step.state]
    return f"{mark} {step.text}"


def _running_json(running: Running, token: str) -> dict[str, object]:
    document: dict[str, object] = {
        "url": running.control.url,
        "token_path": running.token_path,
        "connected": running.connected,
        "started": list(running.started),
        "control": asdict(running.control),
        "ray": asdict(running.ray),
        "next": running.next_command,
    }
    return {**document, "token": token} if token else document
