"""A connection to NATS that is made when it is needed, and again where it was lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client
from nats.errors import AuthorizationError, Error, MaxPayloadError
from nats.js.errors import APIError, NoStreamResponseError, ServerError, ServiceUnavailableError

from notifyd.plugin import ChannelContext, Message, PermanentError, Reason, Receipt, TransientError

if TYPE_CHECKING:
    from notifyd_nats import NatsConfig

_CONNECT: Final = 5
"""Seconds for a connection to one server."""
_MSG_ID: Final = "Nats-Msg-Id"


class NatsForwarder:
    def __init__(self, config: NatsConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def send(self, message: Message) -> Receipt:
        """One publication. Raises `TransientError` and `PermanentError`."""
        try:
            stream = (await self._connected()).jetstream()
            await stream.publish(
                self._config.subject,
                message.body.encode(),
                stream=self._config.stream,
                headers={_MSG_ID: message.id},
            )
        except MaxPayloadError:
            raise PermanentError("larger than the server takes", reason=Reason.TOO_LARGE) from None
        except AuthorizationError:
            raise PermanentError("the server refuses this user", reason=Reason.UNAUTHORIZED) from None
        except NoStreamResponseError:
            # Somebody may be about to make it.
            raise TransientError(f"no stream has the subject {self._config.subject!r}") from None
        except (ServiceUnavailableError, ServerError) as error:
            raise TransientError(_said(error)) from None
        except APIError as error:
            raise PermanentError(_said(error)) from None
        except (Error, OSError, TimeoutError) as error:
            raise TransientError(f"the bus does not answer: {type(error).__name__}") from None
        return Receipt()

    async def _connected(self) -> Client:
        """One connection for all that send at once."""
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                await self.aclose()
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> Client:
        token, client = self._config.token, Client()
        try:
            await client.connect(
                servers=[server.reveal() for server in self._config.servers],
                name=f"notifyd {self._context.name}",
                token=token.reveal() if token else None,
                connect_timeout=_CONNECT,
                # A delivery that fails is tried again anyway, and by then on a new connection. A server that
                # cannot be reached counts as an attempt to reconnect, and none at all would mean for ever.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=_nothing,
            )
        except BaseException:
            await client.close()
            raise
        return client

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            await client.close()


async def _nothing(error: Exception) -> None:
    """What ends a connection is told by the publication that it keeps from its end; the client would print it."""


def _said(error: APIError) -> str:
    return (
        f"the stream refuses it: {error.description or 'without a reason'} ({error.err_code or error.code})"
    )
