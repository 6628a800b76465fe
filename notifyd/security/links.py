"""The approvers' links: sealed statements of what their bearers may look at, and decide."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import orjson
from attrs import asdict, astuple, frozen

from notifyd.errors import SealError
from notifyd.model import ApprovalKey, Instant
from notifyd.security.secrets import Keyring

_LABEL: Final = "approval-link"
_MINE_LABEL: Final = "mine-link"

MINE: Final = "mine/"
"""What the path of a link to a person's list begins with, below `/approvals/`."""


@frozen
class Link:
    """`recipient` is the person who may decide, None where the link only shows. `rule` confers the grants.

    `on_behalf_of` is the person for whom `recipient` stands in.
    """

    tenant: str
    run_id: str
    approval_id: str
    round: int
    plan_hash: str
    recipient: str | None
    rule: str
    expires_at: Instant
    on_behalf_of: str | None = None

    @property
    def key(self) -> ApprovalKey:
        return ApprovalKey(self.tenant, self.run_id, self.approval_id)

    @property
    def subject(self) -> list[Any]:
        """What a sign-in for it is for: one plan in one round of one approval."""
        return [self.tenant, self.run_id, self.approval_id, self.round, self.plan_hash]


@frozen
class MineLink:
    """All that waits for `recipient`, a person, in one tenant."""

    tenant: str
    recipient: str
    expires_at: Instant

    @property
    def subject(self) -> list[Any]:
        """What a sign-in for it is for: the list of one person."""
        return [self.tenant, self.recipient]


Kind = TypeVar("Kind", Link, MineLink)


class Links:
    def __init__(self, keyring: Keyring, public_url: str) -> None:
        self._keyring = keyring
        self._base = f"{public_url}/approvals/"

    def seal(self, link: Link | MineLink) -> str:
        """The path of a link below `/approvals/`. Random: sealing the same link twice gives two."""
        if isinstance(link, MineLink):
            return MINE + self._keyring.seal(_MINE_LABEL, orjson.dumps(astuple(link)))
        said = list(asdict(link).values())
        # A notifyd that knows no deputies opens the links of all others: two versions run while one is replaced.
        return self._keyring.seal(_LABEL, orjson.dumps(said if link.on_behalf_of else said[:-1]))

    def url(self, path: str) -> str:
        return self._base + path

    def is_mine(self, url: str) -> bool:
        """Is `url` the address of a person's list?"""
        return url.startswith(self._base + MINE)

    def read(self, token: str) -> Link:
        """What a token says; its expiry is not judged here. Raises `SealError`."""
        return self._opened(Link, _LABEL, token)

    def read_mine(self, token: str) -> MineLink:
        """As `read`, of what stands behind `MINE`."""
        return self._opened(MineLink, _MINE_LABEL, token)

    def read_path(self, path: str) -> Link | MineLink:
        """What `seal` made a path of. Raises `SealError`."""
        return self.read_mine(path.removeprefix(MINE)) if path.startswith(MINE) else self.read(path)

    def _opened(self, kind: type[Kind], label: str, token: str) -> Kind:
        try:
            return kind(*orjson.loads(self._keyring.open(label, token)))
        except (TypeError, orjson.JSONDecodeError) as error:
            raise SealError("the link was made by another version") from error
