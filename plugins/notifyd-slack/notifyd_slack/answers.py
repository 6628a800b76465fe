"""What people do with the bot's messages: buttons pressed, and a dialog for the reason.

Vendor's rules: https://docs.slack.dev/interactivity/handling-user-interaction (an answer within 3 s, `trigger_id`
for as long), https://docs.slack.dev/reference/interaction-payloads/block_actions-payload,
https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload (`view_submission`),
https://docs.slack.dev/surfaces/modals (`response_action` with `errors`),
https://docs.slack.dev/reference/views/modal-views (24 characters for title and button),
https://docs.slack.dev/reference/block-kit/block-elements/plain-text-input-element (3000 characters),
https://docs.slack.dev/reference/methods/chat.postEphemeral.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from notifyd.plugin import (
    ChannelContext,
    Inbox,
    PermanentError,
    Reaction,
    ReactionReply,
    TransientError,
    clean,
    fit,
)
from notifyd_slack.config import SlackConfig, is_channel, is_member
from notifyd_slack.payload import TEXT_LIMIT, action_id_of, escape, plain
from notifyd_slack.web_api import call, checked

HEARD_WITHIN: Final = 1.5
"""Seconds that recording may take. Slack waits for 3, and tells the person then that it did not work."""
TOLD_WITHIN: Final = 1.0
"""Seconds that telling may take: both together are less than the 3 for which a dialog can be opened."""
TITLE_LIMIT: Final = 24
LABEL_LIMIT: Final = 2000
ERROR_LIMIT: Final = 300
REASON_LIMIT: Final = 3000

_ACTIONS: Final = {action_id_of(action): action for action in ("approved", "rejected")}
_MESSAGE_REF: Final = re.compile("[0-9a-f]{32}")
_REASON: Final = "reason"
"""The name of the dialog, of its one block and of the element in that."""


@frozen
class Act:
    """What somebody did. `channel` is the conversation where; `label` what stands on the button; `trigger` opens a
    dialog; `in_dialog` says that it was done in one."""

    reaction: Reaction
    channel: str
    label: str = ""
    trigger: str = ""
    in_dialog: bool = False


class Answers:
    """Hands in what an interaction says, and tells whoever did it what became of it."""

    def __init__(self, config: SlackConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def hear(self, act: Act, inbox: Inbox) -> ReactionReply:
        """Raises `TransientError` where it cannot be recorded in time: then Slack is to say so."""
        try:
            async with asyncio.timeout(HEARD_WITHIN):
                return await inbox(act.reaction)
        except TimeoutError:
            raise TransientError(f"nothing was recorded within {HEARD_WITHIN:g} s") from None

    async def tell(self, act: Act, reply: ReactionReply) -> None:
        """Ask for a reason in a dialog, or answer where the message is, seen by that person only. Never raises."""
        if act.in_dialog and not reply.recorded:
            return  # the dialog says it
        try:
            async with asyncio.timeout(TOLD_WITHIN):
                asked = reply.asks_reason and await self._ask(act, reply)
                if not asked:
                    await self._say(act, reply.text)
        except TimeoutError:
            self._context.logger.warning("Slack takes too long to tell somebody what became of their answer")

    async def _ask(self, act: Act, reply: ReactionReply) -> bool:
        view = {"trigger_id": act.trigger, "view": dialog(act, reply.text)}
        return bool(act.trigger) and await self._call("views.open", view)

    async def _say(self, act: Act, text: str) -> None:
        shown = fit(text, TEXT_LIMIT)
        blocks = [{"type": "section", "text": plain(shown, TEXT_LIMIT)}]
        body = {"channel": act.channel, "user": act.reaction.actor_ref, "blocks": blocks}
        await self._call("chat.postEphemeral", body | {"text": escape(shown)})

    async def _call(self, method: str, body: Mapping[str, Any]) -> bool:
        """Did Slack take it? What was decided stands, whether it could be told or not."""
        try:
            answer = await call(self._config, self._context, method, body, self._config.bot_token)
            checked(answer, self._context)
        except (TransientError, PermanentError) as error:
            self._context.logger.warning("Slack does not take %s: %s", method, error)
            return False
        return True


def dialog(act: Act, question: str) -> dict[str, Any]:
    """The view that asks for a reason. It hands back which message it is about; who answers, Slack says."""
    label = fit(act.label, TITLE_LIMIT) or "…"
    told = {"ref": act.reaction.ref, "action": act.reaction.action, "channel": act.channel}
    element = {
        "type": "plain_text_input",
        "action_id": _REASON,
        "multiline": True,
        "max_length": REASON_LIMIT,
    }
    return {
        "type": "modal",
        "callback_id": _REASON,
        "private_metadata": json.dumps(told),
        "title": plain(label, TITLE_LIMIT),
        "submit": plain(label, TITLE_LIMIT),
        "blocks": [
            {"type": "input", "block_id": _REASON, "label": plain(question, LABEL_LIMIT), "element": element}
        ],
    }


def response(act: Act, reply: ReactionReply) -> dict[str, Any]:
    """What Slack is answered: nothing, which also closes a dialog, or what the dialog is to say."""
    if not act.in_dialog or reply.recorded:
        return {}
    return {"response_action": "errors", "errors": {_REASON: fit(reply.text, ERROR_LIMIT) or "…"}}


def act_of(interaction: Mapping[str, Any]) -> Act | None:
    """What an interaction says; None where it is no decision, such as a link that was followed."""
    kind = interaction.get("type")
    found = None
    if kind == "block_actions":
        found = _pressed(interaction)
    elif kind == "view_submission":
        found = _submitted(interaction)
    if found is None or not _is_plausible(found):
        return None
    return found


def _is_plausible(act: Act) -> bool:
    known = act.reaction.action in _ACTIONS.values() and _MESSAGE_REF.fullmatch(act.reaction.ref)
    return bool(known) and is_member(act.reaction.actor_ref) and is_channel(act.channel)


def _pressed(interaction: Mapping[str, Any]) -> Act | None:
    actions = interaction.get("actions")
    pressed = actions[0] if isinstance(actions, list) and actions else None
    if not isinstance(pressed, Mapping):
        return None
    action = _ACTIONS.get(_text(pressed, "action_id"), "")
    return Act(
        Reaction(_actor(interaction), action, _text(pressed, "value")),
        channel=_text(object_in(interaction, "channel"), "id"),
        label=clean(_text(object_in(pressed, "text"), "text")),
        trigger=_text(interaction, "trigger_id"),
    )


def _submitted(interaction: Mapping[str, Any]) -> Act | None:
    view = object_in(interaction, "view")
    if view.get("callback_id") != _REASON:
        return None
    told = read_object(_text(view, "private_metadata"))
    values = object_in(object_in(view, "state"), "values")
    given = _text(object_in(object_in(values, _REASON), _REASON), "value")
    reaction = Reaction(_actor(interaction), _text(told, "action"), _text(told, "ref"), clean(given).strip())
    return Act(reaction, channel=_text(told, "channel"), in_dialog=True)


def _actor(interaction: Mapping[str, Any]) -> str:
    return _text(object_in(interaction, "user"), "id")


def read_object(text: str | bytes) -> Mapping[str, Any]:
    """A JSON object; an empty one where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def object_in(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is none."""
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) else ""
