"""A secret of its own in every place that holds one, every path run, faults included: none comes out anywhere.

Those that come to be on the way, as codes, tokens and cookies do, are looked for as well.
"""

from __future__ import annotations

import base64
import hashlib
import signal
import time
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from attrs import define, field

from notifyd.testing import Received, Reply
from tests import events, issuer, provider
from tests.process import SEAL_KEY, SECRET, TOKEN, Answer, DaemonProcess, daemon_process
from tests.sinks import HttpSink, MailSink
from tests.waiting import until, until_async

PACK: Final = "/notifications/pack-approvals"


def canary(name: str) -> str:
    """A value that nothing else looks like."""
    return hashlib.sha256(f"canary {name}".encode()).hexdigest()[:32]


def key(name: str) -> str:
    return base64.b64encode(canary(name).encode()).decode()


CANARIES: Final[Mapping[str, str]] = {
    "the client's HMAC secret": SECRET.removeprefix("whsec_"),
    "the API token": TOKEN,
    "a token that is nobody's": canary("guess"),
    "the seal key": SEAL_KEY,
    "the sign key": key("sign"),
    "the secret of callbacks": key("resume"),
    "the webhook's URL": canary("url"),
    "the webhook's header": canary("header"),
    "the webhook's secret": key("webhook"),
    "Slack's URL": canary("slack"),
    "Telegram's token": canary("telegram"),
    "the SMTP password": canary("smtp"),
    "the resume token": canary("resume-token"),
    "a password in the event": canary("parameter"),
    "userinfo in a callback": canary("userinfo"),
    "the secret at the OpenID provider": provider.SECRET,
    "the bus's password": canary("bus"),
    "the bus's token": canary("bus-token"),
    "PagerDuty's key": canary("pagerduty"),
    "ntfy's topic": canary("topic"),
    "ntfy's token": canary("ntfy"),
    "Google Chat's URL": canary("chat"),
    "Mattermost's URL": canary("mattermost"),
    "the heartbeat's URL": canary("beat"),
}
GIVEN: Final = ("notifyd.toml", "jwks.json")
"""The files that the daemon is given."""
IN_BODIES: Final = {("PagerDuty's key", "/v2/enqueue"), ("ntfy's topic", "/")}
"""What its own receiver is given in a body."""
DELIVERIES: Final = 2 * (9 + 7 + 2 + 9)
"""Of each approval: the request, the decision for all but who made it, the callbacks, and that they failed."""
SENT: Final = {
    "the webhook's URL",
    "the webhook's header",
    "Slack's URL",
    "Telegram's token",
    "PagerDuty's key",
    "ntfy's topic",
    "ntfy's token",
    "Google Chat's URL",
    "Mattermost's URL",
    "the heartbeat's URL",
}
"""What receivers have really been sent, so that their echoes were something to hide."""

CONFIG: Final = f"""
[server]
listen = "127.0.0.1:${{NOTIFYD_PORT}}"
public_url = "http://127.0.0.1:${{NOTIFYD_PORT}}"

[auth.oidc]
issuer = "PROVIDER"
client_id = "{provider.CLIENT}"
client_secret = "{provider.SECRET}"

[auth.jwt]
issuer = "{issuer.ISSUER}"
audience = "{issuer.AUDIENCE}"
jwks = "FOLDER/jwks.json"

[approvals]
proof = "sign-in"

[console]
enabled = true

[heartbeat]
url = "SINK/beat/{canary("beat")}"
interval = "1s"

[keys]
seal = ["{SEAL_KEY}"]
sign = ["whsk_{key("sign")}"]

[resume]
allowed_origins = ["SINK"]
secrets = ["whsec_{key("resume")}"]

[resume.forwarders.bus]
type = "nats"
servers = ["nats://notifyd:{canary("bus")}@127.0.0.1:9"]
token = "{canary("bus-token")}"

[dispatch]
max_attempts = 2
backoff = "10ms..20ms"

[channels.hook]
type = "webhook"
rate_limit = "100/s"
url = "SINK/hook/{canary("url")}"
secret = "whsec_{key("webhook")}"
headers = {{X-Key = "{canary("header")}"}}

[channels.team]
type = "slack"
rate_limit = "100/s"
webhook_url = "SINK/services/{canary("slack")}"

[channels.phone]
type = "telegram"
rate_limit = "100/s"
bot_token = "12345678:{canary("telegram")}"
chat_id = "-1001234567890"
api_url = "SINK"

[channels.mail]
type = "email"
rate_limit = "100/s"
host = "127.0.0.1"
port = 9
from = "notifyd@acme.example"
username = "notifyd"
password = "{canary("smtp")}"

[channels.post]
type = "email"
rate_limit = "100/s"
host = "127.0.0.1"
port = MAILPORT
from = "notifyd@acme.example"
tls = "none"

[channels.pager]
type = "pagerduty"
rate_limit = "100/s"
routing_key = "{canary("pagerduty")}"
api_url = "SINK"

[channels.topic]
type = "ntfy"
rate_limit = "100/s"
topic = "{canary("topic")}"
token = "{canary("ntfy")}"
url = "SINK"

[channels.chat]
type = "google-chat"
rate_limit = "100/s"
webhook_url = "SINK/v1/spaces/x/messages?key=x&token={canary("chat")}"

[channels.room]
type = "mattermost"
rate_limit = "100/s"
webhook_url = "SINK/hooks/{canary("mattermost")}"

[[rules]]
name = "all"
when = 'event.kind == "pack.approval"'
channels = ["hook", "team", "phone", "mail", "post", "pager", "topic", "chat", "room"]
to = ["alice@acme.example"]
"""


def spellings(secret: str) -> list[str]:
    """A secret as it stands, as base64 spells it at each place, and with each character escaped."""
    shifted = (base64.b64encode(b" " * shift + secret.encode()).decode()[4:-4] for shift in range(3))
    escaped = "".join(f"%{ord(sign):02x}" for sign in secret)
    return [secret, quote(secret, safe=""), escaped, secret.encode().hex(), *shifted]


def found_in(places: Mapping[str, bytes], secrets: Mapping[str, str] = CANARIES) -> list[tuple[str, str]]:
    lowered = {place: held.lower() for place, held in places.items()}
    spelled = {name: [one.encode().lower() for one in spellings(secret)] for name, secret in secrets.items()}
    return [
        (name, place)
        for name in secrets
        for place, held in lowered.items()
        if any(each in held for each in spelled[name])
    ]


def echo(received: Received) -> str:
    """All that was sent, back to the sender, and some of it as base64."""
    sent = f"{received.path} {dict(received.headers)} {received.body.decode()}"
    return sent + base64.b64encode(sent.encode()).decode()


@define
class Run:
    """One daemon and all it speaks to: what callers were answered, what an approver's browser was, and `made`, the
    secrets that came to be on the way."""

    daemon: DaemonProcess
    sink: HttpSink
    mail: MailSink
    provider: provider.OpenIdProvider
    answers: list[Answer] = field(factory=list)
    pages: list[Answer] = field(factory=list)
    made: dict[str, str] = field(factory=dict)

    async def call(self, method: str, path: str, **request: Any) -> Answer:
        """For a browser."""
        self.pages.append(await self.daemon.call(method, path, **request))
        return self.pages[-1]

    def event(self, **more: Any) -> dict[str, Any]:
        resume = {"callbackUrl": f"{self.sink.url}/resume", "token": canary("resume-token")}
        own = {"resume": resume, "parameters": {"password": canary("parameter")}} | more
        return events.requested(at=time.time_ns() // 1000, **own)

    async def ask_and_decide(self) -> dict[str, Any]:
        """What is right, and what is wrong."""
        event, daemon = self.event(), self.daemon
        outside = {
            "callbackUrl": self.sink.url.replace("//", f"//u:{canary('userinfo')}@"),
            "token": canary("resume-token"),
        }
        guess = {"Authorization": f"Bearer {canary('guess')}"}
        self.answers += [
            await daemon.send(event),
            await daemon.send(event | {"title": canary("parameter")}),  # a fault; the id is taken as well
            await daemon.send(event | {"resume": outside, "eventId": "other"}),
            await daemon.call("GET", "/api/v1/channels", headers=guess),
            await daemon.call("GET", f"/approvals/{canary('guess')}"),
            await daemon.ack(event),
        ]
        for channel in ("hook", "team", "phone", "mail", "post", "pager", "topic", "chat", "room"):
            asked = {"recipient": "alice@acme.example"} if channel in ("mail", "post") else {}
            self.answers.append(await daemon.post(f"/api/v1/channels/{channel}/test", asked))
        return event

    async def sign_in(self) -> None:
        """An approver signs in, and fails to at first, and approves."""
        event = self.event(runId="signed-in", eventId="00000000-0000-4000-8000-0000000000aa")
        self.answers.append(await self.daemon.send(event))

        def asked() -> str | None:
            bodies = (mail.get_body(("plain",)) for mail in self.mail.mails)
            texts = (body.get_content() for body in bodies if body is not None)
            words = (word for text in texts if "signed-in" in text for word in text.split())
            return next((urlsplit(word).path for word in words if "/approvals/" in word), None)

        path, browser = await until(asked), provider.Browser(self)  # type: ignore[arg-type] # calls are all it makes
        assert path is not None
        for status in (500, 200):
            self.provider.status = status
            csrf = form_token((await browser.get(path)).text)
            leaving = await browser.post(path, {"csrf": csrf, "decision": "sign-in", "comment": "why"})
            address = leaving.headers["Refresh"].removeprefix("0; url=")
            back = urlsplit(self.provider.sign_in(address, "alice@acme.example"))
            self.made |= {f"cookie {name}": held.value for (name, _), held in browser.cookies.items()}
            assert (await browser.get(f"{back.path}?{back.query}", "cross-site")).status == 303
        form = {"csrf": form_token((await browser.get(path)).text), "decision": "approved", "confirmed": "1"}
        assert (await browser.post(path, form)).status == 303
        self.made |= {f"cookie {name}": held.value for (name, _), held in browser.cookies.items()}
        self.made |= {f"issued {number}": text for number, text in enumerate(self.provider.issued)}

    async def bear_tokens(self) -> None:
        spoilt: tuple[dict[str, Any], ...] = ({}, {"exp": 1}, {"aud": "wiki"})
        for number, more in enumerate(spoilt):
            token = issuer.token(time.time(), tenant="acme", scope="Notifier.Read", **more)
            self.made[f"JWT {number}"] = token
            bearer = {"Authorization": f"Bearer {token}"}
            self.answers.append(await self.daemon.call("GET", "/api/v1/deliveries", headers=bearer))
        assert [one.status for one in self.answers[-3:]] == [200, 401, 401]

    async def ask_what_became_of_it(self, event: Mapping[str, Any]) -> None:
        async def all_ended() -> Any:
            items = (await self.daemon.get("/api/v1/deliveries", limit="200")).json["items"]
            ended = all(item["state"] in ("dead", "sent") for item in items)
            return items if ended and len(items) == DELIVERIES else None

        items = await until_async(all_ended, 90)
        assert {item["state"] for item in items if item["channel"] not in ("mail", "post")} == {"dead"}
        assert {item["state"] for item in items if item["channel"] == "post"} == {"sent"}
        one = f"{PACK}/{event['runId']}/{event['approvalId']}"
        lists = [f"/api/v1/{path}" for path in ("deliveries", "dead", "audit", "channels", "keys")]
        open_ = ["/metrics", "/openapi.json", "/.well-known/notifyd/jwks.json"]
        for path in (PACK, one, f"{one}/receipt", *lists, *open_):
            self.answers.append(await self.daemon.get(path))
        for item in {item["channel"]: item for item in items}.values():
            self.answers.append(await self.daemon.get(f"/api/v1/deliveries/{item['id']}"))
            self.answers.append(await self.daemon.post(f"/api/v1/deliveries/{item['id']}/retry", {}))

    async def look_at_the_console(self, event: Mapping[str, Any]) -> None:
        """Every page there is, and a test of a channel whose receiver says again all that it was sent."""
        sign_in = {"csrf": form_token((await self.call("GET", "/console/sign-in")).text), "token": TOKEN}
        answer = await self.call("POST", "/console/sign-in", data=sign_in)
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        self.made |= {"cookie of the console": cookie.partition("=")[2], "API token": TOKEN}
        headers = {"Cookie": cookie}
        items = (await self.daemon.get("/api/v1/deliveries", limit="200")).json["items"]
        each = {item["channel"]: f"deliveries/{item['id']}" for item in items}
        lists = ["deliveries", "dead", "approvals", "incidents", "silences", "channels", "audit"]
        more = [f"approvals/{event['runId']}/{event['approvalId']}", "audit?untenanted=true", "configuration"]
        for path in ("", *lists, *more, *each.values()):
            page = await self.call("GET", f"/console/{path}", headers=headers)
            assert page.status == 200, path
            form = {"csrf": form_token(page.text)}
        tested = await self.call("POST", "/console/channels/hook/test", headers=headers, data=form)
        assert tested.status == 502

    async def fail_to_reload(self) -> None:
        path = self.daemon.config_path
        path.write_text(path.read_text().replace('host = "127.0.0.1"', "host = 1"))
        self.daemon.signal(signal.SIGHUP)
        await self.daemon.logged("reload")


def form_token(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]


async def test_no_secret_comes_out_in_an_answer_a_log_a_metric_a_mail_or_the_store(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    async with HttpSink() as sink, MailSink() as mail, provider.provider() as openid:
        sink.reply = Reply(400, echo)
        config = CONFIG.replace("SINK", sink.url).replace("PROVIDER", openid.url)
        config = config.replace("MAILPORT", str(mail.port)).replace("FOLDER", str(tmp_path))
        async with daemon_process(tmp_path, config) as daemon:
            run = Run(daemon, sink, mail, openid)
            event = await run.ask_and_decide()
            await run.sign_in()
            await run.bear_tokens()
            await run.ask_what_became_of_it(event)
            await sink.wait(1, lambda one: one.path.startswith("/beat/"))
            await run.fail_to_reload()
            await run.look_at_the_console(event)
            assert await daemon.stop() == 0
        sent = b"".join(one.path.encode() + str(one.headers).encode() + one.body for one in sink.received)
        assert {name for name, held in CANARIES.items() if held.encode() in sent} >= SENT
    kept = files_of(tmp_path) | {"log": bytes(daemon.stdout), "errors": bytes(daemon.stderr)}
    mails = {f"mail {number}": one.as_bytes() + all_parts(one) for number, one in enumerate(mail.mails)}
    told = {str(number): str(one.headers).encode() + one.body for number, one in enumerate(run.answers)}
    assert found_in(kept | mails | told, {**CANARIES, **run.made}) == []
    shown = {f"page {number}": one.body for number, one in enumerate(run.pages)}
    given = {f"headers of page {number}": str(one.headers).encode() for number, one in enumerate(run.pages)}
    issued = {name: secret for name, secret in run.made.items() if not name.startswith("cookie ")}
    assert found_in(shown, {**CANARIES, **run.made}) == []
    assert found_in(given, {**CANARIES, **issued}) == []
    bodies = {one.path: one.body for one in sink.received if one.path != "/resume"}
    assert set(found_in(bodies, {**CANARIES, **run.made})) == IN_BODIES


def all_parts(mail: EmailMessage) -> bytes:
    """What a reader sees, decoded."""
    parts = (part.get_content() for part in mail.walk() if not part.is_multipart())
    return "".join(map(str, parts)).encode()


def files_of(folder: Path) -> dict[str, bytes]:
    """All that the daemon has written."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in GIVEN}


def test_a_secret_that_did_come_out_would_be_found_however_it_is_spelled() -> None:
    for secret in CANARIES.values():
        for shown in spellings(secret):
            assert found_in({"somewhere": f"see {shown} there".encode()})
