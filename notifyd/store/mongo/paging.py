"""Lists, newest first, by keyset: a page goes on below the position that the last one ended at.

Each query names its index: the planner would try several, and remember one that was good for another tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from notifyd.store import PAGE_BYTES, PAGE_LOOKS, Page
from notifyd.store.mongo.driver import Collection, Document, Filter

_NEWEST_FIRST: Final = [("position", -1)]


async def newest_first(
    collection: Collection,
    terms: Mapping[str, Any],
    page: Page,
    hint: str,
    *,
    fields: Filter | None = None,
    lowest: int = 0,
) -> tuple[list[Document], int | None]:
    """A page of the documents that meet all `terms` that are not None, and the position it ended at."""
    where = {name: value for name, value in terms.items() if value is not None}
    if bounds := _bounds(page, lowest):
        where["position"] = bounds
    found = await collection.find(where, fields=fields, sort=_NEWEST_FIRST, limit=page.limit + 1, hint=hint)
    shown = _fitting(found[: page.limit])
    if len(shown) < len(found):
        return shown, int(shown[-1]["position"])
    return shown, lowest or None


async def looked_through(
    collection: Collection, terms: Mapping[str, Any], wanted: Mapping[str, Any], page: Page, hint: str
) -> tuple[list[Document], int | None]:
    """A page of the documents that meet `terms`, and `wanted` too, for which there is no index.

    It ends after `PAGE_LOOKS` documents, however few it has found: it goes on from the last that was looked at.
    """
    where = {**terms, "position": _bounds(page, 0)} if page.after is not None else terms
    last = await collection.find(
        where, fields=["position"], sort=_NEWEST_FIRST, skip=PAGE_LOOKS - 1, limit=1, hint=hint
    )
    lowest = int(last[0]["position"]) if last else 0
    return await newest_first(collection, {**terms, **wanted}, page, hint, lowest=lowest)


def _bounds(page: Page, lowest: int) -> Document:
    below = {} if page.after is None else {"$lt": page.after}
    return below | ({"$gte": lowest} if lowest else {})


def _fitting(found: list[Document]) -> list[Document]:
    """As many as a page may hold in bytes: one if there is one."""
    room = PAGE_BYTES
    for number, document in enumerate(found):
        room -= sum(len(value) for value in document.values() if isinstance(value, str))
        if room < 0 and number:
            return found[:number]
    return found
