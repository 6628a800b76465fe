"""Who a person is: one canonical name for all the names an actor is known by."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Final

from notifyd.errors import ActorNotAllowedError
from notifyd.hosts import ascii_host
from notifyd.model import Principal, Via
from notifyd.security.names import canonical_name

_CLIENT: Final = "client:"
"""What the actor of a machine client begins with."""

_PERSONAL: Final = (Via.JWT, Via.SIGN_IN)
"""Ways in which a person is named, who is nobody else."""


class Actors:
    """`[auth.actors]`: canonical name to its aliases. Raises ValueError where one is not fit for a name."""

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        self._canonical = {
            canonical_name(alias): canonical_name(name) for name, known in aliases.items() for alias in known
        }

    def person(self, name: str) -> str:
        """Whose name this is. Raises ValueError where it is not fit for one."""
        known = canonical_name(name)
        return self._canonical.get(known, known)

    def canonical(self, name: str) -> str:
        """Whose name this is. One that is not fit for a name is nobody else's; an older row may hold such."""
        try:
            return self.person(name)
        except ValueError:
            return name

    def of(self, principal: Principal, claimed: str | None) -> str:
        """The actor `principal` decides as. Raises `ActorNotAllowedError` where it may not be `claimed`.

        A token is its own actor and nobody else. A machine client is `client:NAME`, or a name that one of its
        `act_as` globs allows.
        """
        personal = principal.via in _PERSONAL
        if personal and not principal.actor:
            raise ActorNotAllowedError("the token names no person who could decide")
        try:
            own = canonical_name(principal.actor if personal else f"{_CLIENT}{principal.name}")
            actor = self.person(own)
            wanted = actor if claimed is None else self.person(claimed)
        except ValueError as error:
            raise ActorNotAllowedError(f"the actor {error}") from None
        if personal and own.startswith(_CLIENT):
            raise ActorNotAllowedError("a token's actor may not have the form of a client's name")
        if wanted == actor:
            return actor
        # Another client's name is never borrowed, whatever a glob such as `*` allows.
        borrowable = principal.via is Via.CLIENT and not wanted.startswith(_CLIENT)
        if borrowable and any(
            fnmatch.fnmatchcase(wanted, _canonical_glob(glob)) for glob in principal.act_as
        ):
            return wanted
        raise ActorNotAllowedError(f"{principal.name} may not decide as the actor it names")


def _canonical_glob(glob: str) -> str:
    """`glob` as canonical names are written: a domain without wildcards in its ASCII form."""
    name, at, domain = glob.lower().rpartition("@")
    try:
        return name + at + ascii_host(domain)
    except ValueError:
        return name + at + domain
