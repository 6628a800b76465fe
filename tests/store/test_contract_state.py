"""What any store keeps for channels, and how it finds messages that are answered or changed later."""

from __future__ import annotations

from notifyd.store import ChannelState, Store
from tests.store.conftest import Reopen
from tests.store.makers import approval, delivery, insert


async def test_what_a_channel_keeps_is_there_after_a_restart_and_under_its_own_name_only(
    store: Store, reopen: Reopen
) -> None:
    first, other = ChannelState("team", "offset", "a.b.c"), ChannelState("ops", "offset", "d.e.f")
    for state in (ChannelState("team", "offset", "old"), first, other):
        assert await store.keep_channel_state(state)
    again = await reopen()
    assert await again.channel_state("team", "offset") == first
    assert await again.channel_state("team", "token") is None
    assert await again.channel_state("none", "offset") is None
    assert sorted(await again.channel_states(), key=lambda one: one.channel) == [other, first]


async def test_what_is_let_go_is_gone_and_no_other(store: Store) -> None:
    for name in ("offset", "token"):
        await store.keep_channel_state(ChannelState("team", name, "a.b.c"))
    await store.drop_channel_state("team", "offset")
    await store.drop_channel_state("team", "never")
    assert [one.name for one in await store.channel_states()] == ["token"]


async def test_it_is_changed_only_where_it_is_as_it_was_read_if_that_is_asked(store: Store) -> None:
    await store.keep_channel_state(ChannelState("team", "offset", "new"))
    assert not await store.keep_channel_state(ChannelState("team", "offset", "late"), before="old")
    assert not await store.keep_channel_state(ChannelState("team", "gone", "late"), before="old")
    assert await store.keep_channel_state(ChannelState("team", "offset", "newer"), before="new")
    (kept,) = await store.channel_states()
    assert kept.sealed == "newer"


async def test_a_message_is_found_by_what_its_answers_call_it_whosever_it_is(store: Store) -> None:
    await insert(
        store, delivery("d1", answer_ref="a" * 32), delivery("d2", tenant="globex", answer_ref="b" * 32)
    )
    await insert(store, delivery("d3"))
    found = await store.answered("b" * 32)
    assert found is not None
    assert (found.tenant, found.id, found.answer_ref) == ("globex", "d2", "b" * 32)
    assert await store.answered("c" * 32) is None


async def test_the_messages_of_an_approval_that_can_be_changed_are_told_newest_first(store: Store) -> None:
    key = approval(run_id="r1").key
    of = {"run_id": key.run_id, "approval_id": key.approval_id}
    await insert(store, delivery("d1", answer_ref="1" * 32, **of), delivery("plain", **of))
    await insert(store, delivery("d2", answer_ref="2" * 32, **of), delivery("edit", edits="d1", **of))
    await insert(store, delivery("other", answer_ref="3" * 32, **of | {"run_id": "r2"}))
    await insert(store, delivery("theirs", tenant="globex", answer_ref="4" * 32, **of))
    assert [one.id for one in await store.copies(key)] == ["d2", "d1"]
