"""Whose business the configuration is: it names tenants, and what belongs to them."""

from __future__ import annotations

from notifyd.registry.registry import Registry
from notifyd.web.console.session import Visit


def sees_all(visit: Visit) -> bool:
    """Are all tenants that the configuration names the caller's?"""
    return _named(visit.registry) <= set(visit.caller.principal.tenants)


def _named(registry: Registry) -> frozenset[str]:
    clients, operators = registry.settings.auth.clients, registry.settings.console.operators
    known = [one.tenants for one in clients.values()] + [one.tenants for one in operators.values()]
    return frozenset(tenant for tenants in known for tenant in tenants)
