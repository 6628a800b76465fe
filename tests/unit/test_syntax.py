"""What is no TOML is told in plain words, at its line and column, and without what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.cli.common import fault_lines
from notifyd.config.brought import Brought
from notifyd.config.lines import placed
from notifyd.config.load import load_server, read
from notifyd.config.syntax import document, read_text
from notifyd.errors import ConfigError

CASES: Final = {
    'listen = "x"\nlisten = "y"': "2:1: `listen` is written a second time: it is in line 1 already",
    "[server]\n[keys]\n[server]": "3:2: `server` is written a second time: it is in line 1 already",
    "[server]\n[keys]\n[[server]]": "3:3: `server` is written a second time",
    "[[rules]]\n[rules]": "2:2: `rules` is written a second time: it is in line 1 already",
    "[[rules]]\nname = 'a'\n\nname = 'b'": "4:1: `rules[0].name` is written a second time: it is in line 2",
    "a = [\n1,\n]\na = [\n2,\n]": "4:1: `a` is written a second time: it is in line 1 already",
    "a = {b = 1,  b = 2}": "1:14: `a.b` is written a second time: it is in line 1 already",
    "server = {listen = 'x'}\n[server.tls]": "2:2: `server` was written in one piece in line 1: put `server.tls`",
    "[a.b]\n[a]\nb.c = 1": "3:1: `a.b` was written in one piece in line 1: put `a.b.c` there",
    "a = 3\n[a.b]": "2:2: `a` was written in one piece in line 1: put `a.b` there",
    "\ufeff[keys]": "1:1: the file begins with a byte order mark: save it as UTF-8 without one",
    "a = [\x00]": "1:6: the character U+0000 is a control character",
    'a = "\x00"': "1:6: the character U+0000 is a control character",
    "a\u00a0= 1": "1:2: the character U+00A0 (NO-BREAK SPACE) looks like a space",
    "\u200ba = 1": "1:1: the character U+200B (ZERO WIDTH SPACE) looks like a space, or like nothing",
    "a = \u201cb\u201d": '1:5: the character U+201C (LEFT DOUBLE QUOTATION MARK) is no quote to TOML: write "',
    "a = 127.0.0.1:8686": "1:10: the line has to end here: each key has one of its own, and text stands in quotes",
    "a = 30s": "1:7: the line has to end here",
    "a = 1 b = 2": "1:7: the line has to end here",
    "a = whsec_c2VjcmV0": "1:5: text stands in quotes",
    "a = True": "1:5: write true in small letters",
    "a = on # or off": "1:5: write true or false",
    "a = null": "1:5: TOML has no value for nothing: leave the key out",
    "a =": "1:4: a value is missing here",
    "a = # later\nb = 1": "1:5: a value is missing here",
    'a: "b"': "1:2: between a key and its value stands =, not a colon",
    'a "b"': "1:3: behind a key stands =",
    "= 1": "1:1: before the = a key is missing",
    '{"a": 1}': "1:1: a table begins with its name in brackets: [server]; the file is TOML, not JSON",
    "! a": "1:1: a line is KEY = VALUE",
    "<<<<<<< HEAD\na = 1": "1:1: this line is left from a merge",
    "[a] b = 1": "1:5: behind a table's name in brackets the line ends",
    "[a]]": "1:4: behind a table's name in brackets the line ends; one of several is written [[NAME]]",
    "[recipients.a@b.example]": "1:14: a table's name ends with as many ]",
    "[[rules]": "1:8: a table's name ends with as many ]",
    "[a.]": "1:4: a key is missing here",
    'a = "b\nc = 1': "1:7: a text is closed on its own line",
    "a = 'b\nc = 'd'": "1:7: a text is closed on its own line",
    'a = "b': "1:5: the text that begins here is never closed",
    "a = 'b": "1:5: the text that begins here is never closed",
    'a = 1\nb = """c\nd = 2\n': "2:5: the text that begins here is never closed",
    "a = [\n1,\n2\nb = 1": "4:1: the array that begins in line 1 lacks a comma between two of its parts, or its ]",
    "a = [1 2]": "1:8: the array that begins in line 1 lacks a comma",
    "a = {b = [1], c = 2\nd = 3": "2:1: the table that begins in line 1 lacks a comma",
    r'a = "C:\certs"': "1:10: in double quotes a backslash begins an escape",
    r'a = "\ud800"': "1:12: in double quotes a backslash begins an escape",
    "a = " + "[" * 1000: " has tables or arrays that are nested too deeply",
    "a = " + "1" * 5000: " is no TOML: Exceeds the limit",
}


@pytest.mark.parametrize("text", CASES, ids=lambda text: repr(text[:30]))
def test_what_is_no_toml_is_told_in_plain_words_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        document(text, "n.toml")
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"n.toml:{CASES[text]}")
    assert "c2VjcmV0" not in str(fault)


FILES: Final = {
    b"[keys]\r\n# gr\xfcn\r\n": "{path}:2:5: the byte 0xFC is no UTF-8: save the file as UTF-8",
    b"# \xc3\xbc \xff": "{path}:1:5: the byte 0xFF is no UTF-8: save the file as UTF-8",
    "[keys]".encode("utf-16"): "{path}: is UTF-16: save it as UTF-8",
    b"": "{path}: has no key at all: restore it, or begin with conf/notifyd.toml",
    b"# all of it\n\n": "{path}: has no key at all",
}


@pytest.mark.parametrize("content", FILES)
def test_a_file_that_is_no_text_or_empty_is_told_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path, Brought({}))
    (line,) = fault_lines(path, caught.value.faults)
    assert line.startswith(FILES[content].format(path=path))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_line_ends_as_on_any_system(ends: str, tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_bytes(f"[server]{ends}\tnode = 'n1'{ends}".encode())
    assert load_server(path).node == "n1"


def test_a_folder_and_a_file_that_is_not_there_say_what_to_do(tmp_path: Path) -> None:
    for path, todo in ((tmp_path, "name the file in it"), (tmp_path / "no.toml", "says where it is")):
        with pytest.raises(ConfigError, match=todo) as caught:
            read_text(path)
        assert [fault.pointer for fault in caught.value.faults] == [str(path)]


def test_a_program_is_given_the_line_too(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text("\n[server\n")
    with pytest.raises(ConfigError) as caught:
        read(path, Brought({}))
    assert [line for line, _ in placed(path, caught.value.faults)] == [2]


WHOLE: Final = (Path(__file__).parents[2] / "conf" / "notifyd.toml").read_text()


@settings(max_examples=60)
@given(st.integers(0, len(WHOLE)), st.integers(0, 40), st.text("[]{}\"'=,.\\\n# a1\x00", max_size=3))
def test_whatever_is_done_to_a_file_it_is_read_or_refused_at_a_place(at: int, cut: int, put: str) -> None:
    text = WHOLE[:at] + put + WHOLE[at + cut :]
    try:
        document(text, "n.toml")
    except ConfigError as error:
        (fault,) = error.faults
        _, line, column = fault.pointer.split(":")
        assert 1 <= int(line) <= text.count("\n") + 1
        assert int(column) >= 1
        assert "is no TOML: " not in fault.message, "each has words of its own"
