"""Where commands look for a service, by its configuration."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

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


def test_an_address_that_is_given_needs_no_configuration(tmp_path: Path) -> None:
    assert Remote(tmp_path / "missing.toml", "https://n.example", None).url == "https://n.example"


def test_a_service_with_any_port_cannot_be_found_by_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--url"):
        _ = Remote(config(tmp_path, "127.0.0.1:0"), None, None).url


def config(folder: Path, listen: str) -> Path:
    path = folder / "notifyd.toml"
    server = f'[server]\nlisten = "{listen}"\npublic_url = "https://public.example"\n'
    path.write_text(f'{server}[keys]\nseal = ["{SEAL_KEY}"]\n')
    return path
