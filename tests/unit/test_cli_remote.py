"""Where commands look for a service, by its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from notifyd.cli.common import Failure
from notifyd.cli.remote import Remote
from tests.process import SEAL_KEY


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8686", "http://127.0.0.1:8686"),
        ("10.1.2.3:80", "http://10.1.2.3:80"),
        ("0.0.0.0:8686", "http://127.0.0.1:8686"),
        ("[::]:8686", "http://[::1]:8686"),
        ("[fd00::1]:8686", "http://[fd00::1]:8686"),
        ("notify.internal:8686", "http://notify.internal:8686"),
    ],
)
def test_a_service_is_looked_for_where_it_listens(listen: str, url: str, tmp_path: Path) -> None:
    assert Remote(config(tmp_path, listen), None, None).url == url


def test_a_service_with_a_certificate_is_called_by_https(tmp_path: Path) -> None:
    path = config(tmp_path, "[::]:8686", '[server.tls]\ncert = "/nowhere/cert.pem"\n')
    assert Remote(path, None, None).url == "https://[::1]:8686"


def test_a_fault_elsewhere_and_a_secret_of_others_do_not_hide_where_it_is(tmp_path: Path) -> None:
    path = config(tmp_path, "127.0.0.1:8686", '[nonsense]\nkey = "${cred:none}"\n')
    assert Remote(path, None, None).url == "http://127.0.0.1:8686"


@pytest.mark.parametrize("text", ["line\nbreak", "tab\tin", "ümlaut"])
def test_what_cannot_stand_in_a_header_is_refused_by_its_name_and_not_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, "127.0.0.1:8686")
    monkeypatch.setenv("NOTIFYD_TOKEN", text)
    monkeypatch.setenv("NOTIFYD_SECRET", "whsec_" + "A" * 43 + "=")
    attempts: dict[str, Callable[[], object]] = {
        "NOTIFYD_TENANT": lambda: Remote(path, None, text),
        "NOTIFYD_TOKEN": lambda: Remote(path, None, None).operator(),
        "NOTIFYD_CLIENT": lambda: Remote(path, None, None).sender(text),
    }
    for name, attempt in attempts.items():
        with pytest.raises(click.UsageError, match=name) as caught:
            attempt()
        assert text not in caught.value.message


def test_an_address_with_a_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="without a user") as caught:
        Remote(tmp_path, "http://alice:hunter2@127.0.0.1:8686", None)
    assert "hunter2" not in caught.value.message


def test_white_space_around_a_token_is_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFYD_TOKEN", "abc\n")
    client = Remote(config(tmp_path, "127.0.0.1:8686"), None, None).operator()
    assert client.credentials.headers(b"") == {"Authorization": "Bearer abc"}


@pytest.mark.parametrize(
    "text", ["server = 1", "[server]\nlisten = 7", "[server", '[server]\nlisten = "${NONE}"']
)
def test_a_fault_in_where_it_listens_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text(text)
    with pytest.raises(Failure, match=r"notifyd\.toml") as caught:
        _ = Remote(path, None, None).url
    assert "--url says where the service is" in caught.value.lines[-1]


def test_an_address_that_is_given_needs_no_configuration(tmp_path: Path) -> None:
    assert Remote(tmp_path / "missing.toml", "https://n.example", None).url == "https://n.example"


def test_a_service_with_any_port_cannot_be_found_by_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--url"):
        _ = Remote(config(tmp_path, "127.0.0.1:0"), None, None).url


def config(folder: Path, listen: str, more: str = "") -> Path:
    path = folder / "notifyd.toml"
    server = f'[server]\nlisten = "{listen}"\npublic_url = "https://public.example"\n'
    path.write_text(f'{server}{more}[keys]\nseal = ["{SEAL_KEY}"]\n')
    return path
