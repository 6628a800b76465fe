"""How many wait, by tenant: what the shares of a backlog are reckoned by."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field


@define(eq=False)
class Waiting:
    """A count for each tenant, none of them below zero. What is counted here is counted in `whole` too."""

    whole: Waiting | None = None
    total: int = 0
    _tenants: dict[str, int] = field(factory=dict)

    def of(self, tenant: str) -> int:
        return self._tenants.get(tenant, 0)

    def tenants(self) -> frozenset[str]:
        """The tenants that have something waiting."""
        return frozenset(self._tenants)

    def add(self, tenant: str, count: int = 1) -> None:
        """`count` below zero takes away, as far as there is something."""
        before = self.of(tenant)
        change = max(count, -before)
        if before + change:
            self._tenants[tenant] = before + change
        else:
            self._tenants.pop(tenant, None)
        self.total += change
        if self.whole is not None:
            self.whole.add(tenant, change)

    def reset(self, counts: Mapping[str, int]) -> None:
        """Replace the counts by fresh ones."""
        for tenant in self.tenants() | counts.keys():
            self.add(tenant, counts.get(tenant, 0) - self.of(tenant))
