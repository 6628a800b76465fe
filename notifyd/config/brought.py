"""What a configuration may name that plugins bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from notifyd.plugin import ChannelType


@frozen
class Brought:
    """`channels` are the types of channels and `forwarders` those for `resume.forwarders`, by their names.

    `plugins` are the options that each plugin takes for itself, None where it takes none.
    """

    channels: Mapping[str, ChannelType]
    forwarders: Mapping[str, ChannelType] = field(factory=dict)
    plugins: Mapping[str, type[Any] | None] = field(factory=dict)
