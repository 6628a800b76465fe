"""Pages as HTML: the templates, and the headers that keep a page from doing anything but what it shows.

The style sheet is in the page and named by its hash in the Content Security Policy, and so is the one
script, of pages that soon say something else: it loads them again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import jinja2
from aiohttp import web
from markupsafe import Markup

from notifyd import correlation
from notifyd.approval.ballots import COMMENT_LIMIT
from notifyd.approval.inputs import settled
from notifyd.approval.quorum import progress
from notifyd.errors import Reason
from notifyd.flow.standing import Standing, View
from notifyd.model import SECOND, Approval, Choice, Decision, Instant, ResumeStatus, Status
from notifyd.text import clean, fit, one_line
from notifyd.web.pages.fields import FormField
from notifyd.web.pages.reader import Reader
from notifyd.wire.codec import rfc3339

_TITLE_LIMIT: Final = 200
_MINUTE: Final = 60 * SECOND
_DAY: Final = 24 * 60 * _MINUTE
_ENDLESS: Final = 300
_ENDLESS_LINES: Final = 8

CSS: Final = resources.files(__package__).joinpath("page.css").read_text("utf-8")

_RELOAD: Final = "setTimeout(() => location.reload(), document.documentElement.dataset.refresh * 1000)"
"""Shows the page again in so many seconds. WCAG 2.2 wants no `meta` element for that."""


def hash_of(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def headers_of(css: str, scripts: str) -> Mapping[str, str]:
    """Of a page with this style sheet in it. `scripts` are the policy's directives for a script."""
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src {hash_of(css)}; {scripts}form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",  # the address is the key
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
    }


HEADERS: Final = headers_of(CSS, "")
_HEADERS_OF_LIVE: Final = headers_of(CSS, f"script-src {hash_of(_RELOAD)}; ")


def _pretty(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False, indent=2))


def _scalar(value: Any) -> str:
    return clean(value) if isinstance(value, str) else json.dumps(value)


def _endless(text: str) -> bool:
    """Is `text` so long that it scrolls in its place?"""
    return len(text) > _ENDLESS or text.count("\n") > _ENDLESS_LINES


def _fit(text: str) -> str:
    return fit(text, _TITLE_LIMIT)


def templates_in(package: str, folder: str = ".") -> jinja2.DictLoader:
    """Those that a package brings, read now: a page that is written later asks no disk."""
    files = resources.files(package).joinpath(folder).iterdir()
    return jinja2.DictLoader(
        {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".html")}
    )


TEMPLATES: Final = templates_in(__package__)
ENVIRONMENT: Final = jinja2.Environment(
    loader=TEMPLATES,
    autoescape=True,
    undefined=jinja2.ChainableUndefined,
    trim_blocks=True,
)
ENVIRONMENT.filters |= {
    "clean": clean,
    "endless": _endless,
    "fit": _fit,
    "line": one_line,
    "pretty": _pretty,
    "rfc3339": rfc3339,
    "scalar": _scalar,
}
APPROVAL: Final = "approval.html"
_compiled: set[str] = set()


async def compile_first(template: str) -> None:
    """Have a thread compile a large template before its first page: others would wait for it some 50 ms.

    Small ones are compiled as their first page is written, and none at a start: most daemons show few of them.
    """
    if template not in _compiled:
        await asyncio.to_thread(ENVIRONMENT.get_template, template)
        _compiled.add(template)


def approval_page(
    view: View,
    reader: Reader,
    *,
    form: str | None,
    fields: Sequence[FormField],
    alert: str = "",
    comment: str = "",
    breaking: bool = False,
    status: int = 200,
    waits: Reason | None = None,
    now: Instant,
    undo_time: Instant = 0,
    told_at: Instant | None = None,
    earlier: Sequence[Decision] = (),
    newer: str = "",
) -> web.Response:
    """The approval.

    `form` is a CSRF token where the reader may decide now, and `fields` what there is to fill in; `alert` and
    `comment` are what an attempt that was refused gets back, and `breaking` says that it was one to break the
    glass. `waits` is why the callback of its end waits, or has failed, and `told_at` when it ended. `earlier` are
    the decisions of rounds before this one, and `newer` the page of a plan that came after the link's.
    """
    title, summary = heading_of(view, reader)
    return page_of(
        APPROVAL,
        reader,
        status,
        view=view,
        approval=view.approval,
        progress=progress(view.approval),
        event=view.event,
        title=title,
        summary=summary,
        shows_plan=view.standing is not Standing.SUPERSEDED,
        note=_note(view, reader),
        ends=ends_of(view, reader, now),
        answered=_answered(view, reader, waits, now, told_at),
        earlier=tuple(earlier),
        newer=newer,
        undo=_undo(view, reader, now),
        undo_time=reader.formats.duration(undo_time // SECOND) if undo_time else "",
        refresh=_refresh(view, now),
        alert=alert,
        csrf=form,
        comment=comment,
        fields=fields,
        filled_in=settled(view.approval),
        breaking=breaking,
        comment_limit=COMMENT_LIMIT,
    )


def confirm_page(
    view: View,
    reader: Reader,
    *,
    choice: Choice,
    after: Approval,
    actor: str,
    form: str,
    alert: str,
    comment: str,
    more: Sequence[tuple[str, str]],
    needs_reason: bool,
    status: int,
) -> web.Response:
    """What a decision will do, before it does. `after` is the approval as it would leave it, `form` a CSRF token.

    `more` is what else was filled in, to be sent again.
    """
    return page_of(
        "confirm.html",
        reader,
        status,
        title=heading_of(view, reader)[0],
        choice=choice.value,
        effect=effect_of(after, reader),
        actor=actor,
        stands_in_for=view.link.on_behalf_of,
        environment=(view.event.get("labels") or {}).get("environment"),
        alert=alert,
        csrf=form,
        comment=comment,
        more=more,
        needs_reason=needs_reason,
        comment_limit=COMMENT_LIMIT,
    )


def effect_of(after: Approval, reader: Reader) -> str:
    """What a decision does that leaves its approval as `after`."""
    counted = progress(after)
    template = reader.texts[f"confirm.effect_{after.status.value}"]
    return template.format(missing=counted["required"] - counted["received"])


def message_page(kind: str, reader: Reader, status: int) -> web.Response:
    """A page without a request. `kind` is `gone`, `home`, `invalid`, `later`, `failed` or `sign_in_over`."""
    return page_of("message.html", reader, status, kind=kind, reference=correlation.current.get())


def leaving_page(address: str, reader: Reader) -> web.Response:
    """A page that goes on to `address`, by itself or by its link.

    A redirect would not do: browsers hold it to be the form's, which the policy keeps on this site.
    """
    page = page_of("message.html", reader, 200, kind="leaving", address=address)
    page.headers["Refresh"] = f"0; url={address}"
    return page


def page_of(template: str, reader: Reader, status: int, **context: Any) -> web.Response:
    # Markup: style sheet and script are our own, and their bytes must be those that were hashed.
    own = {"css": Markup(CSS), "reload": Markup(_RELOAD)}  # nosec B704 # noqa: S704
    text = ENVIRONMENT.get_template(template).render(reader=reader, t=reader.texts, **own, **context)
    headers = _HEADERS_OF_LIVE if context.get("refresh") else HEADERS
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def heading_of(view: View, reader: Reader) -> tuple[str, str]:
    """The sender's own title and summary. A link to an older plan shows nothing of the newer one."""
    untitled = reader.texts["untitled"].format(approval=view.link.approval_id)
    if view.standing is Standing.SUPERSEDED:
        return untitled, ""
    message = view.event.get("message") or {}
    title = fit(one_line(message.get("title") or ""), _TITLE_LIMIT)
    return title or untitled, clean(message.get("summary") or "").strip()


def _answered(view: View, reader: Reader, waits: Reason | None, now: Instant, told_at: Instant | None) -> str:
    """Whether the one who asked has heard of the end; "" where nothing is owed to them, or of another round."""
    approval = view.approval
    if view.standing.value != approval.status.value:
        return ""
    if approval.undoable:
        return reader.texts["undo.waits"].format(left=_left(_waits_until(approval), reader, now))
    when = reader.formats.time(told_at) if told_at is not None else ""
    told = reader.texts.get(f"resume.{approval.resume.value}", "").format(when=when)
    return f"{told} ({waits.value})" if told and waits else told


def _undo(view: View, reader: Reader, now: Instant) -> str:
    """How long the reader can still take their decision back, "" where they cannot."""
    decision = view.undoable
    return reader.texts["undo.text"].format(left=_left(decision.undo_until, reader, now)) if decision else ""


def _left(until: Instant, reader: Reader, now: Instant) -> str:
    return reader.formats.duration(max(0, until - now) // SECOND)


def _waits_until(approval: Approval) -> Instant:
    return max((one.undo_until for one in approval.decisions), default=0)


def _refresh(view: View, now: Instant) -> int:
    """In how many seconds the page will say something else, 0 where it waits for nothing but people.

    While somebody may be writing it is left alone.
    """
    approval = view.approval
    if view.standing is Standing.SUPERSEDED or not (approval.status.ended or view.undoable):
        return 0
    if approval.undoable:
        return max(1, (_waits_until(approval) - now) // SECOND + 2)
    waited = (now - (approval.ended_at or now)) // SECOND
    return min(max(2, waited // 4), 60) if approval.resume is ResumeStatus.QUEUED else 0


def ends_of(view: View, reader: Reader, now: Instant) -> str:
    """How long there is to decide, and until when; "" where it is over or has no end."""
    expires_at = view.approval.expires_at
    if view.badge != Status.PENDING.value or expires_at is None:
        return ""
    soon = expires_at - now < _DAY
    when = reader.formats.time(expires_at) if soon else reader.formats.datetime(expires_at)
    left = max(_MINUTE, expires_at - now) // _MINUTE * 60  # seconds, in whole minutes
    return reader.texts["ends"].format(left=reader.formats.duration(left), when=when)


def _note(view: View, reader: Reader) -> str:
    approval = view.approval
    template = reader.texts.get(f"state.{view.standing.value}", "")
    ended_at = approval.ended_at or approval.expires_at
    when = reader.formats.datetime(ended_at) if ended_at is not None else ""
    return template.format(
        when=when,
        who=one_line(approval.ended_by or ""),
        person=one_line(view.link.recipient or ""),
        actor=one_line(view.signed_in or ""),
    )
