"""`proof = "sign-in"` in channels with buttons: theirs open the page, and no press, however made, decides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from notifyd.render.replies import REPLIES
from notifyd.wire.codec import derived_id
from tests.bot_api import BotApi
from tests.daemon import Daemon, daemon, installed
from tests.integration import test_slack as in_slack
from tests.integration import test_telegram as in_telegram
from tests.integration.test_sign_in import Place, signed_in, signed_out
from tests.provider import CLIENT, OUTSIDE, SECRET, Browser, provider
from tests.slack_api import SlackApi, buttons
from tests.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("templates_once")
PAGE = REPLIES["en"]["page"]


def signing_in(issuer: str, text: str) -> str:
    """`text`, whose rule asks for a sign-in."""
    oidc = f'[auth.oidc]\nissuer = "{issuer}"\nclient_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n'
    rule = 'name = "approvals"'
    return text.replace("[auth.actors]", f"{oidc}[auth.actors]").replace(rule, f'{rule}\nproof = "sign-in"')


@asynccontextmanager
async def placed(folder: Path, text: str) -> AsyncIterator[Place]:
    async with provider() as running, daemon(folder, signing_in(running.url, text)) as notifyd:
        yield Place(notifyd, running, Browser(notifyd))


async def ref_of(notifyd: Daemon) -> str:
    """What a button of the one message that was sent would call it: an attacker who knows even that is refused."""

    async def found() -> Any:
        return (await notifyd.get("/api/v1/deliveries")).json["items"]

    (row,) = await until_async(found)
    return derived_id("answer", "acme", row["id"])[:32]


async def sign_in_and_decide(place: Place, path: str) -> None:
    assert signed_out(await place.browser.get(path))
    assert signed_in(await place.sign_in(path))
    assert (await place.decide(path)).status == 303


# --- Slack -------------------------------------------------------------------------------------------------


def pressed(slack: SlackApi, asked: dict[str, Any], ref: str) -> dict[str, Any]:
    """An interaction as a button that decides would give it, which the message has not."""
    link = buttons(asked)[0]
    made = slack.pressed(asked, in_slack.ALICE, link["text"]["text"])
    made["actions"] = [{**link, "action_id": "decide-approved", "value": ref, "block_id": "b1"}]
    return made


def submitted(asked: dict[str, Any], ref: str) -> dict[str, Any]:
    """A dialog's submission, with a reason, of a dialog that nobody has opened."""
    told = {"ref": ref, "action": "rejected", "channel": asked["channel"]}
    values = {"reason": {"reason": {"type": "plain_text_input", "value": "because I say so"}}}
    view = {"callback_id": "reason", "private_metadata": json.dumps(told), "state": {"values": values}}
    return {"type": "view_submission", "user": {"id": in_slack.ALICE}, "view": view}


async def test_in_slack_the_button_opens_the_page_where_whoever_signs_in_decides(tmp_path: Path) -> None:
    async with SlackApi() as slack, placed(tmp_path, in_slack.config(slack, where="")) as place:
        await in_slack.connected(slack)
        document = await place.notifyd.ask()
        asked = await in_slack.message(slack)
        (link, everything) = buttons(asked)
        assert not [one for one in (link, everything) if "value" in one or "url" not in one]
        ref = await ref_of(place.notifyd)

        followed = await slack.happens(slack.pressed(asked, in_slack.ALICE, link["text"]["text"]))
        forged = await slack.happens(pressed(slack, asked, ref))
        assert await in_slack.told(slack) == PAGE
        dialog = await slack.happens(submitted(asked, ref))
        await until(lambda: slack.acked(followed) and slack.acked(forged) and slack.acked(dialog))
        assert (slack.acked(dialog) or {})["payload"]["errors"] == {"reason": PAGE}
        await slack.happens(pressed(slack, asked, "0" * 32))
        assert await in_slack.told(slack, 1) == REPLIES["en"]["gone"]
        assert (await place.notifyd.approval(document))["decisions"] == []
        assert slack.views == []

        await sign_in_and_decide(place, link["url"].removeprefix(OUTSIDE))
        approval = await in_slack.ended(place.notifyd, document)
        await until(lambda: link["url"] not in [one.get("url") for one in buttons(asked)])
        assert "alice@acme.example" in str(asked["blocks"])
    assert (approval["status"], approval["decisions"][0]["via"]) == ("approved", "sign-in")


async def test_in_slack_a_button_of_before_the_rule_asked_for_a_sign_in_does_not_decide(
    tmp_path: Path,
) -> None:
    async with SlackApi() as slack, placed(tmp_path, in_slack.config(slack, where="")) as place:
        strict, text = place.notifyd.text, place.notifyd.text.replace('proof = "sign-in"', 'proof = "link"')
        await place.notifyd.reload(text)
        await in_slack.connected(slack)
        document = await place.notifyd.ask()
        asked = await in_slack.message(slack)
        await place.notifyd.reload(strict)
        await in_slack.connected(slack)
        for label in ("Approve", "Reject"):
            await slack.happens(slack.pressed(asked, in_slack.ALICE, label))
        assert [await in_slack.told(slack, number) for number in (0, 1)] == [PAGE, PAGE]
        assert (await place.notifyd.approval(document))["status"] == "pending"
        assert slack.views == []


# --- Telegram ----------------------------------------------------------------------------------------------


async def test_in_telegram_the_button_opens_the_page_where_whoever_signs_in_decides(tmp_path: Path) -> None:
    async with BotApi() as telegram, placed(tmp_path, in_telegram.config(telegram, chat="")) as place:
        document = await place.notifyd.ask()
        asked = await in_telegram.message(telegram)
        rows = asked["reply_markup"]["inline_keyboard"]
        assert [sorted(one) for row in rows for one in row] == [["text", "url"]] * len(rows)
        url = rows[0][0]["url"]
        ref = await ref_of(place.notifyd)

        for number, action in enumerate("ar"):
            update = telegram.made(asked, in_telegram.ALICE, f"{action}:{ref}")
            telegram.happens(update)
            heard = await in_telegram.told(telegram, number)
            assert (heard["text"], heard["show_alert"]) == (PAGE, True)
        telegram.happens(telegram.made(asked, in_telegram.ALICE, f"a:{'0' * 32}"))
        assert (await in_telegram.told(telegram, 2))["text"] == REPLIES["en"]["gone"]
        assert (await place.notifyd.approval(document))["decisions"] == []

        await sign_in_and_decide(place, url.removeprefix(OUTSIDE))
        approval = await in_telegram.ended(place.notifyd, document)
        await until(lambda: url not in str(asked))
        assert len(telegram.sent) == 1
        assert "approved" in asked["text"]
    assert (approval["status"], approval["decisions"][0]["via"]) == ("approved", "sign-in")


def test_no_other_channel_has_buttons_that_decide() -> None:
    types = installed().channel_types
    assert {name for name, one in types.items() if one.answers is not False} == {"slack", "telegram"}
