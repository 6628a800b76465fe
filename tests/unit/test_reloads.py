"""`notifyd reload`: the signal it sends, and how the service's own record of reloads tells it the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from notifyd.cli import cli
from notifyd.service.reloads import Record, folder, read


def run(where: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["reload", *arguments], env={"RUNTIME_DIRECTORY": str(where)})


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What the service, which is this process, does between two looks of the command, one after the other."""
    steps: list[Callable[[], None]] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    monkeypatch.setattr("notifyd.cli.reload.time.sleep", lambda seconds: steps.pop(0)() if steps else None)
    yield steps
    signal.signal(signal.SIGHUP, before)


def test_a_reload_that_is_taken_ends_well(tmp_path: Path, meanwhile: list[Callable[[], None]]) -> None:
    record = Record(tmp_path)
    meanwhile += [record.begin, lambda: record.end(taken=True)]
    done = run(tmp_path)
    assert (done.exit_code, done.stdout) == (0, "reloaded\n")
    assert not meanwhile


def test_a_reload_that_is_refused_fails(tmp_path: Path, meanwhile: list[Callable[[], None]]) -> None:
    record = Record(tmp_path)
    meanwhile += [record.begin, lambda: record.end(taken=False)]
    done = run(tmp_path)
    assert (done.exit_code, "was refused" in done.stderr) == (1, True)


def test_a_reload_that_was_under_way_already_is_not_the_one_that_was_asked_for(
    tmp_path: Path, meanwhile: list[Callable[[], None]]
) -> None:
    record = Record(tmp_path)
    record.begin()
    meanwhile += [lambda: record.end(taken=True), record.begin, lambda: record.end(taken=False)]
    assert run(tmp_path).exit_code == 1
    assert not meanwhile


def test_a_service_that_does_not_come_to_it_is_not_waited_for_for_ever(
    tmp_path: Path, meanwhile: list[Callable[[], None]]
) -> None:
    Record(tmp_path)
    done = run(tmp_path, "--timeout", "0.01")
    assert (done.exit_code, "does not come to the reload" in done.stderr) == (1, True)


def test_where_no_service_runs_that_is_told(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.exit_code, f"no service is found by {tmp_path}" in done.stderr) == (1, True)
    (tmp_path / "reloads.json").write_text('{"another": 1}')
    assert run(tmp_path).exit_code == 1
    nowhere = CliRunner().invoke(cli, ["reload"], env={"RUNTIME_DIRECTORY": None})
    assert (nowhere.exit_code, "RUNTIME_DIRECTORY" in nowhere.stderr) == (2, True)


def test_a_folder_that_cannot_be_written_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Record(tmp_path / "gone").begin()
    assert "reloads.json cannot be written: No such file" in caplog.text


def test_the_record_names_the_process_and_the_folder_is_the_first_that_systemd_names(tmp_path: Path) -> None:
    Record(folder({"RUNTIME_DIRECTORY": f"{tmp_path}:/run/other"}))
    assert read(tmp_path).pid == os.getpid()
    assert folder({}) is None


@pytest.mark.parametrize(
    "pid", ["0", "-1", "-2147483647", "true", '"1"', "1.5", "1e99", "99999999999999999999", "null"]
)
def test_a_record_that_names_no_single_process_is_none_of_a_service(tmp_path: Path, pid: str) -> None:
    """A signal to 0 or -1 goes to many: to every process of the machine, where root asks for the reload."""
    (tmp_path / "reloads.json").write_text(f'{{"pid": {pid}, "begun": 1, "ended": 1, "taken": true}}')
    with pytest.raises(ValueError, match="is not the file of a running service"):
        read(tmp_path)


def test_a_record_that_names_a_process_of_another_user_is_refused(tmp_path: Path) -> None:
    file, root = tmp_path / "reloads.json", os.getuid() == 0
    file.write_text(f'{{"pid": {os.getpid() if root else 1}}}')
    if root:
        os.chown(file, 65534, 65534)
    with pytest.raises(ValueError, match="names a process of another user"):
        read(tmp_path)
