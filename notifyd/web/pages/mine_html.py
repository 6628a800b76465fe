"""The pages of a person's list as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web
from attrs import frozen

from notifyd.approval.ballots import COMMENT_LIMIT
from notifyd.approval.quorum import progress
from notifyd.flow.standing import View
from notifyd.model import SECOND, Approval, Choice, Instant
from notifyd.web.pages.html import effect_of, ends_of, heading_of, page_of
from notifyd.web.pages.reader import Reader

LIST: Final = "mine.html"


@frozen
class Item:
    """Something to decide, and the path of its own page below `/approvals/`, which also names it in the form."""

    view: View
    path: str
    approvable: bool = False
    rejectable: bool = False


@frozen
class Result:
    """What came of one decision: `choice` as it was recorded, or None, with `alert` and `status` for why not."""

    view: View
    path: str
    choice: Choice | None
    alert: str = ""
    status: int = 200


def list_page(
    items: Sequence[Item],
    reader: Reader,
    *,
    person: str,
    form: str,
    more: int,
    whole: bool,
    hidden: bool,
    signed_in: str | None,
    comment: str,
    selected: Sequence[Sequence[Any]],
    alert: str,
    results: Sequence[Result],
    status: int,
    now: Instant,
    undo_time: Instant,
    deputies: Mapping[str, Any] | None,
) -> web.Response:
    """What waits for `person`. `form` is a CSRF token, `more` how many items are left out, and `whole` says that
    all that waits was looked through.

    `hidden` says that somebody who signs in sees more, and `signed_in` who has. `selected` are the subjects of the
    links that were selected before, `results` what came of an earlier form. `deputies` is what is shown of those
    who stand in for `person`.
    """
    shown = [_shown(item, reader, now, item.view.link.subject in selected) for item in items]
    return page_of(
        LIST,
        reader,
        status,
        items=shown,
        person=person,
        csrf=form,
        more=max(0, more),
        whole=whole,
        hidden=hidden,
        signed_in=signed_in,
        comment=comment,
        comment_limit=COMMENT_LIMIT,
        alert=alert,
        results=_told(results, reader),
        approvable=any(item.approvable for item in items),
        rejectable=any(item.rejectable for item in items),
        undo_time=reader.formats.duration(undo_time // SECOND) if undo_time else "",
        deputies=deputies,
    )


def confirm_list_page(
    items: Sequence[tuple[Item, Approval]],
    reader: Reader,
    *,
    choice: Choice,
    actor: str,
    form: str,
    comment: str,
    refused: Sequence[Result],
) -> web.Response:
    """What each decision will do, before it does: beside each item is the approval as it would leave it.

    `form` is a CSRF token, `refused` what cannot be decided so.
    """
    return page_of(
        "mine_confirm.html",
        reader,
        200,
        choice=choice.value,
        items=[
            {
                "path": item.path,
                "title": heading_of(item.view, reader)[0],
                "environment": _environment(item.view),
                "stands_in_for": item.view.link.on_behalf_of,
                "effect": effect_of(after, reader),
            }
            for item, after in items
        ],
        actor=actor,
        csrf=form,
        comment=comment,
        comment_limit=COMMENT_LIMIT,
        results=_told(refused, reader),
    )


def _shown(item: Item, reader: Reader, now: Instant, selected: bool) -> dict[str, Any]:
    view = item.view
    title, summary = heading_of(view, reader)
    return {
        "path": item.path,
        "title": title,
        "summary": summary,
        "environment": _environment(view),
        "why": (view.event.get("policy") or {}).get("messages") or (),
        "run": view.approval.run_id,
        "pack": view.event.get("packId"),
        "asked_by": view.approval.requested_by,
        "ends": ends_of(view, reader, now),
        "progress": progress(view.approval),
        "round": view.approval.round,
        "stands_in_for": view.link.on_behalf_of,
        "opens": reader.formats.datetime(view.opens_at) if view.opens_at is not None else "",
        "approvable": item.approvable,
        "rejectable": item.rejectable,
        "selected": selected,
    }


def _environment(view: View) -> Any:
    return (view.event.get("labels") or {}).get("environment")


def _told(results: Sequence[Result], reader: Reader) -> list[dict[str, Any]]:
    return [
        {
            "path": one.path,
            "title": heading_of(one.view, reader)[0],
            "choice": one.choice.value if one.choice else "",
            "alert": one.alert,
        }
        for one in results
    ]
