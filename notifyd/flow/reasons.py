"""Which decisions need a reason: by `approvals.require_reason`, and by that of the rules that asked."""

from __future__ import annotations

from notifyd.approval.ballots import Ballot
from notifyd.config.settings import Rule, Settings
from notifyd.flow.asking import asking_rules
from notifyd.model import Approval, Choice
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.text import blank


def needs_reason(choice: Choice, rule: Rule | None, settings: Settings) -> bool:
    """Must whoever decides so, asked by `rule`, say why?"""
    own = rule.require_reason if rule else None
    return choice in (settings.approvals.require_reason if own is None else own)


async def lacks_reason(approval: Approval, ballot: Ballot, registry: Registry, store: Store) -> bool:
    """Has `ballot` no comment, though one of the rules that asked wants one? Raises `StoreError`."""
    if not blank(ballot.comment):
        return False
    settings = registry.settings
    if all(rule.require_reason is None for rule in settings.rules):
        return needs_reason(ballot.choice, None, settings)
    rules = await asking_rules(approval, ballot, registry, store)
    if not rules:
        return needs_reason(ballot.choice, None, settings)
    return any(needs_reason(ballot.choice, rule, settings) for rule in rules)
