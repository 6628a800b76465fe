"""Whose rows are claimed where more are due than wanted: tenants in turn, and the rules of each in turn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeAlias, TypeVar

Flow: TypeAlias = tuple[str, str]
"""A tenant and one of its rules."""

T = TypeVar("T")


def to_ask(flows: Sequence[Flow], limit: int) -> Sequence[Flow]:
    """The order in which flows are asked for rows until `limit` of them have some.

    Where not all can have a part, it is another one each time, and one flow of each tenant comes before the second
    of any.
    """
    if len(flows) <= limit:
        return flows
    drawn: dict[str, list[Flow]] = {}
    for flow in random.sample(flows, len(flows)):  # nosec B311 # so that all get their turn
        drawn.setdefault(flow[0], []).append(flow)
    return list(_in_turn(drawn.values()))


def in_turn(found: Mapping[Flow, Sequence[T]]) -> Iterator[T]:
    """The rows of each flow, which are in their order, as they are to be claimed."""
    tenants: dict[str, list[Sequence[T]]] = {}
    for (tenant, _), rows in found.items():
        tenants.setdefault(tenant, []).append(rows)
    return _in_turn([list(_in_turn(flows)) for flows in tenants.values()])


def _in_turn(sequences: Iterable[Sequence[T]]) -> Iterator[T]:
    rounds = zip_longest(*([(one,) for one in rows] for rows in sequences), fillvalue=())
    return chain.from_iterable(chain.from_iterable(rounds))
