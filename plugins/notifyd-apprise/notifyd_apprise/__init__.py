"""The `apprise` channel: every service that Apprise knows (https://appriseit.com/services/), by its URL.

Apprise has its own HTTP client, which knows nothing of `egress`. Why a service failed it tells in its log lines
alone, as the status it was answered with: that is the verdict, and where there is none the failure is transient.
A message to several URLs of which one failed goes to all of them again: give a service a channel of its own where
a repeat would matter. Texts are shortened to each service's length, with as many links as fit, each whole, unless
a URL says `overflow=split`. Several chats take a text for their own markup: what would begin a mention, or a link
with other words, is broken by a character that nobody sees, U+2060.
"""

from __future__ import annotations

import asyncio

import attrs
from attrs import field, frozen

from notifyd.plugin import Channel, ChannelContext, ChannelType, Secret, hookimpl


def _is_not_empty(
    config: AppriseConfig, attribute: attrs.Attribute[tuple[Secret, ...]], value: tuple[Secret, ...]
) -> None:
    if not value:
        raise ValueError("name at least one URL")
    if not all("://" in url.reveal() for url in value):
        raise ValueError("each of them is written scheme://...")


@frozen
class AppriseConfig:
    """`urls` are Apprise's, such as `matrixs://user:password@host/#room`; all of them get each message."""

    urls: tuple[Secret, ...] = field(validator=_is_not_empty)


async def _open(config: AppriseConfig, context: ChannelContext) -> Channel:
    def build() -> Channel:
        from notifyd_apprise.channel import AppriseChannel  # here, because it imports Apprise

        return AppriseChannel(config)

    # Off the loop: Apprise reads some hundred modules on its first use.
    return await asyncio.to_thread(build)


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("apprise", AppriseConfig, _open),)
