"""The package for Debian agrees with the units and the commands; `make test-long` builds one and starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import pytest

from notifyd.cli import cli
from notifyd.cli.common import DEFAULT_CONFIG
from notifyd.config import load as config
from notifyd.registry.discovery import discover
from tests.debian import manual, package
from tests.process import SEAL_KEY

AT: Final = datetime(2026, 11, 29, tzinfo=UTC)
PAGES: Final = dict(manual.pages(AT))
ROOT: Final = package.ROOT


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from commands(f"{name}-{below}", found)


def test_each_command_has_a_page_with_its_options_and_what_is_below_it() -> None:
    every = dict(commands("notifyd", cli))
    assert {f"{name}.1" for name in every} | {"notifyd.toml.5"} == set(PAGES)
    for name, command in every.items():
        page = PAGES[f"{name}.1"]
        shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        for option in (spelling for one in shown for spelling in (*one.opts, *one.secondary_opts)):
            assert manual.plain(option) in page, (name, option)
        for below in command.commands if isinstance(command, click.Group) else ():
            assert f".BR {manual.plain(f'{name}-{below}')} (1)" in page


def test_the_page_of_the_configuration_has_every_line_of_it() -> None:
    lines = (ROOT / "conf" / "notifyd.toml").read_text().splitlines()
    assert "\n".join(map(manual.plain, lines)) in PAGES["notifyd.toml.5"]


@pytest.mark.parametrize(
    ("said", "escaped"),
    [(".so file", "\\&.so file"), ("'x'", "\\(aqx\\(aq"), ("a\\b", "a\\eb"), ("^~`", "\\(ha\\(ti\\(ga")],
)
def test_nothing_that_is_said_is_an_instruction_of_roffs(said: str, escaped: str) -> None:
    assert manual.text(said) == escaped


def test_a_paragraph_that_keeps_its_lines_keeps_them_and_others_are_filled() -> None:
    assert manual.paragraphs("one\ntwo\n\n\b\n a\n b") == "one two\n.PP\n.nf\n a\n b\n.fi\n"


def test_readers_of_pages_have_no_complaint(tmp_path: Path) -> None:
    for name, said in PAGES.items():
        (tmp_path / name).write_text(said)
    groff, mandoc = ["groff", "-man", "-Tutf8", "-ww"], ["mandoc", "-Tlint", "-Wwarning"]
    for reader in (one for one in (groff, mandoc) if shutil.which(one[0])):
        done = subprocess.run([*reader, *PAGES], cwd=tmp_path, capture_output=True, text=True, check=False)
        complaints = done.stdout if reader is mandoc else done.stderr
        assert (done.returncode, complaints) == (0, "")


def test_bash_completes_by_the_file_that_is_installed(tmp_path: Path) -> None:
    script = tmp_path / "notifyd"
    script.write_text(package.completion("usr/share/bash-completion/completions/notifyd"))
    asked = "COMP_WORDS=(notifyd check); COMP_CWORD=1; _notifyd_completion notifyd; echo ${COMPREPLY[@]}"
    command = ["bash", "-c", f'source "$1"; {asked}', "bash", str(script)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("check-config\n", "")


def test_what_it_takes_from_the_checkout_is_there_and_units_start_what_it_installs() -> None:
    assert all((ROOT / source).is_file() for source in package.FILES)
    units = (ROOT / "systemd" / "notifyd.service").read_text()
    assert f"ExecStart={package.HOME}/bin/notifyd serve --config {DEFAULT_CONFIG}\n" in units
    assert f"/{package.FILES['conf/debian/notifyd.toml']}" == str(DEFAULT_CONFIG)
    docs = (ROOT / "docs" / "operations.md").read_text()
    for place in ("usr/lib/sysusers.d/notifyd.conf", "usr/lib/tmpfiles.d/notifyd.conf"):
        assert place in package.FILES.values()
        assert f"/{place}" in docs


def test_its_configuration_is_valid_once_there_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "seal-key").write_text(SEAL_KEY)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    config.read(package.OWN / "notifyd.toml", discover().brought, environ).whole()


@pytest.mark.parametrize("name", package.SCRIPTS)
def test_shells_have_no_complaint_of_its_scripts(name: str) -> None:
    for checker in (["sh", "-n"], ["shellcheck"]):
        if shutil.which(checker[0]):
            done = subprocess.run([*checker, package.OWN / name], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_c_library_is_the_newest_that_a_wheel_asks_for_and_the_oldest_that_it_takes(
    tmp_path: Path,
) -> None:
    tags = {"a": "cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "b": "cp311-manylinux_2_34_x86_64"}
    for name, tag in {**tags, "c": "py3-none-any"}.items():
        (tmp_path / f"{name}.dist-info").mkdir()
        (tmp_path / f"{name}.dist-info" / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    assert package.libc(tmp_path) == (2, 34)


def test_its_files_bear_the_moment_that_the_environment_says() -> None:
    assert package.epoch({"SOURCE_DATE_EPOCH": str(int(AT.timestamp()))}) == AT
