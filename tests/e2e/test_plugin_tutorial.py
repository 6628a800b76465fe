"""The tutorial of `docs/plugins.md`, followed to the letter: files written, commands run, a page sent."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from shlex import quote

import pytest
from attrs import frozen

from notifyd.testing import Sink
from tests.e2e.databases import Database
from tests.plugin_docs import Block, blocks
from tests.process import daemon_process
from tests.venv import Venv, fresh_venv
from tests.waiting import until

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
    return Followed(folder, venv, steps, follow(folder, venv, steps))


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
