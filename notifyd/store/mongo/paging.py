"""Lists, newest first, by keyset: a page goes on below the position that the last one ended at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifyd.store import Page
from notifyd.store.mongo.driver import Collection, Document


async def newest_first(
    collection: Collection, terms: Mapping[str, Any], page: Page
) -> tuple[list[Document], int | None]:
    """A page of the documents that meet all `terms` that are not None, and the position it ended at."""
    where = {name: value for name, value in terms.items() if value is not None}
    if page.after is not None:
        where["position"] = {"$lt": page.after}
    found = await collection.find(where, sort=[("position", -1)], limit=page.limit + 1)
    shown = found[: page.limit]
    return shown, int(shown[-1]["position"]) if len(found) > page.limit else None
