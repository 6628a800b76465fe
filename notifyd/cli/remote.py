"""How commands find a running service, and prove to it who is calling."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, update_wrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from notifyd.cli.common import Failure, config_failure, config_option, load_config, print_json
from notifyd.cli.output import print_table
from notifyd.client import (
    Anybody,
    Bearer,
    Client,
    Credentials,
    RefusedError,
    Signer,
    UnreachableError,
    is_address,
)
from notifyd.errors import ConfigError
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes

if TYPE_CHECKING:
    from ssl import SSLContext

    from notifyd.config.settings import Client as ClientSettings
    from notifyd.config.settings import Server, Settings

TOKEN: Final = "NOTIFYD_TOKEN"  # noqa: S105 - the name of a variable
SECRET: Final = "NOTIFYD_SECRET"  # noqa: S105 - the name of a variable

Lists: TypeAlias = Sequence[tuple[str, Mapping[str, str]]]
"""Lists of a service, each by its path with a filter."""

LOOKED_THROUGH: Final = 1000
"""How many of the newest items of a list are looked through for the one that is meant."""

_REMEDIES: Final = {"tenant_mismatch": "--tenant, or NOTIFYD_TENANT, says which tenant is meant"}
"""What mends a refusal on the command line, by its code: an answer speaks of headers."""

_BEGINNING: Final = re.compile(r"[0-9a-f]{4,63}").fullmatch


class Remote:
    """A service somewhere. The configuration is read only for what options and environment do not tell."""

    def __init__(self, config_path: Path, url: str | None, tenant: str | None) -> None:
        if url is not None and not is_address(url):
            said = f"and {url!r} is none" if "@" not in url else "without a user: it would be shown"
            raise click.UsageError(f"--url must be an http or https address, {said}")
        self._config_path = config_path
        self._url = url
        self.tenant = _sendable(tenant or "", "--tenant, or NOTIFYD_TENANT,")

    @cached_property
    def url(self) -> str:
        """Where the service listens. Its public address may be a proxy's, which passes on less."""
        if self._url:
            return self._url
        listen = self.server.listen
        if listen.port == 0:
            raise click.UsageError("server.listen has port 0, which is any: say where with --url")
        host = ("::1" if ":" in listen.host else "127.0.0.1") if listen.everywhere else listen.host
        scheme, place = "https" if self.server.tls.cert else "http", f"[{host}]" if ":" in host else host
        return f"{scheme}://{place}:{listen.port}"

    @property
    def own_certificate(self) -> Path | None:
        """What the service shows where the configuration says where it is; None without HTTPS, or with --url."""
        return None if self._url else self.server.tls.cert

    @cached_property
    def server(self) -> Server:
        """`[server]` alone: whoever calls a service may not read the secrets that it needs itself."""
        from notifyd.config.load import load_server

        with self._reading():
            return load_server(self._config_path)

    @cached_property
    def settings(self) -> Settings:
        with self._reading():
            return load_config(self._config_path)[0]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            failure = config_failure(self._config_path, error)
            hint = "" if self._url else "without the configuration, --url says where the service is"
            raise Failure(*failure.lines, *filter(None, [hint])) from None

    def _trust(self) -> SSLContext | None:
        if self.own_certificate is None:
            return None
        from notifyd.trust import trusting_only

        try:
            return trusting_only(self.own_certificate)
        except ValueError as error:
            raise Failure(f"{self._config_path}: server.tls.cert: {error}") from None

    def operator(self) -> Client:
        """A client for reading and operating, which takes a token."""
        token = _token()
        if not token:
            raise click.UsageError(
                f"set {TOKEN} to an API token of a client; 'notifyd keygen --token' makes one"
            )
        return Client(self.url, Bearer(Secret(token)), self.tenant, trust=self._trust())

    def sender(self, name: str | None) -> Client:
        """A client for sending: the one named, which signs, or the one that a token is for."""
        credentials = self._credentials(name)
        return Client(self.url, credentials, self.tenant, trust=self._trust())

    def anybody(self) -> Client:
        """A client for what is open to all."""
        return Client(self.url, Anybody(), self.tenant, trust=self._trust())

    def _credentials(self, name: str | None) -> Credentials:
        if name:
            return Signer(_sendable(name, "--client, or NOTIFYD_CLIENT,"), self._secret_of(name))
        if token := _token():
            return Bearer(Secret(token))
        raise click.UsageError(
            "say who is calling: --client NAME, whose secret the configuration has, "
            f"or NOTIFYD_CLIENT and {SECRET}, or {TOKEN}"
        )

    def _secret_of(self, name: str) -> Secret:
        if given := os.environ.get(SECRET, ""):
            secret = Secret(given)
            try:
                secret_bytes(secret)
            except ValueError as error:
                raise click.UsageError(f"{SECRET}: {error}") from None
            return secret
        client = self._client(name)
        if not client.hmac_secrets:
            raise Failure(f"{self._config_path}: auth.clients.{name}.hmac_secrets: has none to sign with")
        return client.hmac_secrets[0]

    def _client(self, name: str) -> ClientSettings:
        clients = self.settings.auth.clients
        if name not in clients:
            known = ", ".join(sorted(clients)) or "none"
            raise Failure(
                f'{self._config_path}: auth.clients: there is no client "{name}"; there are: {known}'
            )
        return clients[name]

    def tenant_of(self, name: str | None) -> str:
        """The tenant that is meant: as given, else the only one of the client `name`; "" where nobody says."""
        if self.tenant or not name or os.environ.get(SECRET, ""):
            return self.tenant
        tenants = self._client(name).tenants
        return tenants[0] if len(tenants) == 1 else ""


def _token() -> str:
    return _sendable(os.environ.get(TOKEN, "").strip(), TOKEN)


def _sendable(text: str, what: str) -> str:
    """`text`, which goes into a header. Raises a `UsageError` without it, as it may be a secret."""
    if not (text.isascii() and text.isprintable()):
        raise click.UsageError(f"{what} must be printable ASCII")
    return text


url_option = click.option(
    "--url",
    envvar="NOTIFYD_URL",
    show_envvar=True,
    help="Where the service is; by default where the configuration lets it listen.",
)


def remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, `--url` and `--tenant`, handed to the command as one `remote`."""

    def with_remote(config_path: Path, url: str | None, tenant: str | None, **options: Any) -> Any:
        return command(Remote(config_path, url, tenant), **options)

    wrapped: Callable[..., Any] = update_wrapper(with_remote, command)
    for option in (
        click.option(
            "--tenant", envvar="NOTIFYD_TENANT", show_envvar=True, help="The tenant, where there are several."
        ),
        url_option,
        config_option,
    ):
        wrapped = option(wrapped)
    return wrapped


client_option = click.option(
    "--client",
    "client_name",
    envvar="NOTIFYD_CLIENT",
    show_envvar=True,
    help=f"Sign as this client, with {SECRET} or its secret in the configuration.",
)


@contextmanager
def calling(as_json: bool) -> Iterator[None]:
    """Turns a service that is not there, or refuses, into a failure; as JSON the problem document is printed."""
    try:
        yield
    except UnreachableError as error:
        raise Failure(error.detail) from None
    except RefusedError as error:
        if as_json and error.answer.problem:
            print_json(error.answer.problem)
        raise refusal(error) from None


def print_list(
    found: Iterable[Any],
    as_json: bool,
    columns: Sequence[str],
    row: Callable[[Any], Sequence[Any]],
    *,
    limit: int | None = None,
    cut: Collection[str] = (),
) -> None:
    """The first `limit` items of a service's list, as JSON or as a table with a row for each."""
    with calling(as_json):
        items = list(islice(found, limit))
    if as_json:
        print_json(items)
    else:
        print_table(columns, map(row, items), cut=cut)


def whole_id(client: Client, said: str, lists: Lists) -> str:
    """The id that begins as `said`, of the newest in the lists; else `said` itself.

    Raises `Failure` where several begin so, and what calling raises.
    """
    if not _BEGINNING(said):
        return said
    for path, where in lists:
        ids = {item["id"] for item in islice(client.items(path, **where), LOOKED_THROUGH)}
        found = sorted(id_ for id_ in ids if id_.startswith(said))
        if len(found) > 1:
            raise Failure(f"several begin with {said}:", *found)
        if found:
            return str(found[0])
    return said


def refusal(error: RefusedError) -> Failure:
    """The refusal, each fault of it, and the id under which the service's log has it."""
    known_as = error.answer.problem.get("correlationId")
    trace = [f"correlation id {known_as}"] if known_as else []
    remedy = _REMEDIES.get(error.answer.problem.get("code", ""))
    faults = [f"  {fault}" for fault in error.answer.faults]
    return Failure(error.answer.summary, *faults, *filter(None, [remedy]), *trace)
