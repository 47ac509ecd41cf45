"""Who may: tokens, login, and what this client is talking to."""

from __future__ import annotations

import sys

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json
from heliostat.render.cluster import token_table
from heliostat.render.table import pairs
from heliostat.version import VERSION
from heliostat.wire.errors import ConnectionFailed


@click.group()
def token() -> None:
    """Make, list and revoke access tokens."""


@token.command("create")
@click.option("--role", type=click.Choice(["viewer", "member", "admin"]), default="member", show_default=True)
@click.option("--project", metavar="NAME", help="Project that the token belongs to.")
@click.option("--name", metavar="TEXT", help="Whose it is, for people.")
@click.option("--expires", default="30d", show_default=True, metavar="TIME", help="30d, 12h, or never.")
@json_option
@pass_app
def create_token(app: App, role: str, project: str | None, name: str | None, expires: str, as_json: bool) -> None:
    """Make a token. Its text is printed once and can never be read again."""
    made = app.client().tokens.create(
        role=role, project=project, name=name, expires=None if expires == "never" else expires
    )
    if as_json:
        show_json(made)
        return
    show(made.get("token", ""))
    hint(f"{made.get('role')} in project {made.get('project')}; revoke it with: helio token revoke {made.get('id')}")
    hint(f"Its owner types: helio login {app.settings().url}   and pastes it")


@token.command("ls")
@json_option
@pass_app
def list_tokens(app: App, as_json: bool) -> None:
    """Tokens, whether they are valid, and when they were last used."""
    tokens = app.client().tokens.ls()
    show_json({"items": list(tokens)}) if as_json else show(token_table(tokens, app.now()))


@token.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="TOKEN...")
@json_option
@pass_app
def revoke_token(app: App, ids: tuple[str, ...], as_json: bool) -> None:
    """From now on these tokens are refused."""
    client = app.client()
    for id in ids:
        client.tokens.revoke(id)
        show_json({"id": id, "revoked": True}) if as_json else show(f"{id} revoked")


@click.command()
@click.argument("url")
@click.option("--profile", "name", default="default", show_default=True, metavar="NAME", help="Name to remember it by.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input instead of asking for it.")
@click.option("--project", metavar="NAME", help="Project that submissions go to.")
@json_option
@pass_app
def login(app: App, url: str, name: str, token_stdin: bool, project: str | None, as_json: bool) -> None:
    """Check a token with the control plane at URL and remember both; later commands use them."""
    from heliostat.client.client import Client
    from heliostat.client.files import writing
    from heliostat.client.profiles import save_profile
    from heliostat.settings import load

    text = sys.stdin.readline().strip() if token_stdin else click.prompt("Token", hide_input=True, err=True)
    settings = load(url=url, token=text, environ=app.environ)
    me = Client(settings, caller=app.caller(settings) if app.caller else None).whoami()
    with writing(f"The profile in {settings.home}", "Name another folder with HELIOSTAT_HOME."):
        path = save_profile(settings.home, name, url=settings.url, token=text, project=project or "")
    if as_json:
        show_json({**me, "profile": name, "config": str(path)})
        return
    show(
        f"Logged in at {settings.url} as {me.get('user')} ({me.get('role')} in {me.get('project')}); remembered as '{name}' in {path}"
    )
    hint("next: helio ps")


@click.command()
@json_option
@pass_app
def whoami(app: App, as_json: bool) -> None:
    """User, role and project of the token in use, and where it came from."""
    client = app.client()
    me = client.whoami()
    if as_json:
        show_json({**me, "url": client.url})
        return
    told = {key: ", ".join(value) if isinstance(value, list) else value for key, value in me.items()}
    rows = [(key.replace("_", " "), str(value)) for key, value in told.items() if value not in (None, "")]
    show(pairs([*rows, ("control plane", client.url), ("token from", client.settings.token_source or "-")], indent=""))


@click.command()
@json_option
@pass_app
def version(app: App, as_json: bool) -> None:
    """Versions of this client and, where one answers, of server and Ray."""
    versions: dict[str, object] = {"client": VERSION}
    try:
        versions.update(app.client().version())
    except ConnectionFailed as error:
        hint(f"{error.message} {error.remedy}")
    show_json(versions) if as_json else show(pairs([(key, str(value)) for key, value in versions.items()], indent=""))
