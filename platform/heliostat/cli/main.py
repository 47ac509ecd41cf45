"""Entry point of `helio`: the list of commands, options that stand before them, and what a failure looks like.

A failure is one line that says what happened and one that says what to do, never a traceback: every exception that a command
can meet on purpose is a `HeliostatError`, a `SettingsError` or a `LocalError`. Anything else is a bug and shows as one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from heliostat.cli.app import App
from heliostat.settings import SettingsError
from heliostat.version import VERSION
from heliostat.wire.errors import ExitCode, HeliostatError

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("local", "Start Ray and the control plane on this machine, or join a cluster"),
    "down": ("local", "End them; every job and its history are kept"),
    "doctor": ("local", "Check this installation and say how to fix what is wrong"),
    "demo": ("demo", "Preemption, resume and live resizes on four logical GPUs, about four minutes"),
    "submit": ("submit", "Queue a job"),
    "train": ("train", "Train a recipe or a script, and register the model"),
    "ps": ("ps", "List jobs and why they wait, or show one"),
    "logs": ("logs", "Print a job's log"),
    "metrics": ("metrics", "Plot what a job reports"),
    "explain": ("jobs", "Why a job waits, with numbers and what would help"),
    "cancel": ("jobs", "End jobs"),
    "hold": ("jobs", "Keep waiting jobs from starting"),
    "release": ("jobs", "Let held jobs start again"),
    "priority": ("jobs", "Change a job's priority"),
    "edit": ("jobs", "Change what a waiting job asks for"),
    "model": ("models", "Models: versions, aliases, push and pull"),
    "deploy": ("endpoints", "Serve a registered model at an endpoint"),
    "endpoint": ("endpoints", "Endpoints: list, show, call, traffic, rollback, logs, usage, rm"),
    "key": ("endpoints", "Make, list and revoke keys of endpoints"),
    "whatif": ("forecast", "Who would start earlier or later if something changed"),
    "eta": ("forecast", "How well estimated starts held"),
    "timeline": ("timeline", "Who held which GPU when, and why it changed hands"),
    "replay": ("replay", "Execute recorded decisions again and compare"),
    "audit": ("audit", "Who changed what, and whether the records are whole"),
    "queue": ("queues", "List, show and change queues"),
    "nodes": ("cluster", "Nodes, their GPUs and who holds them"),
    "node": ("nodes", "Take a node out of use, and back: cordon, drain, uncordon"),
    "events": ("cluster", "What happened, and what happens"),
    "simulate": ("simulate", "Replay a trace of your own under several policies"),
    "token": ("access", "Make, list and revoke access tokens"),
    "login": ("access", "Remember a control plane and its token"),
    "whoami": ("access", "Which user, role and project a token stands for"),
    "version": ("access", "Versions of client, server and Ray"),
}
INTERRUPTED = 130
BROKEN_PIPE = 141


class Commands(click.Group):
    """Commands by name, each module imported when its command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"heliostat.cli.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help page from the table above: no command has to be imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="helio", message="%(prog)s %(version)s")
@click.option("--profile", metavar="NAME", help="Profile in config.toml to use (see helio login).")
@click.option("--url", metavar="URL", help="Control plane to talk to.")
@click.pass_context
def cli(ctx: click.Context, profile: str | None, url: str | None) -> None:
    """Many teams, one Ray cluster: queue jobs, see why they wait, share GPUs by priority."""
    app = ctx.ensure_object(App)
    app.profile, app.url = profile or app.profile, url or app.url


def run(arguments: Sequence[str], app: App | None = None) -> int:
    """Run one command line; returns its exit code and prints its failure."""
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        result = cli.main(list(arguments), prog_name="helio", standalone_mode=False, obj=app or App())
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "helio"
        return _fail(error.format_message(), f"See: {where} --help", "usage", ExitCode.USAGE, as_json)
    except click.ClickException as error:
        return _fail(error.format_message(), "", "usage", ExitCode.USAGE, as_json)
    except HeliostatError as error:
        if as_json:
            click.echo(json.dumps(error.as_json()), err=True)
            return error.exit_code
        return _fail(error.message, error.remedy, error.code, error.exit_code, as_json)
    except SettingsError as error:
        return _fail(str(error), error.remedy, "settings", ExitCode.USAGE, as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
        return BROKEN_PIPE
    return int(result) if isinstance(result, int) else ExitCode.OK


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def _fail(message: str, remedy: str, code: str, exit_code: ExitCode, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"detail": message, "code": code, "remedy": remedy}), err=True)
    else:
        click.echo(f"error: {message}" + (f"\n  {remedy}" if remedy else ""), err=True)
    return exit_code


if __name__ == "__main__":
    main()
