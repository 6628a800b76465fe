"""The deputies whom people have named, as this node knows them: a step of the flow reads them from the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from notifyd.model import OwnDeputy


@define
class OwnDeputies:
    """Those that nobody has ended, by tenant and person, oldest first. One and the same for all configurations."""

    _by_person: Mapping[tuple[str, str], Sequence[OwnDeputy]] = field(factory=dict)

    def take_over(self, live: Iterable[OwnDeputy]) -> None:
        found: defaultdict[tuple[str, str], list[OwnDeputy]] = defaultdict(list)
        for one in live:
            if one.ended_at is None:
                found[one.tenant, one.person].append(one)
        self._by_person = found

    def of(self, tenant: str, person: str) -> Sequence[OwnDeputy]:
        """`person` is a canonical name."""
        return self._by_person.get((tenant, person), ())

    def __bool__(self) -> bool:
        return bool(self._by_person)
