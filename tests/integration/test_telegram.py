"""Deciding in Telegram, from the button to the callback, against a stand-in that speaks its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.render.replies import REPLIES
from tests.bot_api import TOKEN, BotApi
from tests.daemon import CONFIG, Answer, Daemon, daemon
from tests.sinks import HttpSink
from tests.waiting import until, until_async

ALICE, STRANGER = 5550123, 999
SECRET = "a-secret_Token-of-32-characters-x"
pytestmark = pytest.mark.usefixtures("templates_once")


@pytest.fixture
async def telegram() -> AsyncIterator[BotApi]:
    async with BotApi() as running:
        yield running


def config(telegram: BotApi, how: str = 'answers = "poll"', *, chat: str = 'chat_id = "-1001"') -> str:
    channel = f"""
[channels.ops]
type = "telegram"
bot_token = "{TOKEN}"
api_url = "{telegram.url}"
{chat}
{how}

[recipients."alice@acme.example"]
addresses = {{telegram = "{ALICE}"}}
"""
    people = 'to = ["alice@acme.example", "bob@acme.example"]'
    return CONFIG.replace('channels = ["inbox"]', 'channels = ["ops"]').replace(people, ALONE) + channel


ALONE = 'to = ["alice@acme.example"]'


async def message(telegram: BotApi, number: int = 0) -> dict[str, Any]:
    await until(lambda: len(telegram.sent) > number)
    return telegram.sent[number]


async def told(telegram: BotApi, number: int = 0) -> dict[str, Any]:
    await until(lambda: len(telegram.told) > number)
    return telegram.told[number]


async def ended(notifyd: Daemon, document: dict[str, Any]) -> Any:
    async def found() -> Any:
        approval = await notifyd.approval(document)
        return approval if approval["status"] != "pending" else None

    return await until_async(found)


async def test_a_tap_is_polled_decides_and_the_callback_is_sent(telegram: BotApi, tmp_path: Path) -> None:
    async with HttpSink() as sink:
        text = config(telegram).replace("http://127.0.0.1:9", sink.url)
        async with daemon(tmp_path, text) as notifyd:
            resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            document = await notifyd.ask(resume=resume)
            asked = await message(telegram)
            assert "/approvals/" not in orjson.dumps(asked["reply_markup"]["inline_keyboard"][0]).decode()
            telegram.happens(telegram.pressed(asked, STRANGER, "Approve"))
            refused = await told(telegram)
            assert refused["show_alert"]
            assert refused["text"] == REPLIES["en"]["unknown"].format(address=STRANGER)
            telegram.happens(telegram.pressed(asked, ALICE, "Approve"))
            approval = await ended(notifyd, document)
            heard = await told(telegram, 1)
            (callback,) = await until(lambda: sink.received)
            await until(lambda: "callback_data" not in str(asked))  # the message itself tells the end
            assert len(telegram.sent) == 1
            assert "approved" in asked["text"]
    assert (approval["status"], approval["decisions"][0]["actor"]) == ("approved", "alice@acme.example")
    assert approval["decisions"][0]["via"] == "channel"
    assert (heard["text"], heard["show_alert"]) == (REPLIES["en"]["approved"], False)
    assert orjson.loads(callback.body)["data"]["decision"] == "approved"


async def test_a_rejection_is_asked_for_its_reason_in_the_chat(telegram: BotApi, tmp_path: Path) -> None:
    async with daemon(tmp_path, config(telegram)) as notifyd:
        document = await notifyd.ask()
        telegram.happens(telegram.pressed(await message(telegram), ALICE, "Reject"))
        question = await message(telegram, 1)
        assert question["reply_markup"] == {"force_reply": True, "selective": True}
        assert question["text"].startswith(f'<a href="tg://user?id={ALICE}">&lt;Ann&gt;</a>: ')
        telegram.happens(telegram.said(question, STRANGER, "let me"))
        telegram.happens(telegram.said(await message(telegram), ALICE, "not to this one"))
        telegram.happens(telegram.said(question, ALICE, "not on Fridays"))
        approval = await ended(notifyd, document)
        confirmed = await message(telegram, 2)
    assert (approval["status"], approval["decisions"][0]["comment"]) == ("rejected", "not on Fridays")
    assert confirmed["text"] == REPLIES["en"]["rejected"]
    assert len(telegram.sent) == 3


async def test_what_was_taken_is_not_asked_for_again_after_a_restart(
    telegram: BotApi, tmp_path: Path
) -> None:
    async with daemon(tmp_path, config(telegram)) as notifyd:
        await notifyd.ask()
        update = telegram.pressed(await message(telegram), STRANGER, "Approve")
        telegram.happens(update)
        await until(lambda: update["update_id"] + 1 in telegram.polls)
    count = len(telegram.polls)
    async with daemon(tmp_path, config(telegram)):
        await until(lambda: len(telegram.polls) > count)
    assert telegram.polls[count] == update["update_id"] + 1
    assert len(telegram.told) == 1


async def test_a_webhook_that_is_set_elsewhere_is_told_in_telegrams_words(
    telegram: BotApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    telegram.fails["getUpdates"] = (409, "Conflict: can't use getUpdates method while webhook is active")
    async with daemon(tmp_path, config(telegram)):
        await until(lambda: "while webhook is active" in caplog.text)
    assert TOKEN not in caplog.text


# --- Telegram's own call -----------------------------------------------------------------------------------


async def called(notifyd: Daemon, update: object, secret: str = SECRET, name: str = "ops") -> Answer:
    body = update if isinstance(update, bytes) else orjson.dumps(update)
    headers = {"Content-Type": "application/json", "X-Telegram-Bot-Api-Secret-Token": secret}
    return await notifyd.call("POST", f"/channels/{name}/inbound", data=body, headers=headers)


async def test_a_tap_that_telegram_tells_by_its_own_call_decides(telegram: BotApi, tmp_path: Path) -> None:
    text = config(telegram, f'answers = "webhook"\nwebhook_secret = "{SECRET}"', chat="")
    async with daemon(tmp_path, text) as notifyd:
        await notifyd.ask()
        asked = await message(telegram)
        assert asked["chat_id"] == str(ALICE)
        # From now on nobody may call as a machine: the vendor's own proof is what counts there.
        await notifyd.reload(notifyd.text.replace("[server]", '[server]\nip_allowlist = ["192.0.2.1"]'))
        update = telegram.pressed(asked, ALICE, "Approve")
        for wrong in ("", "another", "\u00fc"):
            assert (await called(notifyd, update, wrong)).status == 401
        assert telegram.told == []
        assert (await called(notifyd, b"no JSON")).status == 400
        assert (await called(notifyd, b"[]")).status == 400
        assert (await called(notifyd, {"update_id": 1, "callback_query": 7, "message": []})).status == 200
        assert (await called(notifyd, b"x" * 300_000)).status == 413
        assert (await called(notifyd, update, name="inbox")).status == 404
        assert (await called(notifyd, update, name="resume")).status == 404
        assert (await called(notifyd, update)).status == 200
        assert telegram.told[0]["text"] == REPLIES["en"]["approved"]
        # It comes at least once.
        assert (await called(notifyd, update)).status == 200
        assert telegram.told[1]["text"] == REPLIES["en"]["ended_approved"]
