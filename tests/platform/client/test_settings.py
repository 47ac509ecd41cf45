"""Where each setting comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from heliostat.client.profiles import save_profile
from heliostat.settings import SettingsError, is_loopback, load

CONFIG = """
profile = "lab"
[profiles.lab]
url = "https://lab.example.org/"
token_file = "lab.token"
project = "vision"
[profiles.other]
url = "https://other.example.org"
[server]
port = 8123
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "lab.token").write_text("of-lab\n")
    (tmp_path / "token").write_text("of-admin\n")
    return tmp_path


CASES = [
    pytest.param({}, {}, ("https://lab.example.org", "of-lab", "vision"), id="config.toml names the profile in use"),
    pytest.param(
        {"HELIOSTAT_PROFILE": "other"}, {}, ("https://other.example.org", "", ""), id="the environment names another"
    ),
    pytest.param(
        {"HELIOSTAT_URL": "http://127.0.0.1:9000"},
        {},
        ("http://127.0.0.1:9000", "of-admin", "vision"),
        id="an address on this machine gets this machine's token",
    ),
    pytest.param(
        {"HELIOSTAT_URL": "http://elsewhere:1"},
        {},
        ("http://elsewhere:1", "", "vision"),
        id="a profile's token goes to no other address",
    ),
    pytest.param(
        {"HELIOSTAT_TOKEN": "mine"},
        {},
        ("https://lab.example.org", "mine", "vision"),
        id="the environment's token wins",
    ),
    pytest.param(
        {"HELIOSTAT_TOKEN": "mine"},
        {"token": "given"},
        ("https://lab.example.org", "given", "vision"),
        id="an argument wins over everything",
    ),
    pytest.param(
        {"HELIOSTAT_PROJECT": "p"},
        {"profile": "other"},
        ("https://other.example.org", "", "p"),
        id="the argument's profile, the environment's project",
    ),
]


@pytest.mark.parametrize(("environ", "arguments", "expected"), CASES)
def test_precedence(
    home: Path, environ: dict[str, str], arguments: dict[str, str], expected: tuple[str, str, str]
) -> None:
    settings = load(environ={"HELIOSTAT_HOME": str(home), **environ}, **arguments)  # type: ignore[arg-type]
    assert (settings.url, settings.token, settings.project) == expected
    assert settings.port == 8123


def test_without_a_file_the_local_control_plane_says_its_address(tmp_path: Path) -> None:
    environ = {"HELIOSTAT_HOME": str(tmp_path)}
    assert load(environ=environ).url == "http://127.0.0.1:8700"
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "control.json").write_text(json.dumps({"url": "http://127.0.0.1:8999"}))
    assert load(environ=environ).url == "http://127.0.0.1:8999"


BROKEN = [
    pytest.param("profile = ", {}, "not valid TOML", id="broken TOML"),
    pytest.param("", {"HELIOSTAT_PROFILE": "x"}, "no profile 'x'", id="unknown profile"),
    pytest.param("[profiles.x]\nurll='http://a'", {"HELIOSTAT_PROFILE": "x"}, "unknown keys: urll", id="misspelt key"),
    pytest.param("[server]\nport = 'x'", {}, "port as a number", id="port that is no number"),
    pytest.param("", {"HELIOSTAT_URL": "ray://x"}, "not the address", id="address of another kind"),
    pytest.param("", {"HELIOSTAT_TOKEN_FILE": "/nowhere/t"}, "cannot be read", id="token file that is not there"),
]


@pytest.mark.parametrize(("config", "environ", "told"), BROKEN)
def test_what_cannot_be_used_is_named_with_a_remedy(
    tmp_path: Path, config: str, environ: dict[str, str], told: str
) -> None:
    (tmp_path / "config.toml").write_text(config)
    with pytest.raises(SettingsError, match=told) as caught:
        load(environ={"HELIOSTAT_HOME": str(tmp_path), **environ})
    assert caught.value.remedy


def test_a_token_never_shows_in_a_repr(home: Path) -> None:
    assert "of-lab" not in repr(load(environ={"HELIOSTAT_HOME": str(home)}))


def test_rays_folder_stays_short_enough_for_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    assert len(str(load(environ={"HELIOSTAT_HOME": str(deep)}).ray_dir)) <= 40
    assert load(environ={"HELIOSTAT_HOME": "/h"}).ray_dir == Path("/h/ray")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8700", True),
        ("http://localhost", True),
        ("http://[::1]:1/x", True),
        ("http://127.0.0.1.evil.org", False),
    ],
)
def test_loopback(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_saving_a_profile_keeps_the_rest_and_is_read_back(home: Path) -> None:
    path = save_profile(home, "new", url="https://new.example.org", token="secret", project="p")
    settings = load(environ={"HELIOSTAT_HOME": str(home)})
    assert (settings.profile, settings.url, settings.token, settings.project) == (
        "new",
        "https://new.example.org",
        "secret",
        "p",
    )
    assert load(environ={"HELIOSTAT_HOME": str(home)}, profile="lab").token == "of-lab"
    assert load(environ={"HELIOSTAT_HOME": str(home)}).port == 8123
    assert (home / "new.token").stat().st_mode & 0o777 == 0o600
    save_profile(home, "new", url="https://newer.example.org", token="secret2")
    assert path.read_text().count("[profiles.new]") == 1
    assert load(environ={"HELIOSTAT_HOME": str(home)}).token == "secret2"


def test_saving_the_first_profile_makes_the_home(tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    save_profile(home, "default", url="http://127.0.0.1:1", token="t")
    assert load(environ={"HELIOSTAT_HOME": str(home)}).token == "t"
    assert home.stat().st_mode & 0o777 == 0o700
