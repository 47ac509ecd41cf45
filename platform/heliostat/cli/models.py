"""`helio model`: what the registry holds, and what may be done with it."""

from __future__ import annotations

from pathlib import Path

import click

from heliostat.cli.app import App, hint, json_option, pass_app, show, show_json, width
from heliostat.cli.submit import pairs_of
from heliostat.client.files import writing
from heliostat.render.models import lineage_text, model_table, version_card, version_table


@click.group()
def model() -> None:
    """Models of your project: versions, aliases, artifacts."""


@model.command("ls")
@json_option
@pass_app
def list_models(app: App, as_json: bool) -> None:
    """Models, each with its newest version and its aliases."""
    models = app.client().model_calls.ls()
    if as_json:
        show_json({"items": list(models)})
    elif not models:
        show("no models")
        hint("train one:  helio train digits-cnn --epochs 5 --workers 1..2 --register digits")
    else:
        show(model_table(models, app.now(), width()))


@model.command("show")
@click.argument("reference", metavar="MODEL[:N|@ALIAS]")
@json_option
@pass_app
def show_model(app: App, reference: str, as_json: bool) -> None:
    """One version in full; a bare name also lists its versions."""
    calls = app.client().model_calls
    version = calls.find(reference).data
    whole = ":" not in reference and "@" not in reference
    listed = calls.versions(version["model"]) if whole else []
    if as_json:
        show_json({**version, "versions": listed} if whole else version)
        return
    show(version_card(version, app.now()))
    if whole:
        show("")
        show(version_table(listed, app.now(), width()))


@model.command("push")
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--alias", "aliases", multiple=True, metavar="ALIAS", help="Point this alias at it; may be repeated.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--metric", multiple=True, metavar="NAME=NUMBER", help="May be repeated.")
@click.option("--variant-of", type=int, metavar="N", help="The version that it was made from.")
@click.option("--allow-pickle", is_flag=True, help="Admins of the project: accept a pickle; audited.")
@json_option
@pass_app
def push(
    app: App,
    name: str,
    folder: Path,
    aliases: tuple[str, ...],
    tag: tuple[str, ...],
    metric: tuple[str, ...],
    variant_of: int | None,
    allow_pickle: bool,
    as_json: bool,
) -> None:
    """Push FOLDER (model.json, weights, code/) as the next version of NAME."""
    made = app.client().model_calls.push(
        name,
        folder,
        aliases=aliases,
        tags=pairs_of(tag, "--tag"),
        metrics={key: _number(value) for key, value in pairs_of(metric, "--metric").items()},
        variant_of=variant_of,
        allow_pickle=allow_pickle,
    )
    if as_json:
        show_json(made.data)
        return
    show(f"{made.name}:{made.version}")
    hint(f"sha256 {made.sha256}")


@model.command("pull")
@click.argument("reference", metavar="MODEL[:N|@ALIAS]")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
@pass_app
def pull(app: App, reference: str, folder: Path | None, as_json: bool) -> None:
    """Fetch an artifact into FOLDER (default NAME-vN); every file is compared with its digest."""
    found = app.client().model_calls.find(reference)
    target = folder or Path(f"{found.name}-v{found.version}")
    with writing(f"The folder {target}", "Name another folder."):
        place = found.download(target)
    show_json({**found.data, "folder": str(place)}) if as_json else show(str(place))


@model.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version", required=False, type=int)
@click.option("--if", "only_if", type=int, metavar="N", help="Only if it points at version N now (else exit 5).")
@click.option("--rm", "remove", is_flag=True, help="Remove the alias.")
@json_option
@pass_app
def alias(
    app: App, name: str, alias: str, version: int | None, only_if: int | None, remove: bool, as_json: bool
) -> None:
    """Point ALIAS of NAME at VERSION, at once for everybody who resolves it."""
    calls = app.client().model_calls
    bare = alias.removeprefix("@")
    if remove == (version is not None):
        raise click.UsageError("Name the version, or --rm to remove the alias.")
    if version is None:
        calls.drop_alias(name, bare)
    else:
        calls.set_alias(name, bare, version, only_if=only_if)
    if as_json:
        show_json({"model": name, "alias": bare, "version": version})
    else:
        show(f"{name}@{bare} removed" if version is None else f"{name}@{bare} -> {name}:{version}")


@model.command("lineage")
@click.argument("reference", metavar="MODEL[:N|@ALIAS]")
@json_option
@pass_app
def lineage(app: App, reference: str, as_json: bool) -> None:
    """The job, code, data and parameters a version was made from, and its variants."""
    told = app.client().model_calls.find(reference).lineage()
    show_json(told) if as_json else show(lineage_text(told))


@model.command("rm")
@click.argument("reference", metavar="MODEL[:N]")
@click.option("--all", "everything", is_flag=True, help="All versions and aliases of the model.")
@json_option
@pass_app
def remove(app: App, reference: str, everything: bool, as_json: bool) -> None:
    """Delete a version, unless an alias points at it or an endpoint uses it."""
    calls = app.client().model_calls
    if everything:
        calls.delete_model(reference)
        show_json({"model": reference, "deleted": True}) if as_json else show(f"{reference} deleted")
        return
    if ":" not in reference:
        raise click.UsageError("Name one version (NAME:N), or --all to delete the whole model.")
    found = calls.find(reference)
    found.delete()
    show_json({**found.data, "deleted": True}) if as_json else show(f"{found.name}:{found.version} deleted")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no number.", param_hint="--metric") from error
