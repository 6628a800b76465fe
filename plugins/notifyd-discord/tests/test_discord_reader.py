"""What a text says is what Discord shows: read by discord-markdown, which follows Discord's own client."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import quickjs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notifyd_discord import escape

from notifyd.plugin import clean

PARSER = Path(__file__).with_name("discord-markdown")
_HOST = """
var modules = {'highlight.js': {}};
function load(name, source) {
    var module = {exports: {}};
    (new Function('module', 'exports', 'require', source))(module, module.exports, wanted => modules[wanted]);
    modules[name] = module.exports;
}
"""
PLAIN = {"text", "br", "emoticon", "discordEveryone", "discordHere"}
"""What shows text alone; `allowed_mentions` keeps the last two from pinging anybody."""


@cache
def reader() -> Any:
    engine = quickjs.Context()
    engine.eval(_HOST)
    for name in ("simple-markdown", "discord-markdown"):
        source = (PARSER / f"{name}.js").read_text(encoding="utf-8")
        engine.eval(f"load({json.dumps(name)}, {json.dumps(source)})")
    return engine


def read(text: str) -> list[dict[str, Any]]:
    call = f"JSON.stringify(modules['discord-markdown'].parser({json.dumps(text)}))"
    tree: list[dict[str, Any]] = json.loads(reader().eval(call))
    return tree


def shown(node: dict[str, Any]) -> str:
    words = {"br": "\n", "discordEveryone": "@everyone", "discordHere": "@here"}
    if node["type"] in words:
        return words[node["type"]]
    content = node["content"]
    return content if isinstance(content, str) else "".join(map(shown, content))


pieces = st.sampled_from(
    [
        *"*_~`|\\[]()<>#-+>.!@:/",
        *("\n", " ", "  ", "\t", "1. ", "12.", "- ", "# ", "> ", ">>> ", "-# ", "```", "||", "**", "~~"),
        *(
            "https://a.example",
            "http://b_c.example/x_y?z=*1|2",
            "xhttps://a",
            "[Approve](https://evil.example)",
        ),
        *("<@123>", "<#45>", "<t:1:R>", "<:x:1>", "@everyone", "a", "ß", "漢字", "👩‍👩‍👧"),
    ]
)
texts = st.lists(pieces, max_size=12).map("".join).map(clean).map(str.strip)


@settings(max_examples=150, deadline=None)
@given(texts)
@example("xhttps://a[Approve](https://evil.example)")
@example("a\n  - list\n\t# heading\n 12. list\n> quote")
def test_text_arrives_as_it_was_written_with_no_link_but_its_own_addresses(text: str) -> None:
    nodes = read(escape(text))
    assert "".join(map(shown, nodes)) == text.replace("\t", "    ")  # the parser writes tabs so
    for node in nodes:
        if node["type"] in ("autolink", "url"):
            assert shown(node) == node["target"]
        else:
            assert node["type"] in PLAIN
