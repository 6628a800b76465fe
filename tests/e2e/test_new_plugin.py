"""The road of a plugin's author: a project from `notifyd new-plugin`, installed, tested, delivering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import frozen
from click.testing import CliRunner, Result

from notifyd.cli import cli
from notifyd.testing import Sink
from tests import events
from tests.e2e.databases import Database
from tests.process import daemon_process, toml
from tests.venv import Venv, fresh_venv
from tests.waiting import until


def new_plugin(folder: Path, name: str) -> Result:
    return CliRunner().invoke(cli, ["new-plugin", "--into", str(folder), name])


@frozen
class Made:
    """The project of a new plugin, and the environment it is installed in."""

    project: Path
    venv: Venv


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("new-plugin")
    result = new_plugin(folder, "two-way")
    assert result.exit_code == 0, result.output
    one = Made(folder / "notifyd-two-way", fresh_venv(folder / "venv"))
    one.venv.install(one.project)
    return one


def test_a_new_plugin_installs_and_passes_its_tests(made: Made) -> None:
    tested = made.venv.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=made.project)
    assert " passed" in tested

    listed = json.loads(made.venv.run("-m", "notifyd", "plugins", "--json"))
    (plugin,) = [one for one in listed["plugins"] if one["name"] == "two-way"]
    assert (plugin["distribution"], plugin["provides"]) == ("notifyd-two-way", ["channel two-way"])


async def test_a_new_plugin_delivers(made: Made, database: Database, tmp_path: Path) -> None:
    async with Sink() as sink:
        config = f"""
[channels.mine]
type = "two-way"
url = {toml(sink.url)}
token = "a-token-of-the-receiver"

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["mine"]
"""
        python = made.venv.python
        async with daemon_process(tmp_path, config, store=database.url, python=python) as daemon:
            event = events.load("cloudevent-task-done")
            answer = await daemon.post("/api/v1/events", event | {"time": None})
            assert answer.status == 202, answer.text
            (received,) = await until(lambda: sink.received)
            assert received.headers["Authorization"] == "Bearer a-token-of-the-receiver"
            assert event["subject"] in json.loads(received.body)["title"]
            shown = (await daemon.get("/api/v1/channels")).json["items"]
            assert [(one["name"], one["plugin"], one["version"]) for one in shown] == [
                ("mine", "two-way", "0.1.0")
            ]


def test_a_project_is_complete_and_has_no_placeholder_left(tmp_path: Path) -> None:
    new_plugin(tmp_path, "notifyd-pager")
    project = tmp_path / "notifyd-pager"
    files = {
        str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()
    }
    assert sorted(files) == [
        "README.md",
        "notifyd_pager/__init__.py",
        "pyproject.toml",
        "tests/test_notifyd_pager.py",
    ]
    for text in files.values():
        assert not {"$name", "$module", "${cls}", "$distribution"} & set(text.split())
        assert "pager" in text


@pytest.mark.parametrize("name", ["", "Pager", "two_way", "-x", "x-", "1x", "../x", "a" * 41, "two--way"])
def test_a_name_that_no_channel_type_can_have_is_refused(tmp_path: Path, name: str) -> None:
    refused = new_plugin(tmp_path, name)
    assert refused.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_with_its_owner(tmp_path: Path) -> None:
    refused = new_plugin(tmp_path, "slack")
    assert refused.exit_code == 1
    assert 'the plugin "slack" (notifyd-slack) brings a channel type "slack"' in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    assert new_plugin(tmp_path, "pager").exit_code == 0
    mine = tmp_path / "notifyd-pager" / "README.md"
    mine.write_text("mine")
    refused = new_plugin(tmp_path, "pager")
    assert (refused.exit_code, mine.read_text()) == (1, "mine")
