"""Requests with something odd in them, everywhere that notifyd reads: no answer is a 5xx, no fault is logged.

Each odd request is one that would be answered well, with one thing changed.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_from_bytes

import orjson
import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifyd.render.render import TemplateSet
from notifyd.web import attempts
from notifyd.web.edge import READ
from notifyd.web.pages import csrf
from tests.daemon import CONFIG, SECRETS, TOKENS, Daemon, daemon

_load_once = cache(TemplateSet.load)

PACK: Final = "/notifications/pack-approvals"
FORM: Final = b"application/x-www-form-urlencoded"
SECRET: Final = [
    *(token.encode() for token in TOKENS.values()),
    *(secret.reveal().encode() for secret in SECRETS.values()),
    b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE",
    b"rt_3yQ8Jv1nTz5kWc7pXe2mRb9d",
]


@frozen
class Sent:
    """A request: `headers` in the order in which they are sent."""

    method: str
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    query: bytes = b""

    def with_header(self, name: bytes, value: bytes) -> Sent:
        """With one header of this name, whatever there was."""
        kept = [(each, held) for each, held in self.headers if each.lower() != name.lower()]
        return evolve(self, headers=(*kept, (name, value)))

    def raw(self) -> bytes:
        target = self.path + (b"?" + self.query if self.query else b"")
        lines = [self.method.encode() + b" " + target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers]
        lines += [b"Connection: close", b"Content-Length: %d" % len(self.body)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@frozen
class Target:
    """A daemon, with a request for each of its routes."""

    address: tuple[str, int]
    samples: dict[str, Sent]

    def status(self, sent: Sent) -> int:
        """What the answer's status is; it is checked that it tells nothing it should not."""
        answer = self._exchange(sent.raw())
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        assert status < 500, answer
        assert b"traceback" not in answer.lower()
        assert b"aiohttp" not in answer.lower()
        assert [secret for secret in SECRET if secret in answer] == []
        if status >= 400 and body and b"text/html" not in head:
            assert orjson.loads(body)["status"] == status
        return status

    def _exchange(self, raw: bytes) -> bytes:
        with socket.create_connection(self.address, timeout=10) as line:
            try:
                line.sendall(raw)
            except ConnectionError:  # refused before it was whole
                return b"HTTP/1.1 431 \r\n\r\n"
            answer = b""
            try:
                while piece := line.recv(65536):
                    answer += piece
            except ConnectionError:
                pass
            return answer or b"HTTP/1.1 431 \r\n\r\n"


@pytest.fixture
async def notifyd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    monkeypatch.setattr(attempts, "BURST", 1e9)
    monkeypatch.setattr(TemplateSet, "load", _load_once)
    near = '["127.0.0.0/8", "192.0.2.0/24"]'
    lists = f'trusted_proxies = ["127.0.0.0/8"]\nip_allowlist = {near}\nmetrics_allowlist = {near}'
    text = CONFIG.replace("[server]", f"[server]\n{lists}")
    async with daemon(tmp_path, text) as running:
        yield running


@pytest.fixture
async def target(notifyd: Daemon) -> Target:
    asked = await notifyd.ask(requiredApprovals=9)
    link = (await notifyd.link()).encode()
    deliveries = (await notifyd.get("/api/v1/deliveries")).json["items"]
    one = "{}/{runId}/{approvalId}".format(PACK, **asked).encode()
    event = orjson.dumps(asked)
    ack = {key: asked[key] for key in ("tenant", "runId", "approvalId", "planHash")}
    ballot = orjson.dumps(ack | {"decision": "approved", "actor": "bob@acme.example"})
    operator = ((b"Authorization", b"Bearer token-of-operator"), (b"X-Notifyd-Tenant", b"acme"))
    json = (b"Content-Type", b"application/json")
    seen = (
        (b"Host", b"notifyd.acme.example"),
        (b"X-Forwarded-For", b"192.0.2.1, 127.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"Accept-Language", b"de-CH, en;q=0.5"),
    )

    def signed(path: bytes, body: bytes) -> Sent:
        proof = notifyd.signature(body).items()
        return Sent("POST", path, (json, *((name.encode(), value.encode()) for name, value in proof)), body)

    def read(path: str, query: bytes = b"") -> Sent:
        return Sent("GET", path.encode(), operator, query=query)

    form = csrf.issue(
        notifyd.app._services.current().keyring, link.decode().rpartition("/")[2], notifyd.clock()
    )
    fields = f"csrf={quote(form)}&decision=approved&comment=No&confirmed=1".encode()
    attributes = tuple(
        (b"ce-" + name, value)
        for name, value in {b"specversion": b"1.0", b"id": b"e", b"source": b"//a", b"type": b"t"}.items()
    )
    samples = {
        "event": signed(PACK.encode(), event),
        "ack": signed(one + b"/ack", ballot),
        "cloud event": Sent("POST", b"/api/v1/events", (*operator, json, *attributes), b"{}"),
        "approvals": read(PACK, b"status=pending&runId=run-0042&limit=5"),
        "approval": Sent("GET", one, (*operator, (b"If-None-Match", b'W/"a"')), query=b"wait=1ms"),
        "deliveries": read("/api/v1/deliveries", b"state=sent&channel=inbox&limit=5"),
        "delivery": read("/api/v1/deliveries/" + deliveries[0]["id"]),
        "dead": read("/api/v1/dead", b"limit=5"),
        "audit": read("/api/v1/audit", b"runId=run-0042"),
        "channels": read("/api/v1/channels"),
        "keys": read("/api/v1/keys"),
        "retry": Sent("POST", b"/api/v1/deliveries/" + deliveries[0]["id"].encode() + b"/retry", operator),
        "purge": Sent("POST", b"/api/v1/purge", (*operator, json), b'{"dryRun": true}'),
        "reseal": Sent("POST", b"/api/v1/keys/reseal", (*operator, json), b"{}"),
        "test": Sent(
            "POST",
            b"/api/v1/channels/inbox/test",
            (*operator, json),
            b'{"recipient": "alice@acme.example"}',
        ),
        "page": Sent("GET", link),
        "form": Sent(
            "POST",
            link,
            (
                (b"Content-Type", FORM),
                (b"Origin", b"https://notifyd.acme.example"),
                (b"Sec-Fetch-Site", b"same-origin"),
            ),
            fields,
        ),
        **{path: Sent("GET", path.encode()) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")},
    }
    samples = {
        name: evolve(
            sent, headers=tuple({name.lower(): (name, v) for name, v in seen + sent.headers}.values())
        )
        for name, sent in samples.items()
    }
    return Target(notifyd.app.address, samples)


@pytest.fixture(autouse=True)
def _silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No fault is logged, whatever comes."""
    yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_the_samples_are_answered_well(target: Target) -> None:
    found = {name: await asyncio.to_thread(target.status, sent) for name, sent in target.samples.items()}
    assert {name: status for name, status in found.items() if status >= 400} == {"retry": 409}


# --- what was seen -----------------------------------------------------------------------------------------

SEEN: Final[dict[str, tuple[str, bytes, bytes, int]]] = {
    "byte 0xFF in webhook-id": ("event", b"webhook-id", b"\xff", 400),
    "byte 0xFF in webhook-signature": ("ack", b"webhook-signature", b"v1,\xff", 400),
    "openmetrics of version abc": (
        "/metrics",
        b"Accept",
        b"application/openmetrics-text; version=abc",
        400,
    ),
    "openmetrics of a version that cannot be told back": (
        "/metrics",
        b"Accept",
        b"application/openmetrics-text; version=2.\xc3\xa9",
        400,
    ),
    "Origin: http://[": ("form", b"Origin", b"http://[", 403),
}


@pytest.mark.parametrize(("name", "header", "value", "status"), SEEN.values(), ids=SEEN)
async def test_a_header_that_was_a_500_is_refused(
    target: Target, name: str, header: bytes, value: bytes, status: int
) -> None:
    sent = target.samples[name].with_header(header, value)
    assert await asyncio.to_thread(target.status, sent) == status


async def test_csrf_with_e_acute_is_refused(target: Target) -> None:
    form = target.samples["form"]
    stamp_and_key = form.body.partition(b"csrf=")[2].partition(b"%3A")[0]
    body = b"csrf=" + stamp_and_key + b"%3A%C3%A9&decision=approved&confirmed=1"
    assert await asyncio.to_thread(target.status, evolve(form, body=body)) == 403


# --- what may come -----------------------------------------------------------------------------------------

NAMES: Final = sorted(
    name.encode()
    for name in READ
    | {"ce-id", "ce-source", "ce-time", "ce-type", "ce-specversion", "ce-dataschema", "ce-tenant", "ce-x"}
    | {"cookie", "range", "if-modified-since", "user-agent", "forwarded", "via", "accept-encoding", "te"}
)
BEGINNINGS: Final = {
    b"accept": [b"application/openmetrics-text; version=", b"text/plain; version=1.", b"*/*;"],
    b"accept-language": [b"de;q=", b"de-"],
    b"authorization": [b"Bearer ", b"Bearer eyJhbGciOiJub25lIn0.", b"Basic "],
    b"content-type": [b"application/json; charset=", b"multipart/form-data; boundary=", FORM + b";"],
    b"host": [b"[", b"notifyd.acme.example:"],
    b"if-none-match": [b'W/"', b'"', b"*"],
    b"origin": [b"http://[", b"https://notifyd.acme.example:", b"//"],
    b"webhook-signature": [b"v1,", b"v1a,", b"v1,AAAA "],
    b"webhook-timestamp": [b"1", b"-1"],
    b"x-forwarded-for": [b"192.0.2.1, ", b"[::1]:"],
    b"x-forwarded-proto": [b"https, "],
    b"x-notifyd-client": [b"task-runner"],
    b"x-notifyd-tenant": [b"acme"],
}
ODD: Final = (
    st.binary(max_size=12)
    | st.text(max_size=8).map(lambda text: text.encode(errors="replace"))
    | st.sampled_from([b"", b"\xff", b"\xed\xa0\x80", b"\xc3\xa9", b"\x00", b"\t", b",,", b"%", b"9" * 400])
).map(lambda value: value.translate(None, b"\r\n"))
ENORMOUS: Final = [b"x" * 8_000, b"9," * 4_000, b"\xff" * 8_100, b"[" * 8_200, b"a" * 70_000]


async def try_all(examples: int, send: Callable[..., None], **drawn: st.SearchStrategy[Any]) -> None:
    """Call `send` with so many examples, in a thread, as it waits for answers."""
    modest = settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    await asyncio.to_thread(modest(given(**drawn)(send)))


async def test_no_header_however_odd_repeated_or_empty_is_a_5xx(target: Target) -> None:
    """Each header in turn, in requests of a few kinds."""

    def send(odd: bytes, kinds: random.Random, twice: bool) -> None:
        for name in NAMES:
            value = kinds.choice([b"", *BEGINNINGS.get(name, [])]) + odd
            for sent in kinds.sample(list(target.samples.values()), 3):
                changed = sent.with_header(name, value)
                if twice:
                    changed = evolve(sent, headers=(*sent.headers, (name, value)))
                target.status(changed)

    await try_all(8, send, odd=ODD, kinds=st.randoms(use_true_random=False), twice=st.booleans())


async def test_no_enormous_header_is_a_5xx(target: Target) -> None:
    sizes, kinds = cycle(ENORMOUS), cycle(target.samples.values())
    for name in NAMES:
        sent = next(kinds).with_header(name, next(sizes))
        await asyncio.to_thread(target.status, sent)


PARAMETERS: Final = ["limit", "cursor", "status", "state", "runId", "channel", "wait", "x", "%ff", ""]


async def test_no_path_or_query_however_odd_is_a_5xx(target: Target) -> None:
    def send(odd: bytes, name: str, cut: int) -> None:
        value = quote_from_bytes(odd).encode()
        for sent in target.samples.values():
            query = b"&".join(filter(None, [sent.query, name.encode() + b"=" + value]))
            target.status(evolve(sent, query=query))
            parts = sent.path.split(b"/")
            target.status(evolve(sent, path=b"/".join([*parts[: cut or len(parts)], value])))

    await try_all(8, send, odd=ODD, name=st.sampled_from(PARAMETERS), cut=st.integers(0, 5))


FIELDS: Final = [b"csrf", b"decision", b"comment", b"confirmed", b"breakGlass", b"onBehalfOf", b"\xff", b""]


async def test_no_form_however_odd_is_a_5xx(target: Target) -> None:
    form = target.samples["form"]

    def send(odd: bytes, name: bytes, place: int, instead: bool) -> None:
        fields = form.body.split(b"&")
        field = name + b"=" + quote_from_bytes(odd).encode()
        target.status(evolve(form, body=b"&".join([*fields[:place], field, *fields[place + instead :]])))

    await try_all(
        60, send, odd=ODD, name=st.sampled_from(FIELDS), place=st.integers(0, 4), instead=st.booleans()
    )


async def test_no_body_however_odd_is_a_5xx(notifyd: Daemon, target: Target) -> None:
    """What is signed is signed anew, so that it is read."""

    def send(odd: bytes, place: float, gone: int) -> None:
        for kind in ("event", "ack", "cloud event", "purge", "reseal", "test"):
            sent = target.samples[kind]
            start = int(place * len(sent.body))
            body = sent.body[:start] + odd + sent.body[start + gone :]
            if kind in ("event", "ack"):
                for name, value in notifyd.signature(body).items():
                    sent = sent.with_header(name.encode(), value.encode())
            target.status(evolve(sent, body=body))

    await try_all(40, send, odd=ODD, place=st.floats(0, 1), gone=st.integers(0, 3))
