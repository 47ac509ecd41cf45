"""docs/cli.md and docs/sdk.md know every command, option, exit code, function and error class."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import heliostat
import pytest
from heliostat import settings
from heliostat.cli.main import COMMANDS, cli
from heliostat.client.job import Job
from heliostat.wire.errors import ExitCode

DOCS = Path(__file__).resolve().parents[3] / "docs"
README = (DOCS.parent / "README.md").read_text()
PLATFORM = Path(settings.__file__).parent
CLI = (DOCS / "cli.md").read_text()
SDK = (DOCS / "sdk.md").read_text()


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {child}", command.commands[child]) for child in command.commands]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_and_its_options_are_documented(name: str, command: click.Command) -> None:
    assert f"`helio {name}" in CLI
    options = [option for option in command.params if isinstance(option, click.Option) and option.name != "as_json"]
    missing = [option.opts[-1] for option in options if option.opts[-1] not in CLI]
    assert missing == []
    assert "--json" in [opt for param in command.params for opt in param.opts], "every command has a form for programs"
    assert command.help


def test_every_setting_is_documented() -> None:
    source = Path(settings.__file__).read_text()
    names = {*re.findall(r"HELIOSTAT_[A-Z_]+", source), *settings.PROFILE_KEYS, *settings.SERVER_KEYS}
    assert [name for name in sorted(names) if f"`{name}`" not in CLI] == []


def test_every_code_of_the_clients_own_errors_is_documented() -> None:
    sources = [path.read_text() for part in ("client", "cli", "wire") for path in (PLATFORM / part).glob("*.py")]
    codes = {code for source in sources for code in re.findall(r'code ?= ?"([a-z_]+)"', source)}
    assert len(codes) > 10 and [code for code in sorted(codes) if f"`{code}`" not in SDK] == []


def test_every_exit_code_is_documented() -> None:
    assert [f"| {code.value} |" for code in ExitCode if f"\n| {code.value} |" not in CLI] == []


def test_every_function_and_error_is_documented() -> None:
    missing = [name for name in heliostat.__all__ if name not in SDK and not name.startswith("__")]
    assert missing in ([], ["get_job_submission_client_cluster_info"])


def test_every_method_of_a_job_is_documented() -> None:
    names = [
        name for name in vars(Job) if not name.startswith("_") and name not in ("is_over", "failure", "wait_async")
    ]
    assert [name for name in names if f".{name}" not in SDK] == []


def shown() -> list[str]:
    """Every `helio` line of the README's consoles and sentences, without what follows in a comment."""
    lines = re.findall(r"^\$ (?:KEY=\$\()?(helio [^\n#]*?)\)?\s*(?:#.*)?$", README, re.MULTILINE)
    return lines + [line for line in re.findall(r"`(helio [^`]+)`", README) if " " in line]


@pytest.mark.parametrize("line", shown())
def test_every_command_of_the_readme_can_be_typed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"[\w-]+\.(?:yaml|json)", line):
        (tmp_path / name).touch()
    command: click.Command | None = cli
    context = click.Context(cli, obj=None)
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        name = words.pop(0)
        context = click.Context(command, parent=context, info_name=name)
        command = command.get_command(context, name)
    assert command is not None, line
    command.make_context(line, words, parent=context)


def test_the_readme_shows_commands() -> None:
    assert len(shown()) > 12
