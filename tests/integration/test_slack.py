"""Deciding in Slack, from the button to the callback, against a stand-in that speaks its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.render.replies import REPLIES
from tests.daemon import CONFIG, Answer, Daemon, daemon
from tests.sinks import HttpSink
from tests.slack_api import APP_TOKEN, BOT_TOKEN, CHANNEL, SIGNING_SECRET, SlackApi, buttons, signed
from tests.waiting import until, until_async

ALICE, CAROL, STRANGER = "U0ALICE01", "U0CAROL01", "U0NOBODY1"
pytestmark = pytest.mark.usefixtures("templates_once")


@pytest.fixture
async def slack() -> AsyncIterator[SlackApi]:
    async with SlackApi() as running:
        yield running


SOCKET_MODE = f'app_token = "{APP_TOKEN}"'
CALLED = f'signing_secret = "{SIGNING_SECRET}"'
BOTH = 'to = ["alice@acme.example", "carol@acme.example"]'
IN_CONFIG = 'to = ["alice@acme.example", "bob@acme.example"]'
ALONE = 'to = ["alice@acme.example"]'


def config(slack: SlackApi, how: str = SOCKET_MODE, *, to: str = ALONE, where: str = CHANNEL) -> str:
    channel = f"""
[channels.ops]
type = "slack"
bot_token = "{BOT_TOKEN}"
api_url = "{slack.url()}"
rate_limit = "50/s"
{f'channel_id = "{where}"' if where else ""}
{how}

[recipients."alice@acme.example"]
addresses = {{slack = "{ALICE}"}}

[recipients."carol@acme.example"]
addresses = {{slack = "{CAROL}"}}
"""
    return CONFIG.replace('channels = ["inbox"]', 'channels = ["ops"]').replace(IN_CONFIG, to) + channel


async def message(slack: SlackApi, number: int = 0) -> dict[str, Any]:
    await until(lambda: len(slack.sent) > number)
    return slack.sent[number]


async def told(slack: SlackApi, number: int = 0) -> str:
    """What the person who pressed was told, and nobody else."""
    await until(lambda: len(slack.told) > number)
    return text_of(slack.told[number])


def text_of(message: dict[str, Any]) -> str:
    return str(message["blocks"][0]["text"]["text"])


def labels(message: dict[str, Any]) -> list[str]:
    return [one["text"]["text"] for one in buttons(message)]


async def connected(slack: SlackApi, count: int = 1) -> None:
    await until(lambda: len(slack.sockets) == count)


async def ended(notifyd: Daemon, document: dict[str, Any]) -> Any:
    async def found() -> Any:
        approval = await notifyd.approval(document)
        return approval if approval["status"] != "pending" else None

    return await until_async(found)


async def test_a_tap_over_socket_mode_decides_and_the_callback_is_sent(
    slack: SlackApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with HttpSink() as sink:
        text = config(slack).replace("http://127.0.0.1:9", sink.url)
        async with daemon(tmp_path, text) as notifyd:
            await connected(slack)
            resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            document = await notifyd.ask(resume=resume)
            asked = await message(slack)
            assert labels(asked)[:2] == ["Approve", "Reject"]
            assert "/approvals/" not in str([one.get("value") for one in buttons(asked)])
            refused = await slack.happens(slack.pressed(asked, STRANGER, "Approve"))
            assert await told(slack) == REPLIES["en"]["unknown"].format(address=STRANGER)
            assert (slack.told[0]["user"], slack.told[0]["channel"]) == (STRANGER, CHANNEL)
            pressed = slack.pressed(asked, ALICE, "Approve")
            envelope = await slack.happens(pressed)
            approval = await ended(notifyd, document)
            assert await told(slack, 1) == REPLIES["en"]["approved"]
            (callback,) = await until(lambda: sink.received)
            await until(lambda: "Approve" not in labels(asked))  # the message itself tells the end
            assert "alice@acme.example" in str(asked["blocks"])
            # It may come again, over another connection too.
            await slack.tells(envelope, pressed)
            assert await told(slack, 2) == REPLIES["en"]["ended_approved"]
    assert slack.acked(refused) == {"envelope_id": refused}
    assert slack.acked(envelope) == {"envelope_id": envelope}
    assert (approval["status"], approval["decisions"][0]["actor"]) == ("approved", "alice@acme.example")
    assert approval["decisions"][0]["via"] == "channel"
    assert orjson.loads(callback.body)["data"]["decision"] == "approved"
    assert len(sink.received) == 1
    assert not [one for one in (BOT_TOKEN, APP_TOKEN, "ticket-") if one in caplog.text]


async def test_a_rejection_is_asked_for_its_reason_in_a_dialog(slack: SlackApi, tmp_path: Path) -> None:
    async with daemon(tmp_path, config(slack)) as notifyd:
        await connected(slack)
        document = await notifyd.ask()
        await slack.happens(slack.pressed(await message(slack), ALICE, "Reject"))
        (view,) = await until(lambda: slack.views)
        assert (view["title"]["text"], view["submit"]["text"]) == ("Reject", "Reject")
        assert view["blocks"][0]["label"]["text"] == REPLIES["en"]["reason"]
        stranger = await slack.happens(slack.submitted(view, STRANGER, "let me"))
        empty = await slack.happens(slack.submitted(view, ALICE, "  "))
        await until(lambda: slack.acked(empty))
        right = await slack.happens(slack.submitted(view, ALICE, "not on Fridays"))
        approval = await ended(notifyd, document)
        assert await told(slack) == REPLIES["en"]["rejected"]
        await until(lambda: len(slack.acks) == 4)
    said = {"reason": REPLIES["en"]["unknown"].format(address=STRANGER)}
    refusal = {"response_action": "errors", "errors": said}
    assert slack.acked(stranger) == {"envelope_id": stranger, "payload": refusal}
    assert (slack.acked(empty) or {})["payload"]["errors"] == {"reason": REPLIES["en"]["reason"]}
    assert slack.acked(right) == {"envelope_id": right}, "which closes the dialog"
    assert (approval["status"], approval["decisions"][0]["comment"]) == ("rejected", "not on Fridays")
    assert len(slack.told) == 1


async def test_where_no_reason_is_required_a_press_rejects(slack: SlackApi, tmp_path: Path) -> None:
    text = config(slack) + "\n[approvals]\nrequire_reason = []\n"
    async with daemon(tmp_path, text) as notifyd:
        await connected(slack)
        document = await notifyd.ask()
        await slack.happens(slack.pressed(await message(slack), ALICE, "Reject"))
        assert (await ended(notifyd, document))["status"] == "rejected"
    assert slack.views == []


async def test_a_dialog_that_comes_too_late_is_told_in_words(slack: SlackApi, tmp_path: Path) -> None:
    slack.fails["views.open"] = "expired_trigger_id"
    async with daemon(tmp_path, config(slack)) as notifyd:
        await connected(slack)
        await notifyd.ask()
        await slack.happens(slack.pressed(await message(slack), ALICE, "Reject"))
        assert await told(slack) == REPLIES["en"]["reason"]


async def test_each_copy_tells_the_end_and_news_goes_into_its_thread(slack: SlackApi, tmp_path: Path) -> None:
    """To each person by a direct message, whose id differs from theirs."""
    text = config(slack, to=BOTH, where="").replace(' && event.action == "requested"', "")
    async with daemon(tmp_path, text) as notifyd:
        await connected(slack)
        document = await notifyd.ask(requiredApprovals=2)
        await message(slack, 1)
        copies = {one["to"]: one for one in slack.sent[:2]}
        assert set(copies) == {ALICE, CAROL}
        await slack.happens(slack.pressed(copies[ALICE], ALICE, "Approve"))
        news = await message(slack, 2)
        await slack.happens(slack.pressed(copies[CAROL], CAROL, "Approve"))
        await ended(notifyd, document)
        await until(lambda: not any("Approve" in labels(one) for one in copies.values()))
    assert (news["to"], news["thread_ts"]) == (CAROL, copies[CAROL]["ts"])
    for copy in copies.values():
        assert "carol@acme.example" in str(copy["blocks"])
        assert "thread_ts" not in copy


async def test_a_refreshed_connection_is_read_until_it_ends_beside_the_new_one(
    slack: SlackApi, tmp_path: Path
) -> None:
    async with daemon(tmp_path, config(slack)) as notifyd:
        await connected(slack)
        document = await notifyd.ask()
        asked = await message(slack)
        old = slack.sockets[0][1]
        await old.send_json({"type": "disconnect", "reason": "warning", "debug_info": {}})
        await connected(slack, 2)
        await slack.tells("over-the-old-one", slack.pressed(asked, STRANGER, "Approve"), socket=0)
        await until(lambda: slack.acked("over-the-old-one"))
        await old.close()
        await connected(slack, 1)
        await slack.happens(slack.pressed(asked, ALICE, "Approve"))
        await ended(notifyd, document)
    assert slack.opened == ["api", "api"]


async def test_a_connection_that_breaks_off_is_opened_again(slack: SlackApi, tmp_path: Path) -> None:
    async with daemon(tmp_path, config(slack)):
        await connected(slack)
        await slack.sockets[0][1].close()
        await until(lambda: len(slack.opened) == 2)
        await connected(slack)


async def test_what_slack_says_to_the_apps_token_is_logged_without_it(
    slack: SlackApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slack.fails["apps.connections.open"] = "not_allowed_token_type"
    async with daemon(tmp_path, config(slack)):
        await until(lambda: "not_allowed_token_type" in caplog.text)
    assert APP_TOKEN not in caplog.text


# --- Slack's own call --------------------------------------------------------------------------------------


async def called(notifyd: Daemon, body: bytes, headers: dict[str, str]) -> Answer:
    return await notifyd.call("POST", "/channels/ops/inbound", data=body, headers=headers)


async def test_a_tap_that_slack_tells_by_its_own_call_decides(slack: SlackApi, tmp_path: Path) -> None:
    async with daemon(tmp_path, config(slack, CALLED)) as notifyd:
        document = await notifyd.ask()
        asked = await message(slack)
        # From now on nobody may call as a machine: the vendor's own proof is what counts there.
        await notifyd.reload(notifyd.text.replace("[server]", '[server]\nip_allowlist = ["192.0.2.1"]'))
        now = notifyd.clock() / 1_000_000
        approve = slack.pressed(asked, ALICE, "Approve")
        for at, secret in ((now, "0" * 32), (now - 301, SIGNING_SECRET), (now + 301, SIGNING_SECRET)):
            assert (await called(notifyd, *signed(approve, at, secret))).status == 401
        body, headers = signed(approve, now)
        assert (await called(notifyd, body + b" ", headers)).status == 401
        assert slack.told == []
        assert (await called(notifyd, *signed(slack.pressed(asked, ALICE, "Reject"), now))).body == b""
        (view,) = slack.views
        refused = await called(notifyd, *signed(slack.submitted(view, ALICE, " "), now))
        assert refused.json["errors"] == {"reason": REPLIES["en"]["reason"]}
        assert (await called(notifyd, body, headers)).status == 200
        assert await told(slack) == REPLIES["en"]["approved"]
        # It comes at least once.
        assert (await called(notifyd, body, headers)).status == 200
        assert await told(slack, 1) == REPLIES["en"]["ended_approved"]
        late = await called(notifyd, *signed(slack.submitted(view, ALICE, "no"), now))
        assert late.json["errors"] == {"reason": REPLIES["en"]["ended_approved"]}
    assert document["runId"] in str(asked)
