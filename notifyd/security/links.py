"""The approver's link: a sealed statement of what its bearer may look at, and decide."""

from __future__ import annotations

import orjson
from attrs import asdict, frozen

from notifyd.errors import SealError
from notifyd.model import ApprovalKey, Instant
from notifyd.security.secrets import Keyring

_LABEL = "approval-link"


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


class Links:
    def __init__(self, keyring: Keyring, public_url: str) -> None:
        self._keyring = keyring
        self._base = f"{public_url}/approvals/"

    def seal(self, link: Link) -> str:
        """The token of a link. Random: sealing the same link twice gives two tokens."""
        said = list(asdict(link).values())
        # A notifyd that knows no deputies opens the links of all others: two versions run while one is replaced.
        return self._keyring.seal(_LABEL, orjson.dumps(said if link.on_behalf_of else said[:-1]))

    def url(self, token: str) -> str:
        return self._base + token

    def read(self, token: str) -> Link:
        """What a token says; its expiry is not judged here. Raises `SealError`."""
        try:
            return Link(*orjson.loads(self._keyring.open(_LABEL, token)))
        except (TypeError, orjson.JSONDecodeError) as error:
            raise SealError("the link was made by another version") from error
