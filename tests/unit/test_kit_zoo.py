"""Every broken channel of the zoo fails the test that is there to tell, and the sound one fails none."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from blockbuster import BlockingError

from notifyd.plugin import ChannelType, hookimpl
from notifyd.testing import HttpConformance, Received
from notifyd.testkit.plugins import plugin_of
from tests.unit import kit_zoo as zoo
from tests.unit.kit_zoo import Hasty, Kit, Sound, kind_of


class TestSound(Kit):
    channel_type: ClassVar[ChannelType] = kind_of(Sound, rate_limit="1/s")


class Markup(Kit):
    """Reads HTML, as the vendor shows it."""

    def readable(self, received: Received) -> str:
        return re.sub(r"<[^>]*>", "", super().readable(received))


RECEIPT = HttpConformance.test_it_takes_a_message_and_gives_a_receipt
WHOLE = HttpConformance.test_all_of_a_message_reaches_the_reader
SAME = HttpConformance.test_the_same_message_is_sent_as_the_same_bytes
EARLIER = HttpConformance.test_what_is_sent_depends_on_no_earlier_message
AT_ONCE = HttpConformance.test_sends_at_once_do_not_mix
UNCHANGED = HttpConformance.test_it_changes_nothing_of_the_message
HOSTILE = HttpConformance.test_hostile_text_reaches_the_reader_and_breaks_nothing
MARKUP = HttpConformance.test_markup_in_a_text_is_shown_and_not_obeyed
CUT = HttpConformance.test_a_long_text_is_cut_between_characters
HUGE = HttpConformance.test_a_message_may_be_empty_or_huge
CONTENT_TYPE = HttpConformance.test_what_is_sent_is_what_its_content_type_says
KEY = HttpConformance.test_a_key_against_repeats_is_the_messages_own
STATUS = HttpConformance.test_the_status_decides_on_a_retry
ONCE = HttpConformance.test_a_failed_send_was_one_attempt
GONE = HttpConformance.test_an_unreachable_receiver_is_transient
CUT_OFF = HttpConformance.test_a_receiver_that_hangs_up_is_transient
NEVER = HttpConformance.test_an_answer_that_never_comes_is_transient
WAIT = HttpConformance.test_it_waits_as_long_as_the_receiver_asks
DATE = HttpConformance.test_a_wait_until_a_date_is_understood
SHAPES = HttpConformance.test_an_answer_of_another_shape_is_judged_by_its_status
REDIRECT = HttpConformance.test_a_redirect_is_not_followed
ENDLESS = HttpConformance.test_an_answer_without_end_is_not_read_to_its_end
SESSION = HttpConformance.test_it_sends_through_the_session_of_its_context
CANCELLED = HttpConformance.test_a_send_that_is_cancelled_ends_at_once
IN_TIME = HttpConformance.test_it_opens_and_closes_in_time
TWICE = HttpConformance.test_it_may_be_closed_twice
BEHIND = HttpConformance.test_it_leaves_nothing_behind
WELL = HttpConformance.test_nothing_shows_a_secret_where_all_goes_well
FAILED = HttpConformance.test_no_failure_shows_a_secret
SECRET = HttpConformance.test_what_is_secret_has_the_type_of_a_secret
SHAPE = HttpConformance.test_its_type_has_the_documented_shape
FROZEN = HttpConformance.test_its_config_is_frozen
OPENS = HttpConformance.test_it_opens_as_a_channel
TAKEN = HttpConformance.test_the_daemon_takes_its_plugin

BROKEN: list[tuple[Any, Any, str]] = [
    (zoo.LosesTheTitle, RECEIPT, "the title does not reach"),
    (zoo.LosesTheBody, WHOLE, "of the body this is lost"),
    (zoo.LosesTheSecondParagraph, WHOLE, r"lost: \['Three replicas"),
    (zoo.LosesTheLink, WHOLE, "of the actions this is lost"),
    (zoo.LosesTheSecondLink, WHOLE, "of the actions this is lost"),
    (zoo.LosesTheFields, WHOLE, "of the fields this is lost"),
    (zoo.LosesTheFieldsOfOneName, WHOLE, "of the fields this is lost"),
    (zoo.LosesTheNamesOfFields, WHOLE, r"lost: \['Heron', 'Heron', 'Lynx'\]"),
    (zoo.LosesTheLastField, WHOLE, r"lost: \['Lynx', 'badger'\]"),
    (zoo.LosesTheValuesOfFields, WHOLE, r"lost: \['otter', 'weasel', 'badger'\]"),
    (zoo.CutsTheBody, WHOLE, "of the body this is lost"),
    (zoo.TriesAgainWhenThrottled, ONCE, "at 429 it tried 2 times"),
    (zoo.TriesAgainWhenRefused, ONCE, "at 404 it tried 2 times"),
    (zoo.TriesAgainWhenCutOff, CUT_OFF, "it tried 2 times"),
    (zoo.CountsInItsModule, EARLIER, "is sent otherwise after another"),
    (zoo.CountsInItsClass, EARLIER, "is sent otherwise after another"),
    (zoo.SendsEachOnce, STATUS, "led to None"),
    (zoo.HasANonceInAHeader, SAME, "differ in their x-nonce"),
    (zoo.TellsTheWeekday, SAME, "differ in their "),
    (zoo.TellsTheHour, SAME, "differ in their "),
    (zoo.LogsInTwiceBase64, WELL, "a secret is shown"),
    (zoo.LogsAsBytes, WELL, "a secret is shown"),
    (zoo.WritesToTheDescriptor, RECEIPT, r"Blocking call to os\.write"),
    (zoo.TellsTheContextsTime, SAME, "differ in their body"),
    (zoo.TellsTheMachinesTime, SAME, "differ in their body"),
    (zoo.TellsTheDay, SAME, "differ in their body"),
    (zoo.HasANonce, SAME, "differ in their body"),
    (zoo.HasANonceInItsAddress, SAME, "differ in their path"),
    (zoo.HasAKeyOfTheAttempt, SAME, "differ in their idempotency-key"),
    (zoo.HasOneKeyForAll, KEY, "have one idempotency-key"),
    (zoo.HasAKeyOfTheTitle, KEY, "have one idempotency-key"),
    (zoo.Counts, EARLIER, "is sent otherwise after another"),
    (zoo.RepliesToTheLast, EARLIER, "is sent otherwise after another"),
    (zoo.MixesWhatIsSentAtOnce, AT_ONCE, "lost or mixed"),
    (zoo.MarksTheMessage, UNCHANGED, "changed the message"),
    (zoo.BreaksOnSurrogates, HOSTILE, "surrogates not allowed"),
    (zoo.TakesTextForAFormat, HOSTILE, "format"),
    (zoo.RefusesWhatIsLong, HUGE, "too long"),
    (zoo.SendsMarkup, MARKUP, "see something else"),
    (zoo.CutsACharacter, CUT, "cut inside a character"),
    (zoo.CutsAnEntity, CUT, "cut inside a character"),
    (zoo.SendsTwice, RECEIPT, "2 things were sent"),
    (zoo.SendsLatin, CONTENT_TYPE, "is not in utf-8"),
    (zoo.CallsJsonAForm, CONTENT_TYPE, "is JSON, and its content type"),
    (zoo.CallsAFormJson, CONTENT_TYPE, "is no JSON, and its content type"),
    (zoo.GivesNothing, RECEIPT, "gave NoneType"),
    (zoo.GivesANumberForARef, RECEIPT, "ref is not a text"),
    (zoo.GivesALongRef, RECEIPT, "ref is not a text"),
    (zoo.GivesARefOfTwoLines, RECEIPT, "ref is not a text"),
    (zoo.NeverGivesUp, STATUS, "must lead to"),
    (zoo.GivesUpAtOnce, STATUS, "must lead to"),
    (zoo.GivesUpAtOnce, GONE, "a refused connection led to"),
    (zoo.GivesUpAtOnce, CUT_OFF, "a connection cut before"),
    (zoo.GivesUpAtOnce, NEVER, "timeout led to"),
    (zoo.GivesUpAtOnce, WAIT, "being asked to wait led to"),
    (zoo.IsAlwaysContent, STATUS, "led to None"),
    (zoo.LetsGo, STATUS, "led to None"),
    (zoo.TriesAgain, ONCE, "it tried"),
    (zoo.TriesAgainLater, ONCE, "it tried 2 times"),
    (zoo.ForgetsTheWait, WAIT, "not in retry_after"),
    (zoo.ReadsSecondsOnly, DATE, "must be a wait of 7.0 seconds"),
    (zoo.ReadsWhatIsDocumented, SHAPES, "send raised"),
    (zoo.Follows, REDIRECT, "a redirect led to|was followed"),
    (zoo.HasASessionOfItsOwn, SESSION, "does not send through"),
    (zoo.LeavesItsSessionOpen, BEHIND, "open descriptors"),
    (zoo.SwallowsCancellation, CANCELLED, "swallowed its cancellation"),
    (zoo.TidiesUp, CANCELLED, "or went on"),
    (zoo.Shields, CANCELLED, "goes on in a task of its own"),
    (zoo.SleepsInSend, RECEIPT, r"Blocking call to time\.sleep"),
    (zoo.ReadsAFileInSend, RECEIPT, "Blocking call to "),
    (zoo.ConnectsInSend, RECEIPT, r"Blocking call to .*connect"),
    (zoo.SleepsInOpen, IN_TIME, r"Blocking call to time\.sleep"),
    (zoo.SleepsInClose, IN_TIME, r"Blocking call to time\.sleep"),
    (zoo.Prints, WELL, "a secret is shown"),
    (zoo.PrintsToStderr, WELL, "a secret is shown"),
    (zoo.Warns, WELL, "a secret is shown"),
    (zoo.LogsInBase64, WELL, "a secret is shown"),
    (zoo.LogsInUrlsafeBase64, WELL, "a secret is shown"),
    (zoo.LogsInHex, WELL, "a secret is shown"),
    (zoo.LogsUrlEncoded, WELL, "a secret is shown"),
    (zoo.LogsInTwoRecords, WELL, "a secret is shown"),
    (zoo.LogsAsExtra, WELL, "a secret is shown"),
    (zoo.LogsWhereNobodyLooks, WELL, "a secret is shown"),
    (zoo.LogsTheLink, WELL, "a link that decides is shown"),
    (zoo.LogsTheAddress, WELL, "a secret is shown"),
    (zoo.TellsInTheReceipt, WELL, "a secret is shown"),
    (zoo.FailsWithItsUrl, FAILED, "a secret is shown"),
    (zoo.FailsWithArguments, FAILED, "a secret is shown"),
    (zoo.FailsWithARepr, FAILED, "a secret is shown"),
    (zoo.FailsWithANote, FAILED, "a secret is shown"),
    (zoo.FailsWithAnExcerptInBase64, FAILED, "a secret is shown"),
    (zoo.FailsWithItsCause, FAILED, "a secret is shown"),
    (zoo.ShowsTheAnswer, FAILED, "a secret is shown"),
    (zoo.LeavesAThread, BEHIND, "running threads"),
    (zoo.LeavesATask, BEHIND, "running tasks"),
    (zoo.LeavesAFile, BEHIND, "open descriptors"),
    (zoo.ClosesTheDaemonsSession, TWICE, "closed the context's session"),
    (zoo.ClosesOnce, TWICE, "closed already"),
    (zoo.SetsTheEnvironment, BEHIND, "shares: environment"),
    (zoo.SetsATimeout, BEHIND, "shares: socket timeout"),
    (zoo.TakesASignal, BEHIND, "shares: signals"),
    (zoo.SilencesTheLog, BEHIND, "shares: logging disabled"),
    (kind_of(zoo.Reveals, zoo.PlainToken), SECRET, r"\['token'\]"),
    (kind_of(zoo.Reveals, zoo.PlainUrl), SECRET, r"\['url'\]"),
    (kind_of(zoo.Reveals, zoo.PlainTokens), SECRET, r"\['api_keys'\]"),
    (kind_of(zoo.Sound, zoo.Disguised), SECRET, r"\['workspace'\]"),
    (kind_of(zoo.Sound, zoo.Mutable), FROZEN, "DID NOT RAISE"),
    (ChannelType("Bad Name", zoo.Config, Sound), SHAPE, "not lower-case words"),
    (ChannelType("kept", dict, Sound), SHAPE, "not an attrs class"),
    (kind_of(Sound, zoo.Greedy), SHAPE, "these options already: timeout"),
    (kind_of(Sound, rate_limit="often"), SHAPE, "not such as '1/s'"),
    (kind_of(Sound, zoo.Odd), TAKEN, "the daemon refuses it"),
    (ChannelType("slack", zoo.Config, Sound), TAKEN, "notifyd-slack"),
    (kind_of(zoo.CannotSend), OPENS, "without send"),
    (kind_of(zoo.SendsWithoutAwaiting), OPENS, "send is not an async function"),
    (kind_of(Sound, answers=True), OPENS, "neither listen nor receive"),
]

HANGING: list[tuple[Any, Any, str]] = [
    (zoo.opens_never, IN_TIME, "open has not ended"),
    (zoo.opens_and_turns, IN_TIME, "open holds the event loop"),
    (zoo.ClosesNever, IN_TIME, "aclose has not ended"),
    (zoo.ClosesAndTurns, IN_TIME, "aclose holds the event loop"),
    (zoo.SendsNever, RECEIPT, "send has not ended"),
    (zoo.SendsAndTurns, RECEIPT, "send holds the event loop"),
    (zoo.ReadsItAll, ENDLESS, "send has not ended"),
]


@pytest_asyncio.fixture
async def undone() -> AsyncIterator[None]:
    """What the process shares is as it was, after a channel has changed it."""
    try:
        yield
    finally:
        os.environ.pop("KEPT_URL", None)
        socket.setdefaulttimeout(None)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        logging.disable(logging.NOTSET)
        while zoo.LeavesItsSessionOpen.left:
            await zoo.LeavesItsSessionOpen.left.pop().close()


async def is_told(kit: Kit, test: Any, complaint: str) -> None:
    with pytest.raises((pytest.fail.Exception, Exception), match=complaint):
        await test(kit)


def named(value: Any) -> str:
    return str(getattr(value, "__name__", None) or getattr(value, "name", None) or "")


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize(("broken", "test", "complaint"), BROKEN, ids=named)
async def test_the_kit_tells(broken: Any, test: Any, complaint: str) -> None:
    kind = broken if isinstance(broken, ChannelType) else kind_of(broken)
    kit = (Markup if broken is zoo.SendsMarkup else Kit).of(kind)
    await is_told(kit, test, complaint)


@pytest.mark.parametrize(("broken", "test", "complaint"), HANGING, ids=named)
async def test_the_kit_does_not_hang_with(broken: Any, test: Any, complaint: str) -> None:
    await is_told(Hasty.of(kind_of(broken)), test, complaint)


async def test_the_kit_does_not_hang_with_what_is_deaf_to_its_cancellation() -> None:
    await is_told(Hasty.of(kind_of(zoo.ClosesNeverAndIsDeaf)), IN_TIME, "aclose has not ended")
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("plugin", zoo.PLUGINS)
async def test_the_kit_tells_of_a_plugin_with(plugin: str) -> None:
    kit = Kit.of(kind_of(Sound))
    kit.hooks, complaint = zoo.PLUGINS[plugin]  # type: ignore[misc]
    await is_told(kit, TAKEN, complaint)


async def test_the_zoo_has_every_test_of_the_kit_at_work() -> None:
    tests = {
        name for name in vars(HttpConformance) | vars(HttpConformance.__mro__[1]) if name.startswith("test_")
    }
    told = {test.__name__ for _, test, _ in BROKEN + HANGING}
    assert tests - told == {"test_of_a_long_answer_only_the_beginning_is_kept"}


async def test_sends_at_once_leave_nothing_patched_behind() -> None:
    before = time.sleep
    await AT_ONCE(Kit.of(kind_of(Sound)))
    assert time.sleep is before


async def test_the_kit_names_the_call_that_blocks() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        await RECEIPT(Kit.of(kind_of(zoo.SleepsInSend)))


async def test_a_module_that_brings_the_hooks_names_alone_is_not_the_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin, below = ModuleType("starred"), ModuleType("starred.channel")
    vars(plugin)["notifyd_channel_types"] = hookimpl(lambda: [kind_of(Sound)])
    exec("from notifyd.plugin import *", vars(below))  # noqa: S102 - as the module of a stranger begins
    for module in (plugin, below):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    config = type("Config", (zoo.Config,), {"__module__": below.__name__})
    assert plugin_of(kind_of(Sound, config)) is plugin
