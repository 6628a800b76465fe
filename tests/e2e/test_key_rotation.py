"""A key of `keys.seal` is replaced under a daemon, and nobody is left waiting for it."""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path
from typing import Any, Final

from notifyd.model import wall_clock
from notifyd.security.secrets import key_id
from tests import events
from tests.forked import notifyd
from tests.process import SEAL_KEY, TOKEN, DaemonProcess, configure, daemon_process, toml
from tests.sinks import HttpSink, MailSink, Reply
from tests.waiting import until, until_async

NEW: Final = base64.b64encode(b"the key that comes after, of 32.").decode()
RESUME_TOKEN: Final = "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"


def config(sink: HttpSink, mail: MailSink, *keys: str) -> str:
    return f"""
[keys]
seal = {toml(keys)}
[resume]
allowed_origins = [{toml(sink.url)}]
[dispatch]
backoff = "1s..2s"
max_attempts = 1000
[channels.mail]
type = "email"
host = "127.0.0.1"
port = {mail.port}
tls = "none"
from = "notifyd@acme.example"
[[rules]]
name = "asked"
when = 'event.runId == "asked" && event.action == "requested"'
channels = ["mail"]
to = ["alice@acme.example"]
"""


async def reload(daemon: DaemonProcess, text: str) -> None:
    configure(daemon.config_path, text)
    done = await daemon.metric("notifyd_config_last_reload_success_timestamp_seconds")
    daemon.signal(signal.SIGHUP)

    async def later() -> bool:
        return done != await daemon.metric("notifyd_config_last_reload_success_timestamp_seconds")

    await until_async(later)


async def test_a_key_is_replaced_and_every_callback_goes_out(tmp_path: Path) -> None:
    count = 100
    async with (
        HttpSink() as sink,
        MailSink() as mail,
        daemon_process(tmp_path, config(sink, mail, SEAL_KEY)) as daemon,
    ):
        sink.reply = Reply(503)
        resume = {"callbackUrl": f"{sink.url}/resume", "token": RESUME_TOKEN}

        def requested(run: str) -> dict[str, Any]:
            return events.requested(at=wall_clock(), runId=run, eventId=f"event-{run}", resume=resume)

        sent = [requested(f"run-{number}") for number in range(count)]
        for some in (sent[start : start + 20] for start in range(0, count, 20)):
            assert {one.status for one in await asyncio.gather(*map(daemon.send, some))} == {202}
            assert {one.status for one in await asyncio.gather(*map(daemon.ack, some))} == {200}
        assert (await daemon.send(requested("asked"))).status == 202
        (mailed,) = await until(lambda: mail.mails)
        link = mailed.get_body(("plain",)).get_content().split("/approvals/")[1].split()[0]  # type: ignore[union-attr]

        async def command(name: str) -> Any:
            done = await notifyd(
                "keys", name, "--json", "--url", daemon.url, environ={"NOTIFYD_TOKEN": TOKEN}
            )
            assert done.code == 0, done.stderr
            return done.json

        await reload(daemon, config(sink, mail, NEW, SEAL_KEY))
        old = key_id(base64.b64decode(SEAL_KEY))
        assert (await daemon.call("GET", f"/approvals/{link}")).status == 200
        assert (await command("reseal"))["moved"]["approvals"] == count + 1
        kept = {one["id"]: one for one in await command("status")}
        assert kept[old]["needed"] == kept[old]["ended"] == {"approvals": 0, "deliveries": 0}

        configure(daemon.config_path, config(sink, mail, NEW))
        assert await daemon.stop() == 0
        sink.reply = Reply()
        sink.received.clear()
        await daemon.start()
        await sink.wait(count)
        told = [document["data"] for document in sink.documents]
        assert {data["runId"] for data in told} == {one["runId"] for one in sent}
        assert {data["resumeToken"] for data in told} == {RESUME_TOKEN}
        page = await daemon.call("GET", f"/approvals/{link}")
        assert page.status == 404
        assert "no longer valid" in page.text
        for one in (sent[0], sent[-1]):
            assert (await daemon.send(one)).status == 200
            assert (await daemon.send(one | {"planHash": "sha256:" + "0" * 64})).status == 409
