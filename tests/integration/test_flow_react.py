"""Answers to messages at a vendor's: whose they are, what they may do, and what is said to them."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.config.doubts import doubts
from notifyd.errors import PermanentError, TransientError
from notifyd.model import SECOND, Choice, State, Status, Via
from notifyd.plugin import (
    Channel,
    ChannelContext,
    ChannelType,
    InboundRequest,
    InboundResponse,
    Reaction,
    ReactionReply,
)
from notifyd.render.replies import REPLIES
from notifyd.wire.codec import rfc3339
from tests.fakes import Channels, NoOptions, settings
from tests.flows import Flow, flow

TEXT = """
[resume]
allowed_origins = ["https://runner.acme.example"]

[channels.team]
type = "chat"

[channels.elsewhere]
type = "chat"

[channels.direct]
type = "direct"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["team"]
to = ["alice@acme.example", "bruno@acme.example"]

[recipients."alice@acme.example"]
locale = "de-CH"
addresses = {chat = "U1", direct = "D1"}

[recipients."bruno@acme.example"]
addresses = {chat = "U2"}

[recipients."carol@acme.example"]
addresses = {chat = "U3", direct = "D3"}

[recipients."ci@acme.example"]
addresses = {chat = "U4"}
"""
SIGN_IN = """
[auth.oidc]
issuer = "https://login.acme.example"
client_id = "notifyd"
client_secret = "only-for-the-tests"
[approvals]
proof = "sign-in"
[recipients"""
"""What stands before the recipients where a decision takes a sign-in."""
PERSONAL = TEXT.replace('channels = ["team"]\nto = ["alice@acme.example", "bruno@acme.example"]',
                        'channels = ["direct"]\nto = ["alice@acme.example"]')  # fmt: skip


class Told:
    """A channel of a test that its vendor calls; here the tests hand in what it would be told."""

    def __init__(self, channel: Channel) -> None:
        self.send, self.aclose = channel.send, channel.aclose

    async def receive(self, request: InboundRequest) -> InboundResponse:
        raise AssertionError("nobody calls")


def answering() -> Channels:
    """Two types whose messages can be answered: a shared one, and one for each person."""
    channels = Channels()

    def opened(config: NoOptions, context: ChannelContext) -> Any:
        return Told(channels.open(config, context))

    channels.more["chat"] = ChannelType("chat", NoOptions, opened, answers=True)
    channels.more["direct"] = ChannelType(
        "direct", NoOptions, opened, personal=True, addressed=True, answers=True
    )
    return channels


def asking(folder: Path, text: str = TEXT) -> Any:
    return flow(folder, text, channels=answering())


async def ref_of(way: Flow, channel: str = "team") -> str:
    (message,) = await way.messages(1, channel)
    return message.buttons[0].ref


async def react(
    way: Flow, who: str, action: str, ref: str, text: str = "", channel: str = "team"
) -> ReactionReply:
    inbox = way.app._services.reactions.inbox(way.current().channels[channel])
    return await inbox(Reaction(who, action, ref, text))


def said(name: str, language: str = "de") -> str:
    return REPLIES[language][name]


# --- what can be pressed -----------------------------------------------------------------------------------


async def test_a_message_has_a_button_for_each_choice_in_its_language(tmp_path: Path) -> None:
    async with asking(
        tmp_path, TEXT.replace('channels = ["team"]', 'channels = ["team"]\nlocale = "fr"')
    ) as way:
        await way.ask()
        (message,) = await way.messages(1)
    approve, reject = message.buttons
    assert (approve.label, approve.action) == ("Approuver", "approved")
    assert (reject.label, reject.action) == ("Refuser", "rejected")
    assert approve.ref == reject.ref
    assert len(approve.ref) == 32


@pytest.mark.parametrize(
    ("change", "event"),
    [
        (('type = "chat"', 'type = "fake"'), {}),
        (("to = [", 'grants = ["Other"]\nto = ['), {}),
        (("[recipients", '[approvals]\nlinks = "view"\n[recipients'), {}),
        (("[recipients", SIGN_IN), {}),
        (("", ""), {"inputs": [{"name": "at", "label": "When", "type": "text"}]}),
    ],
)
async def test_what_cannot_be_decided_where_it_is_has_no_buttons(
    tmp_path: Path, change: tuple[str, str], event: dict[str, Any]
) -> None:
    text = TEXT.replace(*change, 1)
    if 'type = "fake"' in text:
        text = text.replace('to = ["alice@acme.example", "bruno@acme.example"]', "")
    async with asking(tmp_path, text) as way:
        await way.ask(**event)
        assert [message.buttons for message in await way.messages(1)] == [()]


async def test_the_end_of_an_approval_is_told_without_buttons(tmp_path: Path) -> None:
    async with asking(tmp_path, TEXT.replace(' && event.action == "requested"', "")) as way:
        document = await way.ask()
        await way.messages(1)
        await way.decide(document)
        asked, told = await way.messages(2)
    assert asked.buttons
    assert told.buttons == ()


async def end(way: Flow, document: dict[str, Any]) -> None:
    await way.decide(document)


async def ask_anew(way: Flow, document: dict[str, Any]) -> None:
    later = {"occurredAt": rfc3339(way.clock() + SECOND), "planHash": "sha256:" + "b" * 64}
    assert (await way.post(document | later | {"eventId": str(uuid.uuid4())})).fresh


async def nothing(_way: Flow, _document: dict[str, Any]) -> None:
    """It waits as before."""


async def run_out(way: Flow, document: dict[str, Any]) -> None:
    expires_at = (await way.approval(document)).expires_at or 0
    way.turn((expires_at - way.clock()) / SECOND + 1)


@pytest.mark.parametrize(("meanwhile", "buttons"), [(nothing, 2), (end, 0), (ask_anew, 0), (run_out, 0)])
async def test_what_comes_when_it_can_no_longer_be_decided_has_no_buttons(
    tmp_path: Path, meanwhile: Callable[[Flow, dict[str, Any]], Awaitable[None]], buttons: int
) -> None:
    async with asking(tmp_path) as way:
        way.channels.of("team").script = [PermanentError("not now")]
        document = await way.ask(expiresAt=rfc3339(way.clock() + 60 * SECOND))
        (dead,) = await way.ended(1)
        await meanwhile(way, document)
        await way.app._services.replays.retry("acme", dead.id)
        await way.becomes(dead.id, State.SENT)
        sent = [one for one in way.channels.of("team").received if one.id == dead.id]
    assert [len(one.buttons) for one in sent] == [2, buttons]


# --- what counts -------------------------------------------------------------------------------------------


async def test_a_press_decides_as_the_person_whose_address_it_is(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        heard = await react(way, "U1", "approved", await ref_of(way))
        approval = await way.approval(document)
        assert way.metric("notifyd_reactions_total", outcome="recorded") == 1
    assert heard == ReactionReply(said("approved"), recorded=True)
    (decision,) = approval.decisions
    assert approval.status is Status.APPROVED
    assert (decision.actor, decision.via, decision.client) == (
        "alice@acme.example", Via.CHANNEL, "channel:team"
    )  # fmt: skip


async def test_a_rejection_asks_for_its_reason_and_counts_with_one(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        ref = await ref_of(way)
        asked = await react(way, "U1", "rejected", ref)
        assert asked == ReactionReply(said("reason"), asks_reason=True)
        assert (await way.approval(document)).status is Status.PENDING
        assert (await react(way, "U1", "rejected", ref, "not\x00 on Fridays")).recorded
        approval = await way.approval(document)
    assert (approval.status, approval.decisions[0].comment) == (Status.REJECTED, "not on Fridays")


async def test_a_quorum_is_told_how_far_it_is_and_a_second_press_changes_nothing(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask(requiredApprovals=2)
        ref = await ref_of(way)
        first = await react(way, "U1", "approved", ref)
        assert first.text == f"{said('approved')} 1 von 2 Freigaben liegen vor."
        again = await react(way, "U1", "approved", ref)
        assert again == ReactionReply(said("voted"))
        assert (await way.approval(document)).status is Status.PENDING
        assert (await react(way, "U2", "approved", ref)).recorded
        assert (await way.approval(document)).status is Status.APPROVED


async def test_a_deputy_answers_for_the_person_who_is_asked(tmp_path: Path) -> None:
    away = 'deputy = {to = "carol@acme.example", from = 2026-11-01, until = 2026-11-30}\n'
    text = TEXT.replace('locale = "de-CH"\n', away)
    async with asking(tmp_path, text) as way:
        document = await way.ask()
        assert (await react(way, "U3", "approved", await ref_of(way))).recorded
        (decision,) = (await way.approval(document)).decisions
    assert (decision.actor, decision.on_behalf_of) == ("carol@acme.example", "alice@acme.example")


@pytest.mark.parametrize(
    ("text", "deputy", "doubted"),
    [
        (PERSONAL, "bruno@acme.example", True),
        (PERSONAL, "dora@acme.example", True),
        (PERSONAL, "carol@acme.example", False),
        (TEXT, "bruno@acme.example", False),
    ],
)
def test_a_deputy_who_has_no_address_where_a_rule_asks_is_doubted(
    text: str, deputy: str, doubted: bool
) -> None:
    away = f'deputy = {{to = "{deputy}", from = 2026-11-01, until = 2026-11-30}}\n'
    read = settings(text.replace('locale = "de-CH"\n', away), answering())
    told = [one.message for one in doubts(read) if one.pointer.endswith('"alice@acme.example".deputy.to')]
    assert (
        told
        == ['has no address for direct in [recipients], so that rule "approvals" does not ask them'] * doubted
    )


async def test_a_person_answers_their_own_message(tmp_path: Path) -> None:
    async with asking(tmp_path, PERSONAL) as way:
        document = await way.ask()
        ref = await ref_of(way, "direct")
        heard = await react(way, "D3", "approved", ref, channel="direct")
        assert heard.text == said("other_person", "en")
        assert (await react(way, "D1", "approved", ref, channel="direct")).recorded
        assert (await way.approval(document)).decisions[0].actor == "alice@acme.example"


# --- what does not -----------------------------------------------------------------------------------------


async def test_an_address_of_nobody_is_refused_in_words_that_name_it(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        heard = await react(way, "U9", "approved", await ref_of(way))
        assert (await way.approval(document)).decisions == ()
        assert way.metric("notifyd_reactions_total", outcome="unknown") == 1
    assert heard == ReactionReply(said("unknown", "en").format(address="U9"))


@pytest.mark.parametrize(
    ("who", "action", "ref", "word"),
    [
        ("U3", "approved", None, "not_asked"),
        ("U1", "approved", "0" * 32, "gone"),
        ("U1", "approved", "", "gone"),
        ("U1", "approved", "half a \ud800 sign", "gone"),
        ("U1", "approved", "\x00", "gone"),
        ("U1", "approved", 7, "unclear"),
        ("", "approved", None, "unclear"),
        ("\ud800", "approved", None, "unclear"),
        ("U1", "expired", None, "unclear"),
        ("U1", 1, None, "unclear"),
    ],
)
async def test_what_is_not_asked_or_not_understood_counts_for_nothing(
    tmp_path: Path, who: str, action: Any, ref: str | None, word: str
) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        heard = await react(way, who, action, await ref_of(way) if ref is None else ref)
        assert (await way.approval(document)).decisions == ()
    assert heard.text in (said(word), said(word, "en"))
    assert not heard.recorded


async def test_a_reason_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        await way.ask()
        heard = await react(way, "U1", "rejected", await ref_of(way), "x" * 2001)
    assert heard.text == said("too_long", "en").format(limit=2000)


async def test_another_channel_vouches_for_nothing_here(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        heard = await react(way, "U1", "approved", await ref_of(way), channel="elsewhere")
        assert (await way.approval(document)).decisions == ()
    assert heard.text == said("gone")


async def test_who_asked_does_not_decide(tmp_path: Path) -> None:
    async with asking(tmp_path, TEXT.replace('"bruno@acme.example"]\n', '"ci@acme.example"]\n', 1)) as way:
        await way.ask(requestedBy="ci@acme.example")
        heard = await react(way, "U4", "approved", await ref_of(way))
    assert heard.text == said("own_request", "en")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (('name = "approvals"', 'name = "others"'), "not_asked"),
        (('"alice@acme.example", "bruno', '"carol@acme.example", "bruno'), "not_asked"),
        (("", ""), None),
        (("[recipients", '[approvals]\nlinks = "view"\n[recipients'), "page"),
    ],
)
async def test_what_the_configuration_says_when_it_is_pressed_holds(
    tmp_path: Path, change: tuple[str, str], word: str | None
) -> None:
    async with asking(tmp_path) as way:
        await way.ask()
        ref = await ref_of(way)
        assert await way.reload(TEXT.replace(*change, 1))
        heard = await react(way, "U1", "approved", ref)
    assert heard.recorded is (word is None)
    assert word is None or heard.text == said(word)


async def test_a_button_of_an_earlier_round_is_superseded(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        ref = await ref_of(way)
        way.turn(60)
        await way.ask(eventId="another", planHash="sha256:" + "b" * 64)
        assert (await react(way, "U1", "approved", ref)).text == said("superseded")
        assert (await way.approval(document)).decisions == ()


@pytest.mark.parametrize(
    ("end", "word"), [(Choice.APPROVED, "ended_approved"), (Choice.REJECTED, "ended_rejected")]
)
async def test_after_the_end_there_is_nothing_left_to_decide(tmp_path: Path, end: Choice, word: str) -> None:
    async with asking(tmp_path) as way:
        document = await way.ask()
        ref = await ref_of(way)
        await way.decide(document, choice=end, actor="bruno@acme.example")
        assert (await react(way, "U1", "approved", ref)).text == said(word)


async def test_a_press_past_the_expiry_is_too_late_whatever_the_timer_did(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        await way.ask()
        ref = await ref_of(way)
        way.clock.turn(8 * 86_400)
        assert (await react(way, "U1", "approved", ref)).text == said("ended_expired")


async def test_while_the_store_fails_the_answer_is_to_come_again(tmp_path: Path) -> None:
    async with asking(tmp_path) as way:
        await way.ask()
        ref = await ref_of(way)
        way.store.fail("answered")
        with pytest.raises(TransientError, match="nothing can be recorded now"):
            await react(way, "U1", "approved", ref)
        assert (await react(way, "U1", "approved", ref)).recorded
