"""The `pager` plugin for notifyd: two channels, templates for releases, and a function for rules."""

from __future__ import annotations

from notifyd.plugin import ChannelType, RuleFunction, TemplateSource, hookimpl
from notifyd_pager.channel import PagerChannel, PagerConfig
from notifyd_pager.duty import DutyChannel
from notifyd_pager.hours import in_office_hours

notifyd_api = 2
"""The major version of `notifyd.plugin` that this is written for."""


@hookimpl
def notifyd_channel_types() -> list[ChannelType]:
    return [
        ChannelType("pager", PagerConfig, PagerChannel, rate_limit="60/m"),
        ChannelType("duty", PagerConfig, DutyChannel, rate_limit="60/m", answers=True),
    ]


@hookimpl
def notifyd_template_sources() -> list[TemplateSource]:
    return [TemplateSource("notifyd_pager")]


@hookimpl
def notifyd_rule_functions() -> list[RuleFunction]:
    return [RuleFunction("in_office_hours", in_office_hours)]
