"""Where each key of a configuration stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.config.faults import dotted
from notifyd.config.lines import lines_of, placed
from notifyd.errors import Fault

TEXT = r'''# a comment with [brackets] and "quotes
title = """
[no.table]
x = 1 """" # four quotes end it
[server]
listen = "a#b" ; "x" = 1
'''.replace(' ; "x" = 1', "")
TEXT += r"""
tls.cert = 'C:\x'
[channels."team \"a\".b"]
urls = [ # here
  "one",
  { a = 1, b = [2,
    3] }, 4 ]
"quoted key" = 1979-05-27 07:32:00
[[rules]]
name = "first"
when = '''
a = 1
[x]'''
escalate = [{after = "1h", channels = ["a",
  "b"]}]
[[rules]]
when = "nameless"
[rules.quiet_hours]
zone = "UTC"
"""


@pytest.mark.parametrize(
    ("pointer", "holds"),
    [
        ("title", "title"),
        ("server", "[server]"),
        ("server.listen", "listen"),
        ("server.tls", "tls.cert"),
        ("server.tls.cert", "tls.cert"),
        (dotted("channels", 'team "a".b'), "[channels."),
        (dotted("channels", 'team "a".b') + ".urls[0]", '"one"'),
        (dotted("channels", 'team "a".b') + ".urls[1].b[1]", "3]"),
        (dotted("channels", 'team "a".b') + ".urls[2]", "3]"),
        (dotted(dotted("channels", 'team "a".b'), "quoted key"), "1979"),
        ("rules", "[[rules]]"),
        ("rules.first", "[[rules]]"),
        ("rules.first.when", "when = '''"),
        ("rules.first.escalate[0].channels[1]", '"b"]}]'),
        ("rules[1].when", "nameless"),
        ("rules[1].quiet_hours.zone", "zone"),
    ],
)
def test_each_key_has_the_line_it_is_written_in(pointer: str, holds: str) -> None:
    assert holds in TEXT.splitlines()[lines_of(TEXT)[pointer] - 1]


def test_a_key_that_is_not_there_has_the_line_of_its_table_and_one_without_a_table_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.toml").write_text(TEXT)
    faults = [
        Fault("server.max_body", ""),
        Fault("server.listen_", ""),
        Fault("keys.seal", ""),
        Fault("", ""),
    ]
    lines = [line for line, _ in placed(tmp_path / "x.toml", faults)]
    assert lines == [lines_of(TEXT)["server"]] * 2 + [None, None]


def paths(value: Any, at: str = "") -> Iterator[str]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield dotted(at, step)
        yield from paths(inner, dotted(at, step))


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4)
VALUES = st.recursive(
    st.text(max_size=6)
    | st.integers(0, 9)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_whatever_the_document_each_of_its_keys_has_a_line(document: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps({f"x{key}": value for key, value in document.items()}, multiline_strings=multiline)
    assert set(lines_of(text)) == set(paths(tomli.loads(text)))
