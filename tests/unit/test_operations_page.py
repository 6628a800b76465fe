"""What `make fresh-install` runs of docs/operations.md is whole, and agrees with the files it installs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt

from notifyd.cli import COMMANDS
from notifyd.cli.common import DEFAULT_CONFIG
from notifyd.config.settings import Server
from tests.fresh.page import OPERATIONS, Block, blocks

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = OPERATIONS.read_text(encoding="utf-8")
BLOCKS: Final = blocks(PAGE)
RUN: Final = "\n".join(block.commands for block in BLOCKS if not block.why_not)
UNIT: Final = (ROOT / "systemd" / "notifyd.service").read_text(encoding="utf-8")

each_block = pytest.mark.parametrize("block", BLOCKS, ids=[f"line-{block.line}" for block in BLOCKS])


def test_every_block_is_run_or_says_why_it_is_not_or_is_no_command() -> None:
    kinds = [token.info for token in MarkdownIt().parse(PAGE) if token.type in ("fence", "code_block")]
    assert set(kinds) == {"sh", "toml", "console"}
    assert kinds.count("sh") == len(BLOCKS)
    told = [block.why_not for block in BLOCKS if block.why_not]
    assert told == re.findall(r"^<!-- not run: (.+) -->$", PAGE, re.MULTILINE)
    assert len(told) < len(BLOCKS) / 2


def test_a_reason_counts_for_the_block_right_below_it_alone() -> None:
    page = (
        "<!-- not run: why -->\n```sh\na\n```\n\n```sh\nb\n```\n\n<!-- not run: x -->\n\nd\n\n```sh\nc\n```\n"
    )
    assert blocks(page) == [Block(3, "a\n", "why"), Block(7, "b\n", ""), Block(15, "c\n", "")]


@each_block
def test_a_block_is_sound_bash(block: Block) -> None:
    readers = [["bash", "-n"]]
    if shutil.which("shellcheck"):
        readers.append(["shellcheck", "--shell=bash", "--severity=warning", "-"])
    for reader in readers:
        done = subprocess.run(reader, input=block.commands, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@each_block
def test_a_block_calls_commands_of_notifyd_that_there_are(block: Block) -> None:
    called = re.findall(r"(?:^|[ (/;])notifyd ([a-z][a-z-]+)", block.commands, re.MULTILINE)
    assert set(called) <= set(COMMANDS)


def test_what_is_installed_comes_from_the_checkout_and_goes_where_the_table_says() -> None:
    table = dict(re.findall(r"^\| `(notifyd\.\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert table.keys() == {path.name for path in (ROOT / "systemd").iterdir()}
    went: dict[str, str] = {}
    for line in RUN.splitlines():
        words = shlex.split(line, comments=True) if line.startswith("install ") else []
        went |= {Path(word).name: words[-1] for word in words if word.startswith("systemd/")}
    assert went == table


def test_the_program_is_where_the_unit_starts_it() -> None:
    program = re.search(r"^ExecStart=(\S+)", UNIT, re.MULTILINE)
    assert program
    assert f"ln -s {program[1]} " in RUN
    assert f"python3 -m venv {Path(program[1]).parents[1]}\n" in RUN


def test_what_is_in_etc_has_its_owner_and_mode_from_tmpfiles() -> None:
    lines = (ROOT / "systemd" / "notifyd.tmpfiles").read_text(encoding="utf-8").splitlines()
    known = {line.split()[1] for line in lines if not line.startswith("#")}
    named = set(re.findall(r"/etc/notifyd[\w./-]*", RUN))
    assert str(DEFAULT_CONFIG) in named
    assert {path for path in named if path not in known and str(Path(path).parent) not in known} == set()


def test_the_credentials_that_are_made_are_those_that_are_handed_on_and_asked_for() -> None:
    made = set(re.findall(r"> /etc/notifyd/credentials/(\S+)\)", RUN))
    assert made == set(re.findall(r"\$\{cred:([\w-]+)\}", RUN))
    handed = re.findall(r"^LoadCredential=(\S+):/etc/notifyd/credentials/(\S+)$", RUN, re.MULTILINE)
    assert {(name, name) for name in made} == set(handed)


def test_the_service_is_asked_where_it_listens() -> None:
    asked = set(re.findall(r"http://([\d.]+:\d+)", RUN))
    assert asked == {str(Server().listen)}
