"""From an event to a message's texts: templates chosen, locales resolved, and rendered.

Pure and deterministic: the same event, template, locale and zone give the same bytes. What a template can
reach is what `render` is given, and nothing else: no secret is ever among it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen
from jinja2 import Template

from notifyd.errors import ConfigError, Fault, RenderError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, Action, Button, Field, Instant, Level, Message
from notifyd.plugin import TemplateSource
from notifyd.render.blocks import Chosen, print_blocks, print_page, printed_by
from notifyd.render.data import data_fault
from notifyd.render.locales import fallbacks, formats_for, parse_locale, tag_of
from notifyd.render.sandbox import Fact, Facts, cut, line
from notifyd.render.templating import BLOCKS, Library, TemplateFile, family, load_library, vendor_block
from notifyd.text import clean, one_line

TITLE_LIMIT: Final = 250
BODY_LIMIT: Final = 20_000
HTML_LIMIT: Final = 400_000
DIGEST_LISTED: Final = 12
"""How many of a digest's items are named, each with its link: every channel has room for so many. The rest are
counted."""

GENERIC: Final = "event"
"""The template that suits any event."""

_MAIL: Final = "mail"
_BUILT_IN_LOCALE: Final = "en"
_OWN_LINKS: Final = 3
"""How many of an event's own links a message has: channels show few buttons."""

_LABEL_LIMIT: Final = 80
_BLOCKS_BUT_FIELDS: Final = tuple(name for name in BLOCKS if name != "fields")


@frozen
class DigestItem:
    """One of the messages a digest stands for. `link` is its own, where it has one."""

    title: str
    link: str | None = None
    level: Level = Level.INFO


@frozen
class Digest:
    """What a digest tells: how many messages of a rule and channel were folded, and over which time.

    `items` may be fewer than `count`; the first twelve are named.
    """

    count: int
    items: tuple[DigestItem, ...]
    started_at: Instant
    ended_at: Instant
    rule: str = ""
    requests: bool = False
    """Does each item ask for an approval?"""


@frozen
class Rendered:
    """A message's texts, bounded and clean: what `model.Message` is made of, but for id and recipient."""

    title: str
    body: str
    html: str | None
    level: Level
    fields: tuple[Field, ...]
    actions: tuple[Action, ...]
    locale: str

    def message(
        self, id_: str, recipient: str | None, event: Mapping[str, Any], buttons: tuple[Button, ...] = ()
    ) -> Message:
        """These texts as the message `id_` about `event`."""
        return Message(
            id=id_,
            title=self.title,
            body=self.body,
            level=self.level,
            fields=self.fields,
            actions=self.actions,
            locale=self.locale,
            html=self.html,
            recipient=recipient,
            event=event,
            buttons=buttons,
        )


@frozen
class TemplateSet:
    """All templates of a configuration. Immutable, and safe to share between threads."""

    _library: Library = field(repr=False)
    default_locale: str
    _chosen: dict[tuple[str, str], Chosen] = field(init=False, factory=dict, eq=False, repr=False)

    @classmethod
    def load(
        cls,
        sources: Sequence[TemplateSource],
        dirs: Sequence[Path],
        default_locale: str,
        types: Iterable[str] = (),
    ) -> TemplateSet:
        """Read and check every template: the operator's `dirs`, then the plugins' `sources`, the built-ins.

        `types` are those of channels, for which a template may have a block. A broken file of a plugin is left
        out. Raises `ConfigError` with every other fault, each with its file and line.
        """
        locale = parse_locale(default_locale)
        if locale is None:
            raise ConfigError([Fault("templates.default_locale", f"{default_locale!r} is not a locale")])
        return cls(load_library(sources, dirs, types), tag_of(locale))

    @property
    def names(self) -> tuple[str, ...]:
        """The names a rule or an event can ask for."""
        return tuple(sorted(self._library.texts))

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """What is wrong with templates of plugins, which are done without."""
        return self._library.left_out

    def knows(self, name: str) -> bool:
        return name in self._library.texts

    def locales(self, template: str) -> tuple[str, ...]:
        """The locales a template is written in."""
        return tuple(sorted(self._library.texts.get(template, ())))

    def file(self, key: str) -> TemplateFile | None:
        """A file by the name that others extend it by."""
        return self._library.files.get(key)

    def written_in(self, template: str, locale: str) -> TemplateFile:
        """The file that a known template's text comes from, for a tag as `locale()` gives it."""
        return self._library.files[self._pick_text(template, locale)]

    def page_of(self, template: str, locale: str) -> TemplateFile:
        """The file of its HTML twin."""
        return self._library.files[self._pick_page(template, self._pick_text(template, locale))]

    def extended(self, file: TemplateFile) -> list[TemplateFile]:
        """What a file extends, the nearest first."""
        return [one for one, _ in family(file, self._library.files)][1:]

    def vendors(self, template: str, locale: str) -> tuple[str, ...]:
        """The blocks for one type of channel that a known template has, in that locale."""
        return tuple(sorted(self._library.vendors.get(self._pick_text(template, locale), ())))

    def choose(self, wishes: Sequence[str | None]) -> tuple[str, bool]:
        """The first wished template that exists, else the generic one; and whether the first was missed."""
        wished = [name for name in wishes if name is not None]
        found = next((name for name in wished if name in self._library.texts), GENERIC)
        return found, bool(wished) and found != wished[0]

    def locale(self, wishes: Sequence[str | None], template: str) -> str:
        """The tag of the locale in force: the first wish that is a locale, else the default.

        Where the template is written in neither it nor its language, the default. The tag is as specific as
        the wish: `de-CH` also where the text is written in `de`, as dates and numbers follow it.
        """
        for wish in wishes:
            locale = parse_locale(wish) if wish else None
            if locale is not None:
                written = self._library.texts.get(template, {})
                known = any(tag in written for tag in fallbacks(tag_of(locale)))
                return tag_of(locale) if known else self.default_locale
        return self.default_locale

    def render(
        self,
        template: str,
        locale: str,
        *,
        event: Mapping[str, Any],
        zone: str = "UTC",
        link: str | None = None,
        mine: str | None = None,
        can_decide: bool = False,
        signs_in: bool = False,
        own_request: bool = False,
        on_behalf_of: str | None = None,
        html: bool = True,
        fields: bool = True,
        digest: Digest | None = None,
        media_type: str | None = None,
        channel_type: str = "",
    ) -> Rendered:
        """The texts of one message, for a channel of that type.

        `locale` is a tag as `locale()` gives it, `zone` an IANA name (an unknown one is UTC), `link` the
        approver's page, which can decide or only show, `mine` the page of all that waits for the reader,
        `signs_in` whether deciding by these takes a sign-in, `own_request` whether the reader is the one who
        asked, `on_behalf_of` the person for whom the reader stands in.
        Without `fields` there are none, and the template's block is not run. With a `media_type` the body is
        data and no prose: it stays as it was written, whole, and JSON is checked.
        Raises `RenderError`.
        """
        chosen = self._chosen.get((template, locale)) or self._choose_files(template, locale)
        formats = formats_for(locale, zone)
        level = level_of(event, digest)
        variables: dict[str, Any] = {
            "event": event if type(event) is dict else dict(event),
            "link": link,
            "mine": mine,
            "can_decide": can_decide,
            "signs_in": signs_in,
            "own_request": own_request,
            "on_behalf_of": on_behalf_of,
            "level": level.value,
            "locale": locale,
            "direction": formats.direction,
            "digest": None if digest is None else _digest_context(digest),
            "formats": formats,
        }
        draft = _draft(chosen, variables, locale, vendor_block(channel_type), media_type, fields=fields)
        return Rendered(
            title=draft.title,
            body=draft.body,
            html=_page_text(chosen.page, variables, draft, locale) if html else None,
            level=level,
            fields=tuple(Field(fact.name, fact.value, fact.lead, fact.at) for fact in draft.facts),
            actions=draft.actions,
            locale=locale,
        )

    def _choose_files(self, template: str, locale: str) -> Chosen:
        """The files for a template and a locale, remembered: there are no more than those times locales."""
        library, text = self._library, self._pick_text(template, locale)
        page, vendors = self._pick_page(template, text), library.vendors.get(text, frozenset())
        chosen = Chosen(library.compiled(text), library.compiled(page), vendors)
        self._chosen[template, locale] = chosen
        return chosen

    def _pick_text(self, template: str, locale: str) -> str:
        """The key of its file. Raises `RenderError` for a template that is not known."""
        written = self._library.texts.get(template)
        if not written:
            raise RenderError(template, 0, locale, "there is no such template")
        return self._pick(written, locale)

    def _pick_page(self, template: str, text: str) -> str:
        """The HTML twin in the very language of the text: the template's own, else the general one."""
        locale = text.split(".")[1]
        own = self._library.pages.get(template, {})
        for tag in fallbacks(locale.replace("_", "-")):
            if tag in own:
                return own[tag]
        return self._pick(self._library.pages[_MAIL], locale)

    def _pick(self, written: Mapping[str, str], locale: str) -> str:
        """The file for a locale: its own, its language's, the default's, English, else the first there is."""
        wanted = (*fallbacks(locale), *fallbacks(self.default_locale), _BUILT_IN_LOCALE)
        return written[next((tag for tag in wanted if tag in written), min(written))]


# --- what code decides, not a template ---------------------------------------------------------------------

_BY_STATUS: Final[Mapping[str, Level]] = {
    "approved": Level.SUCCESS,
    "rejected": Level.ERROR,
    "expired": Level.WARNING,
}
_BY_ACTION: Final[Mapping[str, Level]] = {
    "requested": Level.WARNING,
    "reminded": Level.WARNING,
    "escalated": Level.WARNING,
    "expired": Level.WARNING,
    "resumed": Level.SUCCESS,
    "resume_failed": Level.ERROR,
    "hold": Level.WARNING,
    "released": Level.SUCCESS,
}
_SEVERITY: Final = (Level.INFO, Level.SUCCESS, Level.WARNING, Level.ERROR)


def level_of(event: Mapping[str, Any], digest: Digest | None = None) -> Level:
    """How loud a message is: a digest as its loudest item, a CloudEvent as its `data.level` says."""
    if digest is not None:
        return max((item.level for item in digest.items), key=_SEVERITY.index, default=Level.INFO)
    if event.get("kind") in (APPROVAL_KIND, POLICY_KIND):
        action = str(event.get("action"))
        if action in _BY_ACTION:
            return _BY_ACTION[action]
        decision = event.get("decision")
        if isinstance(decision, Mapping) and decision.get("breakGlass") is True:
            return Level.WARNING
        return _BY_STATUS.get(str(event.get("status")), Level.INFO)
    data = event.get("data")
    wished = data.get("level") if isinstance(data, Mapping) else None
    return Level(wished) if isinstance(wished, str) and wished in _SEVERITY else Level.INFO


def _digest_context(digest: Digest) -> dict[str, Any]:
    items = [{"title": one_line(i.title), "link": i.link} for i in digest.items[:DIGEST_LISTED]]
    return {
        "count": digest.count,
        "listed": items,
        "more": max(0, digest.count - len(items)),
        "started_at": digest.started_at,
        "ended_at": digest.ended_at,
        "rule": digest.rule,
        "requests": digest.requests,
    }


# --- the text ----------------------------------------------------------------------------------------------


@frozen
class _Draft:
    title: str
    text: str
    note: str  # the last paragraph of the body; in a mail, small print below the link
    facts: tuple[Fact, ...]
    actions: tuple[Action, ...]
    mine: Action | None  # that of them which leads to all that waits for the reader

    @property
    def body(self) -> str:
        return "\n\n".join(part for part in (self.text, self.note) if part)


def _draft(
    chosen: Chosen,
    variables: Mapping[str, Any],
    locale: str,
    vendor: str,
    media_type: str | None,
    *,
    fields: bool,
) -> _Draft:
    facts = Facts()
    writer = vendor if vendor in chosen.vendors else "body"
    names = BLOCKS if fields else _BLOCKS_BUT_FIELDS
    blocks = print_blocks(chosen, names, writer, {**variables, "field": facts}, locale)
    if media_type is not None:
        text, note = _data(blocks.get("body", ""), media_type, chosen, writer, variables, locale), ""
    else:
        text, note = cut(_paragraphs(blocks.get("body", "")), BODY_LIMIT), line(blocks.get("note", ""))
    link, digest = variables["link"], variables["digest"]
    label = line(blocks.get("action", "").strip())
    actions: tuple[Action, ...] = ()
    if link is not None:
        actions = (Action(label or urlsplit(link).hostname or link, link), *_own_links(variables["event"]))
    elif digest is not None:
        actions = tuple(Action(one["title"], one["link"]) for one in digest["listed"] if one["link"])
    mine = None
    if variables["mine"] is not None and (label := line(blocks.get("mine", "").strip())):
        mine = Action(label, variables["mine"])
        # In a digest it comes first: where a channel has no room for all links, the last ones are counted.
        actions = (mine, *actions) if digest is not None else (*actions, mine)
    return _Draft(
        title=line(blocks.get("title", ""), TITLE_LIMIT) or chosen.name,
        text=text,
        note=note,
        facts=tuple(facts.found) if fields else (),
        actions=actions,
        mine=mine,
    )


def _own_links(event: Mapping[str, Any]) -> Iterator[Action]:
    """The first addresses that the sender of a pack event names."""
    if event.get("kind") in (APPROVAL_KIND, POLICY_KIND):
        for one in (event.get("links") or ())[:_OWN_LINKS]:
            yield Action(line(one.get("title") or urlsplit(one["href"]).hostname, _LABEL_LIMIT), one["href"])


def _data(
    printed: str, media_type: str, chosen: Chosen, writer: str, variables: Mapping[str, Any], locale: str
) -> str:
    """What the block `writer` printed, as it is. Raises `RenderError`, with the line that printed the fault."""
    body = printed.strip()
    fault = data_fault(body, media_type)
    if fault is None:
        return body
    skipped = len(printed) - len(printed.lstrip())
    where, number = printed_by(chosen, writer, {**variables, "field": Facts()}, fault.position + skipped)
    raise RenderError(where, number, locale, fault.reason)


_GAPS: Final = re.compile(r"\n{3,}")


def _paragraphs(text: str) -> str:
    """Clean text without trailing blanks, its paragraphs one empty line apart."""
    text = clean(text)
    # Three quick looks spare most texts the work.
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = _GAPS.sub("\n\n", text)
    return text.strip("\n")


# --- the HTML twin -----------------------------------------------------------------------------------------


def _page_text(page: Template, variables: Mapping[str, Any], draft: _Draft, locale: str) -> str | None:
    """The mail; None where it is too long for any mail program, which then shows the plain text."""
    action, mine = draft.actions[0] if draft.actions else None, draft.mine
    message = {
        "title": draft.title,
        "blocks": list(_blocks(draft.text)),
        "facts": [{"name": f.name, "value": f.value, "code": f.code, "lead": f.lead} for f in draft.facts],
        "action": {"label": action.label, "url": action.url} if action else None,
        "links": [{"label": one.label, "url": one.url} for one in draft.actions[1:]],
        "mine": {"label": mine.label, "url": mine.url} if mine else None,
        "note": draft.note,
    }
    html = clean(print_page(page, {**variables, "message": message, "field": Facts()}, locale))
    return html if len(html) <= HTML_LIMIT else None


def _blocks(body: str) -> Iterator[dict[str, list[str]]]:
    """The body's paragraphs: plain lines, then the items of a list where lines begin with `- `.

    A line that is indented below an item belongs to it.
    """
    for paragraph in body.split("\n\n"):
        lines: list[str] = []
        items: list[str] = []
        for text in paragraph.split("\n"):
            if text.startswith("- "):
                items.append(text[2:])
            elif items and text.startswith("  "):
                items[-1] += " " + text.strip()
            elif items:
                yield {"lines": lines, "list": items}
                lines, items = [text], []
            else:
                lines.append(text)
        yield {"lines": lines, "list": items}


__all__ = ["Digest", "DigestItem", "Rendered", "TemplateSet", "level_of"]
