"""Who a person is: one canonical name for all the names an actor is known by."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from notifyd.errors import ActorNotAllowedError
from notifyd.model import Principal, Via

_CLIENT: Final = "client:"
"""What the actor of a machine client begins with."""


def fold(name: str) -> str:
    """NFC and casefolded, so that two spellings of one address compare equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


class Actors:
    """`[auth.actors]`: canonical name to its aliases."""

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        self._canonical = {fold(alias): fold(name) for name, known in aliases.items() for alias in known}

    def canonical(self, name: str) -> str:
        folded = fold(name)
        return self._canonical.get(folded, folded)

    def of(self, principal: Principal, claimed: str | None) -> str:
        """The actor `principal` decides as. Raises `ActorNotAllowedError` where it may not be `claimed`.

        A token is its own actor and nobody else. A machine client is `client:NAME`, or a name that one of its
        `act_as` globs allows.
        """
        own = principal.name if principal.via is Via.JWT else f"{_CLIENT}{principal.name}"
        if principal.via is Via.JWT and fold(own).startswith(_CLIENT):
            raise ActorNotAllowedError("a token's actor may not have the form of a client's name")
        actor = self.canonical(own)
        if claimed is None or self.canonical(claimed) == actor:
            return actor
        wanted = self.canonical(claimed)
        # Another client's name is never borrowed, whatever a glob such as `*` allows.
        borrowable = principal.via is Via.CLIENT and not wanted.startswith(_CLIENT)
        if borrowable and any(fnmatch.fnmatchcase(wanted, fold(glob)) for glob in principal.act_as):
            return wanted
        raise ActorNotAllowedError(f"{principal.name} may not decide as the actor it names")
