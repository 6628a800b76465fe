"""The channel whose pages are answered: each has buttons, tells the end, and the vendor says who pressed what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from attrs import evolve

from notifyd.plugin import Inbox, Message, Reaction, Receipt, TransientError, one_line
from notifyd_pager.channel import PagerChannel, PagerConfig, payload

WAIT = 5
"""Seconds for which the vendor holds a question that has no answer yet: fewer than a channel's `timeout`."""
NONE_YET = 204


class DutyChannel(PagerChannel):
    async def send(self, message: Message) -> Receipt:
        """The vendor numbers the page; notifyd keeps the number with the delivery."""
        answer = await self.call("", page(message, self._config))
        return evolve(self.checked(answer), ref=one_line(str(answer.json.get("page") or "")))

    async def edit(self, ref: str, message: Message) -> Receipt:
        """Put `message` in the place of the page. Raises as `send` does."""
        return self.checked(await self.call(f"/{quote(ref, safe='')}", page(message, self._config)))

    async def listen(self, inbox: Inbox) -> None:
        """Ask for the next answer, for ever. Where it stands is kept, so that a restart loses none."""
        seen = await self._context.state.get("seen") or ""
        while True:
            answer = await self.call("/answers", {"after": seen, "wait": WAIT})
            self.checked(answer)
            if answer.status != NONE_YET:
                seen = await self._take(answer.json, inbox)
                await self._context.state.set("seen", seen)

    async def _take(self, told: Mapping[str, Any], inbox: Inbox) -> str:
        """Hand it in, and tell whoever answered what became of it. The id of the answer."""
        try:
            number = str(told["id"])
            reaction = Reaction(str(told["by"]), str(told["action"]), str(told["ref"]), str(told["reason"]))
        except KeyError as error:  # not asked for again at once: notifyd waits before it calls `listen` anew
            raise TransientError(f"the vendor's answer has no {error}") from None
        reply = await inbox(reaction)
        await self.call(f"/answers/{quote(number, safe='')}", {"text": reply.text})
        return number


def page(message: Message, config: PagerConfig) -> dict[str, object]:
    """The page with its buttons; without any, once the end is told."""
    buttons = [
        {"label": button.label, "action": button.action, "ref": button.ref} for button in message.buttons
    ]
    return payload(message, config.team) | {"buttons": buttons}
