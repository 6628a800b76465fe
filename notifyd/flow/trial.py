"""A test message: what shows that a channel reaches its receiver, by hand or as a fire drill."""

from __future__ import annotations

from notifyd import correlation
from notifyd.model import Instant, Message
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.wire.codec import derived_id, rfc3339


def trial_message(
    registry: Registry, channel: OpenChannel, recipient: str | None, now: Instant, *, drill: bool = False
) -> Message:
    """In the language of `recipient`, whom a personal channel needs. A `drill` says that it is one, in its text
    and as `drill` in its event. Raises `RenderError`.
    """
    event = {"channel": channel.name, "occurredAt": rfc3339(now)} | ({"drill": True} if drill else {})
    templates, template = registry.templates, registry.test_template(channel)
    rendered = templates.render(
        template,
        templates.locale([registry.recipient(recipient).locale], template),
        event=event,
        zone=registry.zone(recipient),
        html=channel.personal,
        media_type=channel.own_body,
        channel_type=channel.type,
    )
    about = (channel.name, recipient or "", correlation.current.get(), now)
    address = recipient and registry.address(recipient, channel.type)
    return rendered.message(derived_id("channel-test", "", *about), address, event)
