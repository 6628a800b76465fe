"""`notifyd demo`, as `make run` starts it: in a pipe, on a terminal, and with something broken."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import tomli
from attrs import define

from notifyd.config.load import as_toml
from notifyd.demo.acts import ACTS, LAST_ACTS, Play
from notifyd.demo.page import Page
from notifyd.demo.stage import stage
from tests.command import notifyd
from tests.e2e.conftest import Played
from tests.e2e.databases import Database
from tests.mongodb import MongoServer
from tests.waiting import until

ROOT: Final = Path(__file__).parents[2]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def text(path: Path) -> str:
    return path.read_text()


def test_the_demo_plays_every_act_and_exits_with_0_in_ten_seconds(demo: Played) -> None:
    assert (demo.code, demo.stderr) == (0, "")
    assert demo.seconds < 10
    told = re.findall(r"^ +(\d+)  ", demo.stdout, re.MULTILINE)
    assert told == [str(number + 1) for number in range(len(ACTS) + len(LAST_ACTS))]
    assert demo.stdout.endswith("Everything went as it should.\n")
    assert "\x1b" not in demo.stdout


def test_the_demo_leaves_the_mail_the_log_and_the_configuration_to_look_at(demo: Played) -> None:
    assert files(demo.folder) == {"mail.html", "notifyd.log", "notifyd.toml"}
    mail = demo.folder / "mail.html"
    assert mail.as_uri() in demo.stdout
    assert any("/approvals/" in link for link in Page(text(mail)).links)


def test_the_demo_runs_with_the_example_that_readers_see_but_for_addresses(demo: Played) -> None:
    ours, shown = (
        tomli.loads(text(path))
        for path in (demo.folder / "notifyd.toml", ROOT / "conf" / "examples" / "demo.toml")
    )
    for tree in (ours, shown):
        del tree["server"]["listen"], tree["store"]["url"], tree["resume"]["allowed_origins"]
        del tree["channels"]["release-mail"]["port"], tree["channels"]["chat-bridge"]["url"]
    assert ours == shown


@pytest.mark.long
async def test_every_act_holds_on_mongodb_too_and_no_secret_is_in_it(
    mongo_server: MongoServer, tmp_path: Path
) -> None:
    """The command itself has an SQLite file, so that it needs nothing but notifyd."""
    database = Database(mongo_server.database())
    async with stage(tmp_path) as one:
        tree = tomli.loads(text(one.config))
        one.config.write_text(as_toml(tree | {"store": {"url": database.url}}))
        play = Play(one)
        for act in (*ACTS, *LAST_ACTS):
            assert await act.run(play)
        assert not one.database.exists()
        kept = database.content()
        assert play.event["eventId"].encode() in kept
        for secret in one.props.values():
            assert secret.encode() not in kept


async def test_a_step_that_fails_is_named_and_the_demo_exits_with_1(tmp_path: Path) -> None:
    """The folder is taken by a file where the mail is to be saved, as an example of whatever may go wrong."""
    (tmp_path / "mail.html").mkdir()
    result = await notifyd("demo", "--out", tmp_path)
    assert result.code == 1
    assert result.stderr.startswith("notifyd: the demo failed at this step: receive the mail: ")
    assert len(result.stderr.splitlines()) == 1


async def test_a_daemon_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    site = tmp_path / "site"
    customize(site, NOT_LISTENING)
    result = await notifyd("demo", "--out", tmp_path / "out", environ={"PYTHONPATH": str(site)})
    assert result.code == 1
    assert "the demo failed at this step: start the daemon: the daemon has ended: " in result.stderr
    assert "no listening today" in result.stderr


async def test_without_a_mail_server_to_play_with_the_demo_says_how_to_get_one(tmp_path: Path) -> None:
    customize(tmp_path / "site", "import sys; sys.modules['aiosmtpd'] = None")
    result = await notifyd("demo", environ={"PYTHONPATH": str(tmp_path / "site")})
    assert result.code == 1
    assert "pip install 'notifyd-server[demo]'" in result.stderr


NOT_LISTENING: Final = """
import sys
if "serve" in sys.orig_argv:
    import socket
    def broken(*args, **kwargs): raise OSError("no listening today")
    socket.create_server = broken
"""


def customize(site: Path, code: str) -> None:
    """A module that Python imports at its start."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)


# --- on a terminal ------------------------------------------------------------------------------------------


@define
class Terminal:
    """A demo on a terminal of its own, and what it has shown so far."""

    process: asyncio.subprocess.Process
    shown: bytearray

    @property
    def plain(self) -> str:
        """Without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.shown.decode()).replace("\r", "")

    async def shows(self, part: str) -> str:
        try:
            return await until(lambda: self.plain if part in self.plain else "")
        except TimeoutError:
            raise AssertionError(f"it has shown no {part!r}, but\n{self.plain}") from None


@asynccontextmanager
async def terminal(out: Path) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifyd", "demo", "--out", str(out)),
        env=os.environ | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    one = Terminal(process, bytearray())
    asyncio.get_running_loop().add_reader(ours, _read, ours, one.shown)
    try:
        yield one
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _read(end: int, into: bytearray) -> None:
    try:
        into += os.read(end, 65536)
    except OSError:  # the other end is closed
        asyncio.get_running_loop().remove_reader(end)


async def test_on_a_terminal_a_second_approval_waits_to_be_decided_until_ctrl_c(tmp_path: Path) -> None:
    async with terminal(tmp_path) as demo, aiohttp.ClientSession() as browser:
        plain = await demo.shows("Ctrl-C ends the demo\n     http")
        assert "\x1b[" in demo.shown.decode()
        (link,) = re.findall(r"^     (http\S+/approvals/\S{60,})$", plain, re.MULTILINE)
        async with browser.get(link) as answer:
            page = Page(await answer.text())
        form = page.fields | {"decision": "rejected", "comment": "not today", "confirmed": "1"}
        async with browser.post(link, data=form, allow_redirects=False) as answer:
            assert answer.status == 303
        await demo.shows("Task Runner gets the decision: rejected by alice@acme.example")
        demo.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(demo.process.wait(), 10) == 0
        await demo.shows("Everything went as it should.")


async def test_a_demo_that_is_ended_early_leaves_no_daemon_behind(tmp_path: Path) -> None:
    async with terminal(tmp_path) as demo, aiohttp.ClientSession() as browser:
        plain = await demo.shows("is ready at ")
        (url,) = re.findall(r"is ready at (\S+),", plain)
        demo.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(demo.process.wait(), 15)
        # 130, or 0 where it had come to waiting by then.
        assert code in (130, 0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await browser.get(url + "/healthz")
