"""Messages and routes for people at a terminal, and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from notifyd.text import clean, one_line

if TYPE_CHECKING:
    from notifyd.model import Message
    from notifyd.preview import Preview, Route
    from notifyd.rules.rules import Explanation
    from notifyd.samples import Sample

_MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "matched": ("✓", "bold green"),
    "not_matched": ("✗", "dim"),
    "error": ("!", "bold yellow"),
    "not_reached": ("-", "dim"),
}
_WORDS: Final[Mapping[str, str]] = {
    "matched": "matched",
    "not_matched": "did not match",
    "error": "did not match, as it could not be evaluated",
    "not_reached": "not reached: an earlier rule stops",
}
_COLOURS: Final[Mapping[str, str]] = {"info": "blue", "success": "green", "warning": "yellow", "error": "red"}


# --- for people --------------------------------------------------------------------------------------------
# What an event holds is given to rich as Text, never as markup, and was cleaned of controls before.


def print_route(route: Route) -> None:
    console = Console(highlight=False)
    console.print(_headline(route.seen))
    console.print(Text("\nRules", style="bold"))
    for explanation in route.rules:
        console.print(_rule(explanation))
    if not route.previews:
        console.print(Text("\nNobody is told.", style="bold"))
    for preview in route.previews:
        console.print()
        console.print(_panel(preview))


def print_message(message: Message) -> None:
    Console(highlight=False).print(_body(message))


def print_samples(shown: Sequence[Sample], gaps: Sequence[str]) -> None:
    console = Console(highlight=False)
    for one in shown:
        console.print(Text(f"\n{_heading(one)}", style="bold reverse"))
        failed = Text(f"cannot be rendered: {one_line(one.fault)}", style="bold red")
        console.print(_body(one.message) if one.message else failed)
    for gap in gaps:
        console.print(Text(f"missing: {gap}", style="yellow"))


def _heading(one: Sample) -> str:
    return " · ".join(filter(None, (one.template, one.locale, one.example, one.vendor)))


def samples_page(shown: Sequence[Sample], gaps: Sequence[str]) -> str:
    """One HTML page of all, each mail in a frame of its own, since each is a page."""
    parts = [f"<p>missing: {escape(gap)}</p>" for gap in gaps]
    for one in shown:
        parts.append(f"<h2>{escape(_heading(one))}</h2>")
        if one.message is None:
            parts.append(f"<p>cannot be rendered: {escape(one.fault)}</p>")
            continue
        text = f"{one.message.title}\n\n{one.message.body}"
        frame = f'<iframe sandbox srcdoc="{escape(one.message.html or "")}"></iframe>'
        parts.append(f'<pre lang="{escape(one.locale)}" dir="auto">{escape(text)}</pre>{frame}')
    return _PAGE.format(contents="\n".join(parts))


def _headline(seen: Mapping[str, Any]) -> Text:
    tenant = seen.get("tenant")
    names = [f"{seen.get('kind')} {seen.get('action', '')}".strip()]
    names.append(f"of {tenant.get('id')}" if isinstance(tenant, Mapping) else "")
    names.append(f"about {seen['runId']}/{seen['approvalId']}" if "runId" in seen else "")
    return Text(one_line(" ".join(filter(None, names))), style="bold")


def _rule(explanation: Explanation) -> Text:
    mark, style = _MARKS[explanation.verdict.value]
    text = Text(f"  {mark} {explanation.rule.name}", style=style)
    detail = f": {one_line(explanation.detail)}" if explanation.detail else ""
    return text.append(f"  {_WORDS[explanation.verdict.value]}{detail}", style="not bold")


def _panel(preview: Preview) -> Panel:
    audience = ", ".join(preview.recipients) or "all who read it"
    title = f"{preview.channel} ({preview.type}) to {audience}"
    may = "its link decides" if preview.can_decide else ""
    facts = (f"rule {preview.rule}", f"template {preview.template}", preview.locale, may)
    if preview.message is None:
        content: RenderableType = Text(f"cannot be rendered: {one_line(preview.fault)}", style="bold red")
        colour = "red"
    else:
        content, colour = _body(preview.message), _COLOURS[preview.message.level.value]
    return Panel(
        content,
        title=Text(one_line(title)),
        subtitle=Text(one_line(" · ".join(filter(None, facts)))),
        title_align="left",
        subtitle_align="left",
        border_style=colour,
        padding=(1, 2),
    )


def _body(message: Message) -> Group:
    return Group(*_parts(message))


def _parts(message: Message) -> Iterator[RenderableType]:
    yield Text(one_line(message.title), style="bold")
    if message.body:
        yield Text("\n" + clean(message.body))
    if message.fields:
        yield Text("")
        table = Table.grid(padding=(0, 2))
        for one in message.fields:
            table.add_row(Text(one_line(one.name), style="dim"), Text(one_line(one.value), overflow="fold"))
        yield table
    for action in message.actions:
        yield Text(f"\n[{one_line(action.label)}] {action.url}", style="underline", overflow="fold")


_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>notifyd: messages</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;margin:1rem}}pre{{white-space:pre-wrap}}
iframe{{width:100%;max-width:44rem;height:38rem;border:1px solid #888}}</style></head>
<body><h1>Messages</h1>
{contents}
</body></html>
"""


# --- for programs ------------------------------------------------------------------------------------------


def route_json(route: Route) -> dict[str, Any]:
    return {
        "event": dict(route.seen),
        "rules": [
            {"name": one.rule.name, "verdict": one.verdict.value, "detail": one.detail} for one in route.rules
        ],
        "messages": [_preview_json(preview) for preview in route.previews],
    }


def _preview_json(preview: Preview) -> dict[str, Any]:
    return {
        "rule": preview.rule,
        "channel": preview.channel,
        "type": preview.type,
        "recipients": list(preview.recipients),
        "template": preview.template,
        "locale": preview.locale,
        "canDecide": preview.can_decide,
        "message": message_json(preview.message) if preview.message else None,
        "fault": preview.fault or None,
    }


def sample_json(one: Sample) -> dict[str, Any]:
    return {
        "template": one.template,
        "locale": one.locale,
        "example": one.example,
        "block": one.vendor or "body",
        "message": message_json(one.message) if one.message else None,
        "fault": one.fault or None,
    }


def message_json(message: Message) -> dict[str, Any]:
    return {
        "title": message.title,
        "body": message.body,
        "level": message.level.value,
        "fields": [{"name": one.name, "value": one.value} for one in message.fields],
        "actions": [{"label": one.label, "url": one.url} for one in message.actions],
        "locale": message.locale,
        "html": message.html,
    }
