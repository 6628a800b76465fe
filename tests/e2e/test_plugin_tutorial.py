"""The tutorial of `docs/plugins.md`, done to the letter: its wheel is installed, pages are sent and answered."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
from attrs import frozen

from notifyd.model import wall_clock
from notifyd.render.replies import REPLIES
from notifyd.testing import Received, Reply, Sink
from tests import events
from tests.e2e.databases import Database
from tests.plugin_docs import Block, blocks
from tests.process import daemon_process, toml
from tests.venv import Venv, fresh_venv
from tests.waiting import until

pytestmark = pytest.mark.long

PIP = '#!/bin/sh\nexec {python} -m pip "$@" --quiet --no-index --no-deps --no-build-isolation\n'
"""pip with no network: what the project depends on is in the environment already."""

MODULE = '#!/bin/sh\nexec {python} -m notifyd "$@"\n'


def commands(venv: Venv) -> Path:
    """A folder with `pip`, `python` and `notifyd` of this environment."""
    for name, text in (("pip", PIP), ("notifyd", MODULE)):
        path = venv.folder / "bin" / name
        path.write_text(text.format(python=quote(venv.python)))
        path.chmod(0o755)
    return venv.folder / "bin"


def script(steps: list[Block]) -> str:
    """One shell script of all blocks: files are written, commands run, each block's output behind a mark."""
    lines = ["set -e"]
    for number, block in enumerate(steps):
        lines.append(f"echo @@{number}")
        if block.title:
            lines += [f"mkdir -p $(dirname {block.title})", f"cat > {block.title} <<'@@END'"]
            lines += [block.text.removesuffix("\n"), "@@END"]
        else:
            lines += block.commands
    return "\n".join([*lines, "pwd > ../folder", ""])


def follow(folder: Path, venv: Venv, steps: list[Block]) -> list[str]:
    """What each block prints."""
    path = f"{commands(venv)}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}
    done = subprocess.run(
        ["bash", "-c", script(steps)],  # noqa: S607 - the one on the path
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return [part.partition("\n")[2] for part in done.stdout.split("@@")[1:]]


@frozen
class Followed:
    """Where the steps were followed, and what each has printed."""

    folder: Path
    venv: Venv
    steps: list[Block]
    printed: list[str]

    @property
    def project(self) -> Path:
        return self.folder / "notifyd-pager"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder = tmp_path_factory.mktemp("tutorial")
    steps, venv = blocks(), fresh_venv(folder / "venv")
    one = Followed(folder, venv, steps, follow(folder, venv, steps))
    venv.install(one.project)  # as its users do, in place of the author's editable one
    return one


def test_the_tutorial_prints_what_it_says_it_does(followed: Followed) -> None:
    for block, output in zip(followed.steps, followed.printed, strict=True):
        for line in block.shown if block.kind == "console" else []:
            assert line in output
    assert Path((followed.folder / "folder").read_text().strip()) == followed.project


async def test_the_tutorial_leads_to_a_plugin_that_delivers(
    followed: Followed, database: Database, tmp_path: Path
) -> None:
    project, python = followed.project, followed.venv.python
    async with Sink() as sink:
        environ = {"PAGER_URL": sink.url, "PAGER_KEY": "the-key-of-the-team"}
        config = (project / "notifyd.toml").read_text()
        async with daemon_process(
            tmp_path, config, store=database.url, environ=environ, python=python
        ) as daemon:
            event = json.loads((project / "event.json").read_text())
            assert (await daemon.post("/api/v1/events", event)).status == 202
            (received,) = await until(lambda: sink.received)
            page = json.loads(received.body)
            assert (page["team"], page["summary"]) == ("release", "Payments 3.1 ist erschienen")
            assert received.headers["x-pager-key"] == "the-key-of-the-team"
            assert (await daemon.post("/api/v1/channels/on-call/test", {})).status == 200
            assert ["Payments" in one.body.decode() for one in sink.received] == [True, False]


class Vendor(Sink):
    """The vendor of the tutorial: numbers pages, and holds on to a question until the answer after it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[dict[str, str]] = []
        self.asked: list[str] = []  # after which answer the next one was asked for
        self._came = asyncio.Event()

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        self._came.set()
        await super().__aexit__(*exc)

    def press(self, button: dict[str, str], by: str) -> None:
        """Somebody presses a button of a page."""
        pressed = {"action": button["action"], "ref": button["ref"], "by": by, "reason": ""}
        self.answers.append({"id": str(len(self.answers) + 1)} | pressed)
        self._came.set()

    def at(self, path: str) -> list[dict[str, Any]]:
        """What came there."""
        return [json.loads(one.body) for one in self.received if one.path == path]

    async def choose(self, received: Received) -> Reply:
        if received.path != "/answers":
            return Reply(200, json.dumps({"page": "p-7"}) if received.path == "/" else "{}")
        question = json.loads(received.body)
        self.asked.append(question["after"])
        seen = int(question["after"] or 0)
        with suppress(TimeoutError):
            async with asyncio.timeout(question["wait"]):
                while len(self.answers) == seen and not self._closing.is_set():
                    self._came.clear()
                    await self._came.wait()
        return Reply(200, json.dumps(self.answers[seen])) if self.answers[seen:] else Reply(204, "")


async def test_the_tutorial_leads_to_pages_that_are_answered_over_a_restart(
    followed: Followed, tmp_path: Path
) -> None:
    installed = followed.venv.packages / "notifyd_pager"
    assert (installed / "duty.py").is_file()
    assert (installed / "templates" / "release.de.txt").is_file()
    async with Vendor() as vendor:
        environ = {"PAGER_URL": vendor.url, "PAGER_KEY": "the-key-of-the-team"}
        approvals = (followed.project / "approvals.toml").read_text()
        config = f"{approvals}\n[resume]\nallowed_origins = [{toml(vendor.url)}]\n"
        async with daemon_process(tmp_path, config, environ=environ, python=followed.venv.python) as daemon:
            resume = {"callbackUrl": f"{vendor.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            request = events.requested(at=wall_clock(), resume=resume, requiredApprovals=1)
            assert (await daemon.send(request)).status == 202
            (page,) = await until(lambda: vendor.at("/"))
            (approve,) = (one for one in page["buttons"] if one["action"] == "approved")
            vendor.press(approve, by="U-of-nobody")
            await until(lambda: "1" in vendor.asked)
            assert await daemon.stop() == 0
            before = len(vendor.asked)

            await daemon.start()
            vendor.press(approve, by="U7")
            (changed,) = await until(lambda: vendor.at("/p-7"))
            (callback,) = await until(lambda: vendor.at("/resume"))
            await until(lambda: "2" in vendor.asked)
            assert await daemon.stop() == 0
            assert daemon.stderr == b""
    assert vendor.asked[before] == "1"
    assert changed["buttons"] == []
    assert "approved" in changed["summary"] + changed["details"]
    assert callback["data"]["decision"] == "approved"
    (refusal,), (thanks,) = vendor.at("/answers/1"), vendor.at("/answers/2")
    assert refusal["text"] == REPLIES["en"]["unknown"].format(address="U-of-nobody")
    assert thanks["text"] == REPLIES["en"]["approved"]
    assert len(vendor.at("/")) == 1
