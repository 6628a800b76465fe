"""The webhook channel under the conformance kit."""

from __future__ import annotations

import base64

from notifyd_webhook import WebhookConfig, notifyd_channel_types

from notifyd.plugin import Secret
from notifyd.testing import HttpConformance, Received, sample_message


class TestWebhook(HttpConformance):
    (channel_type,) = notifyd_channel_types()
    varying_headers = frozenset({"webhook-timestamp", "webhook-signature"})  # a signature is of its time
    unshown = frozenset({"fields"})  # a program finds them in the event, which is sent whole

    def config(self, url: str) -> WebhookConfig:
        return WebhookConfig(
            url=Secret(url + "/hook/a-secret-in-the-path?key=a-secret-in-the-query"),
            secret=Secret("whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()),
            headers={"Authorization": Secret("Bearer a-secret-in-a-header")},
        )


class TestWebhookWithTheTemplatesOwnBody(HttpConformance):
    (channel_type,) = notifyd_channel_types()
    varying_headers = TestWebhook.varying_headers
    unshown = frozenset({"fields", "actions"})  # the template has put into the body what its receiver needs
    message = sample_message(body=f"{sample_message().title}\n\n{sample_message().body}")

    def config(self, url: str) -> WebhookConfig:
        return WebhookConfig(
            url=Secret(url + "/hook/a-secret-in-the-path"), content_type="text/plain; charset=utf-8"
        )

    def readable(self, received: Received) -> str:
        return received.body.decode()
