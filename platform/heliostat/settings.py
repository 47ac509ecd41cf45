"""Every setting of this process, read once, in one place. Nothing else in Heliostat reads the environment or config.toml.

Where a value comes from, first hit wins:

1. an argument of `load` (the CLI's `--profile` and `--url`, the SDK's `connect(url=..., token=...)`);
2. the environment: HELIOSTAT_URL, HELIOSTAT_TOKEN, HELIOSTAT_TOKEN_FILE, HELIOSTAT_PROJECT;
3. the chosen profile in $HELIOSTAT_HOME/config.toml. Chosen by HELIOSTAT_PROFILE, else by `profile = "NAME"` in that file;
4. the control plane that `helio up` started here ($HELIOSTAT_HOME/state/control.json knows its address);
5. the defaults below.

HELIOSTAT_HOME itself (default ~/.heliostat) comes from the environment only. The administrator's token of a local control
plane ($HELIOSTAT_HOME/token) is only ever sent to an address on this machine, and a profile's token only to that profile's
url; any other address needs a token of its own.
Standard library only: the control plane, the SDK and the CLI all import this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8700
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
MAX_RAY_DIR_CHARS = 34
"""Ray puts Unix sockets up to 70 characters below this folder, and their paths may have 107 bytes."""
PROFILE_KEYS = frozenset({"url", "token_file", "project"})
SERVER_KEYS = frozenset({"host", "port", "audit_webhook"})


class SettingsError(Exception):
    """config.toml or the environment says something that cannot be used; `remedy` says what to change."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Settings:
    """What this process knows about its installation and about the control plane it talks to.

    home: folder of this installation's state.
    url: the control plane, without a trailing slash.
    token: the bearer token sent to it, empty when none is known.
    token_source: where the token came from, for messages.
    profile: name of the profile in use, empty for the local installation.
    project: project that submissions go to when they name none, empty for the token's own.
    host, port: where `helio up` listens on this machine.
    audit_webhook: where the heads of the audit and decision logs are posted to every hour; empty: nowhere.
    """

    home: Path
    url: str = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    token: str = field(default="", repr=False)
    token_source: str = ""
    profile: str = ""
    project: str = ""
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    audit_webhook: str = ""

    @property
    def config_path(self) -> Path:
        return self.home / "config.toml"

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    @property
    def control_state_path(self) -> Path:
        return self.state_dir / "control.json"

    @property
    def ray_state_path(self) -> Path:
        return self.state_dir / "ray.json"

    @property
    def heads_path(self) -> Path:
        """Where the heads of the hash chains are exported to."""
        return self.state_dir / "heads.jsonl"

    @property
    def database_path(self) -> Path:
        return self.home / "heliostat.db"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database_path}"

    @property
    def artifacts_dir(self) -> Path:
        return self.home / "artifacts"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def admin_token_path(self) -> Path:
        """The 0600 file with the administrator's token of the local control plane."""
        return self.home / "token"

    @property
    def ray_dir(self) -> Path:
        """Ray's temporary folder: below home, or a short stand-in when home's own path is too long for Unix sockets."""
        below_home = self.home / "ray"
        if len(str(below_home)) <= MAX_RAY_DIR_CHARS:
            return below_home
        return Path("/tmp") / f"helio-{hashlib.sha256(str(self.home).encode()).hexdigest()[:10]}"

    @property
    def ray_token_path(self) -> Path:
        """Ray's own cluster token. Always below home: it is no socket, and /tmp belongs to everybody."""
        return self.home / "ray" / "auth_token"


def load(
    *,
    profile: str | None = None,
    url: str | None = None,
    token: str | None = None,
    home: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings of this process. `environ` is for tests; see the head of this module for the precedence."""
    env = os.environ if environ is None else environ
    where = (home or Path(env.get("HELIOSTAT_HOME") or Path.home() / ".heliostat")).expanduser().absolute()
    config = _read_config(where / "config.toml")
    name = profile or env.get("HELIOSTAT_PROFILE") or _text(config, "profile", where)
    chosen = _profile(config, name, where) if name else {}
    server = _table(config, "server", SERVER_KEYS, where)
    host, port = _host_port(server, where)
    address = url or env.get("HELIOSTAT_URL") or chosen.get("url") or _local_url(where) or f"http://{host}:{port}"
    address = _checked_url(address)
    found, source = _token(token, env, chosen, where, address)
    return Settings(
        home=where,
        url=address,
        token=found,
        token_source=source,
        profile=name,
        project=env.get("HELIOSTAT_PROJECT") or chosen.get("project", ""),
        host=host,
        port=port,
        audit_webhook=_text(server, "audit_webhook", where),
    )


def environment() -> dict[str, str]:
    """A copy of this process's environment, for the child processes that somebody starts."""
    return dict(os.environ)


def is_loopback(url: str) -> bool:
    """Whether the address stays on this machine."""
    host = url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]
    host = host.split("]", 1)[0] + "]" if host.startswith("[") else host.rsplit(":", 1)[0]
    return host in LOOPBACK_HOSTS


def _read_config(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    import tomllib  # only where there is a file: most calls of the client have none

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", f"Correct {path}.") from error


def _text(config: Mapping[str, object], key: str, home: Path) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise SettingsError(f"{key} in {home / 'config.toml'} must be a string.", f'Write {key} = "..." there.')
    return value


def _table(config: Mapping[str, object], key: str, known: frozenset[str], home: Path) -> dict[str, object]:
    value = config.get(key, {})
    path = home / "config.toml"
    if not isinstance(value, dict):
        raise SettingsError(f"{key} in {path} must be a table.", f"Write a [{key}] section there.")
    unknown = sorted(set(value) - known)
    if unknown:
        raise SettingsError(
            f"[{key}] in {path} has unknown keys: {', '.join(unknown)}.", f"Known keys: {', '.join(sorted(known))}."
        )
    return value


def _profile(config: Mapping[str, object], name: str, home: Path) -> dict[str, str]:
    profiles = config.get("profiles", {})
    if not isinstance(profiles, dict) or name not in profiles:
        known = ", ".join(sorted(profiles)) if isinstance(profiles, dict) and profiles else "none"
        raise SettingsError(
            f"There is no profile '{name}' in {home / 'config.toml'} (profiles: {known}).",
            f"Make it with: helio login URL --profile {name}",
        )
    table = _table(profiles, name, PROFILE_KEYS, home)
    return {key: _text(table, key, home) for key in table}


def _host_port(server: Mapping[str, object], home: Path) -> tuple[str, int]:
    host, port = server.get("host", DEFAULT_HOST), server.get("port", DEFAULT_PORT)
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 65536:
        raise SettingsError(
            f"[server] in {home / 'config.toml'} needs host as a string and port as a number from 1 to 65535.",
            f'For example: host = "{DEFAULT_HOST}" and port = {DEFAULT_PORT}.',
        )
    return host, port


def _local_url(home: Path) -> str:
    """The address that a control plane started here by `helio up` wrote down, or nothing."""
    try:
        state = json.loads((home / "state" / "control.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    url = state.get("url", "") if isinstance(state, dict) else ""
    return url if isinstance(url, str) else ""


def _checked_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"'{url}' is not the address of a control plane.", "It begins with http:// or https://.")
    return url.rstrip("/")


def _token(
    given: str | None, env: Mapping[str, str], chosen: Mapping[str, str], home: Path, url: str
) -> tuple[str, str]:
    if given:
        return given, "argument"
    if env.get("HELIOSTAT_TOKEN"):
        return env["HELIOSTAT_TOKEN"].strip(), "HELIOSTAT_TOKEN"
    named = env.get("HELIOSTAT_TOKEN_FILE")
    of_profile = chosen.get("token_file", "") if chosen.get("url", "").rstrip("/") == url else ""
    for text in (named, of_profile):
        if text:
            path = home / Path(text).expanduser()
            return _read_token(path), str(path)
    own = home / "token"
    if is_loopback(url) and own.exists():
        return _read_token(own), str(own)
    return "", ""


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"The token file {path} cannot be read: {error.strerror}.", "Log in again with: helio login URL"
        ) from error
