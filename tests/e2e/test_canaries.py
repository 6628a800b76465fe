"""A secret of its own in every place that holds one, every path run, faults included: none comes out anywhere."""

from __future__ import annotations

import base64
import hashlib
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from notifyd.testing import Received, Reply
from tests import events
from tests.process import SEAL_KEY, SECRET, TOKEN, Answer, DaemonProcess, daemon_process
from tests.sinks import HttpSink
from tests.waiting import until_async

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
}

CONFIG: Final = f"""
[keys]
seal = ["{SEAL_KEY}"]
sign = ["whsk_{key("sign")}"]

[resume]
allowed_origins = ["SINK"]
secrets = ["whsec_{key("resume")}"]

[dispatch]
max_attempts = 2
backoff = "10ms..20ms"

[channels.hook]
type = "webhook"
url = "SINK/hook/{canary("url")}"
secret = "whsec_{key("webhook")}"
headers = {{X-Key = "{canary("header")}"}}

[channels.team]
type = "slack"
webhook_url = "SINK/services/{canary("slack")}"

[channels.phone]
type = "telegram"
bot_token = "12345678:{canary("telegram")}"
chat_id = "-1001234567890"
api_url = "SINK"

[channels.mail]
type = "email"
host = "127.0.0.1"
port = 9
from = "notifyd@acme.example"
username = "notifyd"
password = "{canary("smtp")}"

[[rules]]
name = "all"
when = 'event.kind == "pack.approval"'
channels = ["hook", "team", "phone", "mail"]
to = ["alice@acme.example"]
"""


def spellings(secret: str) -> list[str]:
    """A secret as it stands, as base64 spells it at each place, and with each character escaped."""
    shifted = (base64.b64encode(b" " * shift + secret.encode()).decode()[4:-4] for shift in range(3))
    escaped = "".join(f"%{ord(sign):02x}" for sign in secret)
    return [secret, quote(secret, safe=""), escaped, secret.encode().hex(), *shifted]


def found_in(places: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return [
        (name, place)
        for name, secret in CANARIES.items()
        for place, held in places.items()
        if any(each.encode().lower() in held.lower() for each in spellings(secret))
    ]


def echo(received: Received) -> str:
    """All that was sent, back to the sender, and some of it as base64."""
    sent = f"{received.path} {dict(received.headers)} {received.body.decode()}"
    return sent + base64.b64encode(sent.encode()).decode()


async def run_every_path(daemon: DaemonProcess, sink: HttpSink) -> list[Answer]:
    """What was answered: to what is right, to what is wrong, and to who asks what became of it."""
    resume = {"callbackUrl": f"{sink.url}/resume", "token": canary("resume-token")}
    own = {"resume": resume, "parameters": {"password": canary("parameter")}}
    event = events.requested(at=time.time_ns() // 1000, **own)
    outside = {"callbackUrl": sink.url.replace("//", f"//u:{canary('userinfo')}@"), "token": resume["token"]}
    guess = {"Authorization": f"Bearer {canary('guess')}"}
    answers = [
        await daemon.send(event),
        await daemon.send(event | {"title": canary("parameter")}),  # a fault; the id is taken as well
        await daemon.send(event | {"resume": outside, "eventId": "other"}),
        await daemon.call("GET", "/api/v1/channels", headers=guess),
        await daemon.call("GET", f"/approvals/{canary('guess')}"),
        await daemon.ack(event),
    ]
    for channel in ("hook", "team", "phone", "mail"):
        asked = {"recipient": "alice@acme.example"} if channel == "mail" else {}
        answers.append(await daemon.post(f"/api/v1/channels/{channel}/test", asked))

    async def all_ended() -> bool:
        items = (await daemon.get("/api/v1/deliveries")).json["items"]
        return len(items) >= 9 and all(item["state"] in ("dead", "sent") for item in items)

    await until_async(all_ended)
    items = (await daemon.get("/api/v1/deliveries")).json["items"]
    assert {item["state"] for item in items if item["channel"] != "mail"} == {"dead"}
    one = f"{PACK}/{event['runId']}/{event['approvalId']}"
    lists = [f"/api/v1/{path}" for path in ("deliveries", "dead", "audit", "channels", "keys")]
    open_ = ["/metrics", "/openapi.json", "/.well-known/notifyd/jwks.json"]
    answers += [await daemon.get(path) for path in (PACK, one, *lists, *open_)]
    for item in items:
        answers.append(await daemon.get(f"/api/v1/deliveries/{item['id']}"))
        answers.append(await daemon.post(f"/api/v1/deliveries/{item['id']}/retry", {}))
    return answers


async def test_no_secret_comes_out_in_an_answer_a_log_a_metric_or_the_store(tmp_path: Path) -> None:
    async with HttpSink() as sink:
        sink.reply = Reply(400, echo)
        async with daemon_process(tmp_path, CONFIG.replace("SINK", sink.url)) as daemon:
            answers = await run_every_path(daemon, sink)
            daemon.config_path.write_text(
                daemon.config_path.read_text().replace('host = "127.0.0.1"', "host = 1")
            )
            daemon.signal(signal.SIGHUP)
            await daemon.logged("reload")
            assert await daemon.stop() == 0
        sent = b"".join(one.path.encode() + str(one.headers).encode() + one.body for one in sink.received)
        assert {canary("url"), canary("header"), canary("slack"), canary("telegram")} <= {
            held for held in CANARIES.values() if held.encode() in sent
        }
    told = {str(number): str(one.headers).encode() + one.body for number, one in enumerate(answers)}
    assert (
        found_in(files_of(tmp_path) | told | {"log": bytes(daemon.stdout), "errors": bytes(daemon.stderr)})
        == []
    )
    bodies = {str(number): one.body for number, one in enumerate(sink.received) if one.path != "/resume"}
    assert found_in(bodies) == []


def files_of(folder: Path) -> dict[str, bytes]:
    """All that the daemon has written."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "notifyd.toml"}


def test_a_secret_that_did_come_out_would_be_found_however_it_is_spelled() -> None:
    for secret in CANARIES.values():
        for shown in spellings(secret):
            assert found_in({"somewhere": f"see {shown} there".encode()})
