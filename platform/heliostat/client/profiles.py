"""Writing profiles: config.toml keeps what people wrote in it, the token goes into a file of its own that only they can read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from heliostat.wire.errors import BadRequest

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def save_profile(home: Path, name: str, *, url: str, token: str, project: str = "") -> Path:
    """Make or replace [profiles.NAME] and make it the one in use. Returns the path of config.toml."""
    if not NAME.fullmatch(name):
        raise BadRequest(f"'{name}' cannot name a profile.", remedy="Use letters, digits, - and _.")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    token_file = home / f"{name}.token"
    _write_private(token_file, token + "\n")
    config = home / "config.toml"
    old = config.read_text(encoding="utf-8") if config.exists() else ""
    lines = [f"[profiles.{name}]", f"url = {_quoted(url)}", f"token_file = {_quoted(token_file.name)}"]
    if project:
        lines.append(f"project = {_quoted(project)}")
    kept = _without_section(old, f"profiles.{name}")
    _write_private(config, _with_choice(kept, name) + "\n".join(lines) + "\n")
    return config


def _without_section(text: str, section: str) -> str:
    kept, inside = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = line.strip().split("#")[0].strip() == f"[{section}]"
        if not inside:
            kept.append(line)
    return "\n".join(kept).rstrip() + "\n" if kept else ""


def _with_choice(text: str, name: str) -> str:
    """The text with `profile = NAME` as its first setting, before any section."""
    head, bracket, sections = text.partition("[") if text.startswith("[") else _split_at_section(text)
    lines = [line for line in head.splitlines() if not re.match(r"\s*profile\s*=", line)]
    lines.append(f"profile = {_quoted(name)}")
    rest = f"{bracket}{sections}".rstrip()
    return "\n".join(lines).lstrip("\n") + "\n\n" + (rest + "\n\n" if rest else "")


def _split_at_section(text: str) -> tuple[str, str, str]:
    head, newline, sections = text.partition("\n[")
    return head, "[" if newline else "", sections


def _quoted(text: str) -> str:
    """A TOML basic string (JSON's form of a string is one)."""
    import json

    return json.dumps(text)


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; nobody else can read it at any time."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
