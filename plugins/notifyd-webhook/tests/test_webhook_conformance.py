"""The webhook channel under the conformance kit."""

from __future__ import annotations

import base64

from notifyd_webhook import WebhookConfig, notifyd_channel_types

from notifyd.plugin import Secret
from notifyd.testing import HttpConformance


class TestWebhook(HttpConformance):
    (channel_type,) = notifyd_channel_types()

    def config(self, url: str) -> WebhookConfig:
        return WebhookConfig(
            url=Secret(url + "/hook/a-secret-in-the-path?key=a-secret-in-the-query"),
            secret=Secret("whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()),
            headers={"Authorization": Secret("Bearer a-secret-in-a-header")},
        )
