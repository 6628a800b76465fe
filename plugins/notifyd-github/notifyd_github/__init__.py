"""The `github` gate: notifyd as a custom deployment protection rule, by a GitHub App of one's own.

GitHub calls when a job waits for an environment; whoever the rules name approves or rejects; GitHub is told.
Vendor's rules: https://docs.github.com/en/actions/how-tos/deploy/configure-and-manage-deployments/create-custom-protection-rules
(the App's permissions, the event, the answer and its 1,024 characters),
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (`X-Hub-Signature-256`).
"""

from __future__ import annotations

from typing import Any

from notifyd.plugin import ChannelContext, ChannelType, hookimpl
from notifyd_github.config import GithubConfig

__all__ = ["GithubConfig", "notifyd_resume_forwarders"]

notifyd_api = 2


def _open(config: GithubConfig, context: ChannelContext) -> Any:
    from notifyd_github.gate import GithubGate

    return GithubGate(config, context)


@hookimpl
def notifyd_resume_forwarders() -> tuple[ChannelType, ...]:
    return (ChannelType("github", GithubConfig, _open, rate_limit="1/s", for_programs=True, gate=True),)
