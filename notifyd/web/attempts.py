"""Failed proofs of identity, counted for each address: guessing is slowed down, whoever guesses right is not.

A signature names its client, and so has a count of its own beside the address's: whoever guesses tokens shuts out
no client that signs, and a token that has proved somebody goes on being taken.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, IPv6Network
from typing import Final, TypeAlias

from attrs import define

from notifyd.web.addresses import Address
from notifyd.web.problems import UnheardError

BURST: Final = 100.0
"""Failures of one caller that are borne at once."""

RATE: Final = 5.0
"""And so many a second from then on."""

_CALLERS: Final = 10_000
"""How many callers are remembered: the latest."""

_TOKENS: Final = 1_000

Caller: TypeAlias = tuple[Hashable, str]


def caller_of(address: Address | None, client: str) -> Caller:
    """By whom failures are counted. `client` is one that is configured, or "". Of IPv6, 64 bits tell who it is."""
    if isinstance(address, IPv6Address):
        return IPv6Network((int(address) >> 64 << 64, 64)), client
    return address, client


@define
class _Budget:
    left: float
    at: float


class Attempts:
    """`now` gives seconds that only go forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._budgets: OrderedDict[Caller, _Budget] = OrderedDict()
        self._proved: OrderedDict[bytes, None] = OrderedDict()

    @property
    def failing(self) -> bool:
        """Has anybody failed? Nearly always nobody has, and then no caller needs to be looked up."""
        return bool(self._budgets)

    def check(self, caller: Caller, token: str = "") -> None:  # nosec B107 # none was sent
        """Raises `UnheardError` where a caller has failed too often, and `token` has proved nobody before."""
        budget = self._budgets.get(caller)
        if budget is None or self._refilled(budget) >= 1 or (token and _digest(token) in self._proved):
            return
        raise UnheardError("too many failed proofs of identity from here", retry_after=1 / RATE)

    def failed(self, caller: Caller) -> None:
        budget = self._budgets.setdefault(caller, _Budget(BURST, self._now()))
        budget.left, budget.at = max(0.0, self._refilled(budget) - 1), self._now()
        self._budgets.move_to_end(caller)
        if len(self._budgets) > _CALLERS:
            self._budgets.popitem(last=False)

    def proved(self, token: str) -> None:
        """A token that has just proved somebody."""
        digest = _digest(token)
        self._proved[digest] = None
        self._proved.move_to_end(digest)
        if len(self._proved) > _TOKENS:
            self._proved.popitem(last=False)

    def _refilled(self, budget: _Budget) -> float:
        return min(BURST, budget.left + (self._now() - budget.at) * RATE)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
