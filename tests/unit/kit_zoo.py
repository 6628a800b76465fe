"""A zoo: one sound channel, and broken ones that differ from it in one respect each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Self, cast

import aiohttp
import attrs
from attrs import evolve

from notifyd.plugin import (
    ChannelContext,
    ChannelType,
    Message,
    PermanentError,
    Reason,
    Receipt,
    Secret,
    TransientError,
    check_response,
    hookimpl,
    post,
)
from notifyd.testing import HttpConformance


@attrs.frozen
class Config:
    url: Secret
    token: Secret


class Sound:
    """The smallest channel that conforms."""

    def __init__(self, config: Any, context: ChannelContext) -> None:
        self.config, self.context = config, context

    def lines(self, message: Message) -> list[str]:
        facts = [f"{fact.name}: {fact.value}" for fact in message.fields]
        return [
            message.title,
            message.body,
            *facts,
            *(f"{link.label}: {link.url}" for link in message.actions),
        ]

    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message)}).encode()

    def headers(self, message: Message) -> dict[str, str | Secret]:
        return {"authorization": self.config.token, "idempotency-key": message.id}

    async def send(self, message: Message) -> Receipt:
        body, headers = self.payload(message), self.headers(message)
        answer = await post(self.context.http, self.config.url, body, headers)
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())

    async def aclose(self) -> None:
        pass


def kind_of(channel: Any, config: Any = Config, **options: Any) -> ChannelType:
    return ChannelType("kept", config, channel, **options)


class Kit(HttpConformance):
    """The kit for any of them."""

    @classmethod
    def of(cls, kind: ChannelType) -> Self:
        kit: Self = type("KitOfOne", (cls,), {"channel_type": kind})()
        return kit

    def config(self, url: str) -> Any:
        values = {"url": url + "/hook/abc123def456ghi", "token": "q7Wn2-LkP9x.TzRb4Vd"}
        hidden = attrs.fields_dict(self.channel_type.config)
        return self.channel_type.config(
            **{
                name: text if "str" in str(hidden[name].type) else Secret(text)
                for name, text in values.items()
            }
        )


class Hasty(Kit):
    """For what never ends."""

    patience = 0.3


# --- what is sent -------------------------------------------------------------------------------------------


class LosesTheTitle(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(message)[1:]


class LosesTheBody(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, body=""))


class LosesTheSecondParagraph(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, body=message.body.partition("\n")[0]))


class LosesTheLink(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, actions=()))


class LosesTheSecondLink(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, actions=message.actions[:1]))


class LosesTheFieldsOfOneName(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(
            evolve(message, fields=tuple({fact.name: fact for fact in message.fields}.values()))
        )


class LosesTheFields(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, fields=()))


class LosesTheNamesOfFields(Sound):
    def lines(self, message: Message) -> list[str]:
        return [
            message.title,
            message.body,
            *(f.value for f in message.fields),
            *(a.url for a in message.actions),
        ]


class TellsTheContextsTime(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "at": self.context.clock()}).encode()


class TellsTheMachinesTime(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "at": int(time.time())}).encode()


class TellsTheDay(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "on": f"{datetime.now(UTC):%Y-%m-%d}"}).encode()


class HasANonce(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "nonce": str(uuid.uuid4())}).encode()


class HasANonceInItsAddress(Sound):
    async def send(self, message: Message) -> Receipt:
        self.config = Config(Secret(f"{self.config.url.reveal()}?_={random.random()}"), self.config.token)  # noqa: S311
        return await super().send(message)


class HasAKeyOfTheAttempt(Sound):
    def headers(self, message: Message) -> dict[str, str | Secret]:
        return super().headers(message) | {"idempotency-key": str(uuid.uuid4())}


class HasOneKeyForAll(Sound):
    def headers(self, message: Message) -> dict[str, str | Secret]:
        return super().headers(message) | {"idempotency-key": self.context.name}


class HasAKeyOfTheTitle(Sound):
    def headers(self, message: Message) -> dict[str, str | Secret]:
        return super().headers(message) | {
            "idempotency-key": str(uuid.uuid5(uuid.NAMESPACE_OID, message.title))
        }


class Counts(Sound):
    sent = 0

    def payload(self, message: Message) -> bytes:
        self.sent += 1
        return json.dumps({"lines": self.lines(message), "number": self.sent}).encode()


class RepliesToTheLast(Sound):
    last = ""

    def payload(self, message: Message) -> bytes:
        before, self.last = self.last, message.id
        return json.dumps({"lines": self.lines(message), "after": before}).encode()


class MixesWhatIsSentAtOnce(Sound):
    async def send(self, message: Message) -> Receipt:
        self.message = message
        await asyncio.sleep(0)
        return await super().send(self.message)


class MarksTheMessage(Sound):
    async def send(self, message: Message) -> Receipt:
        cast("dict[str, Any]", message.event)["sentBy"] = self.context.name
        return await super().send(message)


class BreaksOnSurrogates(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message)}, ensure_ascii=False).encode()


class TakesTextForAFormat(Sound):
    def lines(self, message: Message) -> list[str]:
        return [line % {} if "%" in line else line for line in super().lines(message)]


class RefusesWhatIsLong(Sound):
    async def send(self, message: Message) -> Receipt:
        if len(message.body) > 4000:
            raise PermanentError("too long", reason=Reason.TOO_LARGE)
        return await super().send(message)


class SendsMarkup(Sound):
    """Its readers see what the vendor makes of HTML; `Markup` reads it as they do."""

    def lines(self, message: Message) -> list[str]:
        return [f"<p>{line}</p>" for line in super().lines(message)]


class CutsACharacter(Sound):
    def lines(self, message: Message) -> list[str]:
        units = [line.encode("utf-16-le", "surrogatepass")[:4001] for line in super().lines(message)]
        return [part.decode("utf-16-le", "surrogatepass") for part in (u[: len(u) // 2 * 2] for u in units)]


class CutsAnEntity(Sound):
    def lines(self, message: Message) -> list[str]:
        return [line.replace("&", "&amp;")[:4000] for line in super().lines(message)]


class SendsTwice(Sound):
    async def send(self, message: Message) -> Receipt:
        await super().send(message)
        return await super().send(message)


class SendsLatin(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message)}, ensure_ascii=False).encode("utf-16")


class CallsJsonAForm(Sound):
    def headers(self, message: Message) -> dict[str, str | Secret]:
        return super().headers(message) | {"content-type": "application/x-www-form-urlencoded"}


class CallsAFormJson(Sound):
    def payload(self, message: Message) -> bytes:
        return b"lines=" + super().payload(message)


# --- what it makes of an answer -----------------------------------------------------------------------------


class GivesNothing(Sound):
    async def send(self, message: Message) -> Any:
        await super().send(message)


class GivesANumberForARef(Sound):
    async def send(self, message: Message) -> Receipt:
        return evolve(await super().send(message), ref=cast("str", 7))


class GivesALongRef(Sound):
    async def send(self, message: Message) -> Receipt:
        return evolve(await super().send(message), ref="r" * 501)


class GivesARefOfTwoLines(Sound):
    async def send(self, message: Message) -> Receipt:
        return evolve(await super().send(message), ref="channel\nmessage")


class NeverGivesUp(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except PermanentError as error:
            raise TransientError(error.detail) from None


class GivesUpAtOnce(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            raise PermanentError(error.detail) from None


class IsAlwaysContent(Sound):
    async def send(self, message: Message) -> Receipt:
        with contextlib.suppress(PermanentError, TransientError):
            return await super().send(message)
        return Receipt()


class LetsGo(Sound):
    """Gives its receipt at once, and sends when it comes to it."""

    async def send(self, message: Message) -> Receipt:
        self.task = asyncio.create_task(super().send(message))
        self.task.add_done_callback(lambda task: task.exception())
        await asyncio.sleep(0.1)
        return Receipt()


class TriesAgain(Sound):
    async def send(self, message: Message) -> Receipt:
        for _ in range(2):
            with contextlib.suppress(TransientError):
                return await super().send(message)
        return await super().send(message)


class TriesAgainLater(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError:
            await asyncio.sleep(0.01)
            return await super().send(message)


class ForgetsTheWait(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            raise TransientError(error.detail, reason=error.reason, status=error.status) from None


class ReadsSecondsOnly(Sound):
    async def send(self, message: Message) -> Receipt:
        answer = await post(self.context.http, self.config.url, self.payload(message), self.headers(message))
        wait = answer.headers.get("Retry-After", "0")
        if answer.status == 503:
            raise TransientError("away", retry_after=float(wait) if wait.isdigit() else None)
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock())


class ReadsWhatIsDocumented(Sound):
    async def send(self, message: Message) -> Receipt:
        answer = await post(self.context.http, self.config.url, self.payload(message), self.headers(message))
        said = (
            json.loads(answer.text)["error"]["message"]
            if answer.status == 400 and answer.text != "said"
            else ""
        )
        return check_response(answer.status, answer.headers, answer.text, now=self.context.clock(), said=said)


class Plain(Sound):
    """Posts with aiohttp alone, and with faults that `post` does not have."""

    follows, reads = False, -1

    async def send(self, message: Message) -> Receipt:
        headers = cast("dict[str, str]", self.headers(message)) | {
            "authorization": self.config.token.reveal()
        }
        headers["content-type"] = "application/json"
        try:
            async with self.session().post(
                self.config.url.reveal(),
                data=self.payload(message),
                headers=headers,
                allow_redirects=self.follows,
            ) as response:
                text = (await response.content.read(self.reads)).decode()
                return check_response(response.status, response.headers, text, now=self.context.clock())
        except TimeoutError:
            raise TransientError("no answer in time", reason=Reason.TIMEOUT) from None
        except aiohttp.ClientError:
            raise TransientError("the network failed") from None

    def session(self) -> aiohttp.ClientSession:
        return self.context.http


class Follows(Plain):
    follows, reads = True, 4096


class ReadsItAll(Plain):
    pass


class HasASessionOfItsOwn(Plain):
    reads = 4096
    own: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        self.own = self.own or aiohttp.ClientSession()
        return self.own

    async def aclose(self) -> None:
        if self.own:
            await self.own.close()


class LeavesItsSessionOpen(HasASessionOfItsOwn):
    left: ClassVar[list[aiohttp.ClientSession]] = []

    async def aclose(self) -> None:
        self.left.append(self.session())


# --- time ---------------------------------------------------------------------------------------------------


class SwallowsCancellation(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except asyncio.CancelledError:
            raise TransientError("it took too long") from None


class TidiesUp(Sound):
    """Takes three seconds to end."""

    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        finally:
            if cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                await asyncio.sleep(3)


class Shields(Sound):
    async def send(self, message: Message) -> Receipt:
        return await asyncio.shield(super().send(message))


class SleepsInSend(Sound):
    async def send(self, message: Message) -> Receipt:
        time.sleep(0.001)  # noqa: ASYNC251 - the fault under test
        return await super().send(message)


class ReadsAFileInSend(Sound):
    async def send(self, message: Message) -> Receipt:
        Path(__file__).read_text()  # noqa: ASYNC240 - the fault under test
        return await super().send(message)


class ConnectsInSend(Sound):
    async def send(self, message: Message) -> Receipt:
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", 9))
        return await super().send(message)


class SleepsInOpen(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        time.sleep(0.001)


async def opens_never(config: Any, context: ChannelContext) -> Sound:
    await asyncio.sleep(3600)
    return Sound(config, context)


def opens_and_turns(config: Any, context: ChannelContext) -> Sound:
    while True:
        pass


class SleepsInClose(Sound):
    async def aclose(self) -> None:
        time.sleep(0.001)  # noqa: ASYNC251 - the fault under test


class ClosesNever(Sound):
    async def aclose(self) -> None:
        await asyncio.sleep(3600)


class ClosesNeverAndIsDeaf(Sound):
    async def aclose(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)


class ClosesAndTurns(Sound):
    async def aclose(self) -> None:
        while True:
            pass


class SendsNever(Sound):
    async def send(self, message: Message) -> Receipt:
        await asyncio.sleep(3600)
        return Receipt()


class SendsAndTurns(Sound):
    async def send(self, message: Message) -> Receipt:
        while True:
            pass


# --- secrets ------------------------------------------------------------------------------------------------


class Careless(Sound):
    """Shows its token each time that it sends."""

    def show(self, token: str) -> None:
        raise NotImplementedError

    async def send(self, message: Message) -> Receipt:
        self.show(self.config.token.reveal())
        return await super().send(message)


class Prints(Careless):
    def show(self, token: str) -> None:
        print(token)


class PrintsToStderr(Careless):
    def show(self, token: str) -> None:
        print(token, file=sys.stderr)


class Warns(Careless):
    def show(self, token: str) -> None:
        warnings.warn(f"the token {token} is old", stacklevel=1)


class LogsInBase64(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").info(
            "authorization: %s", base64.b64encode(f"user:{token}".encode()).decode()
        )


class LogsInUrlsafeBase64(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").info(base64.urlsafe_b64encode(token.encode()).decode())


class LogsInHex(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").debug(token.encode().hex(" "))


class LogsUrlEncoded(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").info("?t=%s", "".join(f"%{byte:02X}" for byte in token.encode()))


class LogsInTwoRecords(Careless):
    def show(self, token: str) -> None:
        for half in (token[:9], token[9:]):
            logging.getLogger("careless").info(half)


class LogsAsExtra(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").info("sent", extra={"credential": token})


class LogsWhereNobodyLooks(Careless):
    def show(self, token: str) -> None:
        logger = logging.getLogger("careless.apart")
        logger.propagate = False
        logger.info(token)


class LogsTheLink(Sound):
    async def send(self, message: Message) -> Receipt:
        logging.getLogger("careless").debug("sending %s", message.actions)
        return await super().send(message)


class LogsTheAddress(Sound):
    async def send(self, message: Message) -> Receipt:
        logging.getLogger("careless").info("posting to %s", self.config.url.reveal().partition("/hook/")[2])
        return await super().send(message)


class TellsInTheReceipt(Sound):
    async def send(self, message: Message) -> Receipt:
        return evolve(await super().send(message), detail=f"as {self.config.token.reveal()}")


class Indiscreet(Sound):
    """Fails with its token somewhere about the error."""

    def error(self, text: str) -> TransientError:
        raise NotImplementedError

    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError:
            raise self.error(self.config.token.reveal()) from None


class FailsWithItsUrl(Indiscreet):
    def error(self, text: str) -> TransientError:
        return TransientError(f"{self.config.url.reveal()} does not answer")


class FailsWithArguments(Indiscreet):
    def error(self, text: str) -> TransientError:
        error = TransientError("failed")
        error.args = ("failed", {"headers": {"authorization": text}})
        return error


class FailsWithARepr(Indiscreet):
    def error(self, text: str) -> TransientError:
        class DetailedError(TransientError):
            def __repr__(self) -> str:
                return f"Detailed({text!r})"

        return DetailedError("failed")


class FailsWithANote(Indiscreet):
    def error(self, text: str) -> TransientError:
        error = TransientError("failed")
        error.add_note(f"the request had {text}")
        return error


class FailsWithAnExcerptInBase64(Indiscreet):
    def error(self, text: str) -> TransientError:
        return TransientError("failed", excerpt=base64.b64encode(text.encode()).decode())


class FailsWithItsCause(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError:
            raise TransientError("failed") from ValueError(self.config.token.reveal())


class ShowsTheAnswer(Plain):
    reads = 4096


@attrs.frozen
class PlainToken:
    url: Secret
    token: str


@attrs.frozen
class PlainUrl:
    url: str
    token: Secret


@attrs.frozen
class PlainTokens:
    url: Secret
    token: Secret
    api_keys: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Disguised:
    """`token` is secret, and `url`; what travels as the authorization is called otherwise."""

    url: Secret
    token: Secret
    workspace: str = "q7Wn2-LkP9x.TzRb4Vd"


class Reveals(Sound):
    """A sound channel but for its options: what is a text is made a secret when it is too late."""

    def __init__(self, config: Any, context: ChannelContext) -> None:
        hidden = {
            n: Secret(v) if isinstance(v, str) else v for n, v in attrs.asdict(config, recurse=False).items()
        }
        super().__init__(Config(hidden["url"], hidden["token"]), context)


# --- what it leaves behind ----------------------------------------------------------------------------------


class LeavesAThread(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        self.end = threading.Event()
        threading.Thread(target=self.end.wait, args=(20,), daemon=True).start()

    def __del__(self) -> None:
        self.end.set()


class LeavesATask(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        self.task = asyncio.create_task(asyncio.sleep(3600))


class LeavesAFile(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        self.pipe = os.pipe()

    def __del__(self) -> None:
        for end in self.pipe:
            os.close(end)


class ClosesTheDaemonsSession(Sound):
    async def aclose(self) -> None:
        await self.context.http.close()


class ClosesOnce(Sound):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class SetsTheEnvironment(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        os.environ["KEPT_URL"] = "somewhere"


class SetsATimeout(Sound):
    async def send(self, message: Message) -> Receipt:
        socket.setdefaulttimeout(7)
        return await super().send(message)


class TakesASignal(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class SilencesTheLog(Sound):
    def __init__(self, config: Any, context: ChannelContext) -> None:
        super().__init__(config, context)
        logging.disable(logging.INFO)


# --- its shape ----------------------------------------------------------------------------------------------


@attrs.define(slots=False)
class Mutable:
    url: Secret
    token: Secret


@attrs.frozen
class Greedy:
    url: Secret
    token: Secret
    timeout: float = 1.0


@attrs.frozen
class Odd:
    url: Secret
    token: Secret
    colour: complex = 0j


class CannotSend:
    def __init__(self, config: Any, context: ChannelContext) -> None: ...

    async def aclose(self) -> None: ...


class SendsWithoutAwaiting(Sound):
    def send(self, message: Message) -> Any:
        return super().send(message)


class LosesTheLastField(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, fields=message.fields[:-1]))


class CutsTheBody(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, body=message.body[:100]))


class LosesTheValuesOfFields(Sound):
    def lines(self, message: Message) -> list[str]:
        return super().lines(evolve(message, fields=tuple(evolve(one, value="") for one in message.fields)))


class TriesAgainWhenThrottled(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            if error.status != 429:
                raise
        return await super().send(message)


class TriesAgainWhenRefused(Sound):
    """At a status that is permanent, once."""

    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except PermanentError as error:
            if error.status != 404:
                raise
        return await super().send(message)


class TriesAgainWhenCutOff(Sound):
    async def send(self, message: Message) -> Receipt:
        try:
            return await super().send(message)
        except TransientError as error:
            if error.status is not None:
                raise
        return await super().send(message)


NUMBERS: Final = itertools.count()


class CountsInItsModule(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "number": next(NUMBERS)}).encode()


class CountsInItsClass(Sound):
    sent: ClassVar[list[str]] = []

    def payload(self, message: Message) -> bytes:
        self.sent.append(message.id)
        return json.dumps({"lines": self.lines(message), "number": len(self.sent)}).encode()


class SendsEachOnce(Sound):
    """Keeps in its class what it has sent, and leaves out a repeat."""

    seen: ClassVar[set[str]] = set()

    async def send(self, message: Message) -> Receipt:
        if message.id in self.seen:
            return Receipt()
        self.seen.add(message.id)
        return await super().send(message)


class HasANonceInAHeader(Sound):
    def headers(self, message: Message) -> dict[str, str | Secret]:
        return super().headers(message) | {"x-nonce": uuid.uuid4().hex}


class TellsTheWeekday(Sound):
    def payload(self, message: Message) -> bytes:
        return json.dumps({"lines": self.lines(message), "weekend": datetime.now(UTC).weekday() > 4}).encode()


class TellsTheHour(Sound):
    def payload(self, message: Message) -> bytes:
        night = datetime.fromtimestamp(self.context.clock() / 10**6, UTC).hour in (0, 1, 2, 3)
        return json.dumps({"lines": self.lines(message), "night": night}).encode()


class LogsInTwiceBase64(Careless):
    def show(self, token: str) -> None:
        once = base64.b64encode(f"u:{token}".encode())
        logging.getLogger("careless").info(base64.b64encode(once).decode())


class LogsAsBytes(Careless):
    def show(self, token: str) -> None:
        logging.getLogger("careless").info("%s", list(token.encode()))


class WritesToTheDescriptor(Careless):
    def show(self, token: str) -> None:
        os.write(2, token.encode())


def hooks(**members: Any) -> SimpleNamespace:
    """A plugin that gives the sound channel, with other members."""
    types = hookimpl(lambda: [kind_of(Sound)])
    return SimpleNamespace(**({"notifyd_channel_types": types} | members))


def unmarked() -> list[object]:
    return []


def no_types() -> list[ChannelType]:
    return []


PLUGINS: Final[dict[str, tuple[SimpleNamespace, str]]] = {
    "a version that is not there yet": (hooks(notifyd_api=3), "version 3"),
    "a version that is a text": (hooks(notifyd_api="2"), "must be an integer"),
    "a version that is a truth": (hooks(notifyd_api=True), "must be an integer"),
    "a hook that is not marked": (hooks(notifyd_rule_functions=unmarked), "not marked"),
    "a hook that is misspelt": (hooks(notifyd_chanel_types=hookimpl(no_types)), "no such hook"),
    "a hook that raises": (hooks(notifyd_channel_types=hookimpl(lambda: 1 / 0)), "ZeroDivisionError"),
    "no type": (hooks(notifyd_channel_types=hookimpl(no_types)), "do not give this type"),
}
