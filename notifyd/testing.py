"""The second door, for the tests of plugins: real receivers, a sample message, and the conformance kit.

A test module subclasses `HttpConformance` (one that posts through the context's session),
`NetworkConformance` (one that speaks to a server in another way) or `ChannelConformance` (any other), and
`AnsweringConformance` or `EditingConformance` beside it where people can answer its messages, or it can change
them; that of a gate subclasses `GateConformance`. It names its channel type and says how a config is made. A test
module for a function of rules subclasses `RuleFunctionConformance` and says how rules call it; one for a folder of
templates subclasses `TemplatePackageConformance` and names the events that they are for. pytest, with
pytest-asyncio, then runs every test of the kit.

    class TestPager(HttpConformance):
        channel_type = PAGER

        def config(self, url: str) -> PagerConfig:
            return PagerConfig(url=Secret(url + "/in"), token=Secret("only-for-tests"))
"""

from __future__ import annotations

from notifyd.testkit.answering import AnsweringConformance
from notifyd.testkit.conformance import ChannelConformance
from notifyd.testkit.editing import EditingConformance
from notifyd.testkit.functions import RuleFunctionConformance
from notifyd.testkit.gates import GateConformance
from notifyd.testkit.leaks import all_of, captured_logs, leaks
from notifyd.testkit.network import HttpConformance, NetworkConformance, Verdict
from notifyd.testkit.receivers import Received, Receiver, RecordedResponse, Reply, Sink
from notifyd.testkit.samples import HOSTILE, LINK, NOW, opened, sample_end, sample_message
from notifyd.testkit.templates import TemplatePackageConformance

__all__ = [
    "HOSTILE",
    "LINK",
    "NOW",
    "AnsweringConformance",
    "ChannelConformance",
    "EditingConformance",
    "GateConformance",
    "HttpConformance",
    "NetworkConformance",
    "Received",
    "Receiver",
    "RecordedResponse",
    "Reply",
    "RuleFunctionConformance",
    "Sink",
    "TemplatePackageConformance",
    "Verdict",
    "all_of",
    "captured_logs",
    "leaks",
    "opened",
    "sample_end",
    "sample_message",
]
