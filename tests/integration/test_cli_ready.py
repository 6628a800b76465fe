"""`notifyd ready`, and other commands that find their service by its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.authority import Authority
from tests.daemon import CONFIG, TOKENS, Daemon, daemon
from tests.forked import notifyd as run
from tests.sinks import HttpSink, Reply

OPERATOR = {"NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}


def tls(folder: Path) -> str:
    """`[server.tls]` with a certificate for a name that no command calls, and that no system trusts."""
    cert, key = Authority().issue(folder / "server", x509.DNSName("notifyd.acme.example"))
    return f'\n[server.tls]\ncert = "{cert}"\nkey = "{key}"\n'


def here(folder: Path, notifyd: Daemon, more: str = "") -> Path:
    """A configuration that says where `notifyd` listens; the rest of it is not for this machine."""
    _, port = notifyd.app.address
    path = folder / "here.toml"
    path.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\n{more}\n[keys]\nseal = ["${{cred:elsewhere}}"]\n'
    )
    return path


@pytest.mark.parametrize("secured", [False, True], ids=["by HTTP", "by HTTPS"])
async def test_a_service_is_asked_and_operated_where_the_configuration_says(
    secured: bool, tmp_path: Path
) -> None:
    more = tls(tmp_path) if secured else ""
    async with daemon(tmp_path, CONFIG.replace("[keys]", f"{more}\n[keys]")) as notifyd:
        path = here(tmp_path, notifyd, more)
        result = await run("ready", "--config", path)
        assert (result.code, result.stdout, result.stderr) == (0, "ready\n", "")
        assert (await run("ready", "--config", path, "--json")).json == {"status": "ready"}
        listed = await run("channels", "list", "--config", path, environ=OPERATOR)
        assert (listed.code, listed.stderr) == (0, "")


async def test_a_token_goes_to_no_service_that_shows_another_certificate(tmp_path: Path) -> None:
    async with daemon(tmp_path, CONFIG.replace("[keys]", f"{tls(tmp_path)}\n[keys]")) as notifyd:
        other = tmp_path / "other"
        other.mkdir()
        path = here(tmp_path, notifyd, tls(other))
        listed = await run("channels", "list", "--config", path, environ=OPERATOR)
        assert listed.code == 1
        assert "its certificate is not trusted: " in listed.stderr
        # A renewed certificate that is not loaded yet makes nothing unready.
        assert (await run("ready", "--config", path)).code == 0


@pytest.mark.parametrize("command", ["ready", "reload"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "1e30", "0", "-1", "soon"])
async def test_no_time_to_wait_is_wrong_usage(command: str, seconds: str) -> None:
    result = await run(command, "--timeout", seconds)
    assert (result.code, result.stdout) == (2, "")
    assert "Invalid value for '--timeout'" in result.stderr


async def test_a_service_that_is_not_ready_or_not_there_is_told() -> None:
    async with HttpSink() as sink:
        sink.reply = Reply(503, '{"code": "unavailable", "detail": "the store does not write"}')
        result = await run("ready", "--url", sink.url)
        assert (result.code, result.stdout) == (1, "")
        assert "503 unavailable: the store does not write" in result.stderr
        url = sink.url
    gone = await run("ready", "--url", url)
    assert gone.code == 1
    assert "does not answer" in gone.stderr
