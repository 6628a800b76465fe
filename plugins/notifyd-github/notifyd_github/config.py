"""The options of a gate of type `github`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final

import attrs
from attrs import field, frozen

from notifyd.plugin import Secret, http_url

_APP_ID: Final = re.compile(r"[A-Za-z0-9.]{1,100}")


def _is_app(config: GithubConfig, attribute: attrs.Attribute[str], value: str) -> None:
    if not _APP_ID.fullmatch(value):
        raise ValueError("not the client ID of a GitHub App, such as Iv23liABCDEF, nor its number")


def _is_key(config: GithubConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    from notifyd_github.app import app_key

    app_key(value)


def _are_secrets(
    config: GithubConfig, attribute: attrs.Attribute[tuple[Secret, ...]], value: tuple[Secret, ...]
) -> None:
    if not value or not all(secret.reveal() for secret in value):
        raise ValueError("at least one secret is required, and none may be empty")


@frozen
class GithubConfig:
    """`app_id` is the App's client ID, `private_key` one of its keys (PEM), `webhook_secrets` the secret of its
    webhook: during a change the old one and the new. `repositories` are those that may ask, such as "acme/*"; by
    default all that the App is installed in. `api_url` is https://HOST/api/v3 for GitHub Enterprise Server."""

    app_id: str = field(validator=_is_app)
    private_key: Secret = field(validator=_is_key)
    webhook_secrets: tuple[Secret, ...] = field(validator=_are_secrets)
    repositories: tuple[str, ...] = ()
    api_url: Secret = field(default=Secret("https://api.github.com"), validator=http_url)

    def admits(self, repository: str) -> bool:
        """May this repository ask? GitHub's names are the same in upper and lower case."""
        name = repository.lower()
        return not self.repositories or any(fnmatchcase(name, one.lower()) for one in self.repositories)

    def url(self, path: str) -> Secret:
        return Secret(self.api_url.reveal().rstrip("/") + path)
