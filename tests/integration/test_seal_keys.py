"""A key that stored rows need is not dropped unasked, and what needs it goes on while it is there."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import orjson
import pytest

from notifyd.errors import ConfigError
from notifyd.security.secrets import key_id
from tests.daemon import CONFIG, Daemon, daemon, settings
from tests.sinks import HttpSink

OLD, NEW = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", base64.b64encode(b"n" * 32).decode()
OLD_ID = key_id(base64.b64decode(OLD))
pytestmark = pytest.mark.usefixtures("templates_once")

ASK = "/notifications/pack-approvals"


def sealing_with(*keys: str, text: str = CONFIG) -> str:
    return text.replace(f'seal = ["{OLD}"]', f"seal = {orjson.dumps(keys).decode()}")


async def refused(folder: Path, text: str) -> str:
    """What a start says that refuses."""
    with pytest.raises(ConfigError) as error:
        async with daemon(folder, text):
            raise AssertionError
    (fault,) = error.value.faults
    assert fault.pointer == "keys.seal"
    return fault.message


async def reloaded(notifyd: Daemon, text: str) -> bool:
    found = notifyd.discovered
    return await notifyd.app.reload(lambda: (settings(text, found), found))


async def test_a_start_without_a_key_that_rows_need_refuses_each_time_and_counts_them(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask(runId="one")
        await notifyd.ask(runId="two")
    for _ in range(2):
        said = await refused(tmp_path, sealing_with(NEW))
        assert f"lacks the key {OLD_ID}" in said
        assert "approvals: 2" in said
        assert "--abandon-sealed" in said


async def test_a_start_with_the_key_behind_a_new_one_goes_on_and_the_callback_is_sent(tmp_path: Path) -> None:
    async with HttpSink() as sink:
        text = CONFIG.replace("http://127.0.0.1:9", sink.url)
        async with daemon(tmp_path, text) as notifyd:
            resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            document = await notifyd.ask(resume=resume)
        await refused(tmp_path, sealing_with(NEW, text=text))
        async with daemon(tmp_path, sealing_with(NEW, OLD, text=text)) as notifyd:
            names = ("runId", "approvalId", "planHash", "tenant")
            decision = {name: document[name] for name in names} | {
                "decision": "approved",
                "actor": "alice@acme.example",
            }
            answer = await notifyd.signed("{}/{runId}/{approvalId}/ack".format(ASK, **document), decision)
            assert answer.status < 300, answer.text
            (callback,) = await sink.wait()
            assert orjson.loads(callback.body)["data"]["resumeToken"] == resume["token"]


async def test_a_reload_without_a_key_that_rows_need_is_refused_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon(tmp_path) as notifyd:
        document = await notifyd.ask()
        before = notifyd.app.registry()
        assert not await reloaded(notifyd, sealing_with(NEW))
        assert notifyd.app.registry() is before
        assert f"keys.seal: lacks the key {OLD_ID}" in caplog.text
        assert (await notifyd.signed(ASK, document)).status == 200
        assert await reloaded(notifyd, sealing_with(NEW, OLD))
        assert not await reloaded(notifyd, sealing_with(NEW))


async def test_a_reload_may_drop_a_key_that_no_row_needs(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        assert await reloaded(notifyd, sealing_with(NEW))
        assert OLD_ID not in notifyd.app.registry().keyring.ids
    async with daemon(tmp_path, sealing_with(NEW)):
        pass


async def test_rows_are_given_up_only_when_asked_and_the_log_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with daemon(tmp_path) as notifyd:
        document = await notifyd.ask()
    async with daemon(tmp_path, sealing_with(NEW), abandon_sealed=True) as notifyd:
        assert f"lacks key {OLD_ID}: never sent are approvals: 1" in caplog.text
        again = await notifyd.signed(ASK, document)
        assert (again.status, again.json["outcome"]) == (200, "opened")
    async with daemon(tmp_path, sealing_with(NEW)):
        pass  # what was given up once is not asked for again
