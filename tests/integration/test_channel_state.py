"""What a channel keeps: sealed, its own, there after a restart, and moved to the first key by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from notifyd.errors import ConfigError, StoreError, TransientError
from notifyd.plugin import ChannelContext, ChannelType, MemoryState, Message, Receipt, State, hookimpl
from notifyd.security.secrets import sealed_under
from tests.daemon import CONFIG, Daemon, daemon
from tests.fakes import Channels, NoOptions, registry
from tests.flows import flow
from tests.integration.test_seal_keys import NEW, OLD, sealing_with

KEEPER = (
    CONFIG
    + """
[channels.keeper]
type = "keeper"

[channels.other]
type = "keeper"
"""
)
SECRET = "an OAuth token"
pytestmark = pytest.mark.usefixtures("templates_once")


@define(eq=False)
class Keepers:
    """A plugin whose channels keep things; their contexts by name."""

    states: dict[str, State] = field(factory=dict)

    @hookimpl
    def notifyd_channel_types(self) -> list[ChannelType]:
        return [ChannelType("keeper", NoOptions, self.open)]

    def open(self, _config: object, context: ChannelContext) -> Any:
        self.states[context.name] = context.state
        return self

    async def send(self, message: Message) -> Receipt:
        return Receipt()

    async def aclose(self) -> None:
        """Nothing is open."""


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("notifyd.db*"))


async def kept_under(notifyd: Daemon) -> set[str]:
    return {sealed_under(one.sealed) for one in await notifyd.app._store.channel_states()}


async def test_what_is_kept_is_there_after_a_restart_sealed_and_no_other_channels(tmp_path: Path) -> None:
    for _ in range(2):
        keepers = Keepers()
        async with daemon(tmp_path, KEEPER, extra=[keepers]):
            mine, other = keepers.states["keeper"], keepers.states["other"]
            if await mine.get("token") is None:
                await mine.set("token", SECRET)
            else:
                assert await mine.get("token") == SECRET
                await mine.delete("token")
                assert await mine.get("token") is None
            assert await other.get("token") is None
            assert SECRET.encode() not in on_disk(tmp_path)


async def test_it_moves_to_a_new_first_key_and_a_key_that_it_needs_is_not_dropped(tmp_path: Path) -> None:
    keepers = Keepers()
    async with daemon(tmp_path, KEEPER, extra=[keepers]):
        await keepers.states["keeper"].set("token", SECRET)
    with pytest.raises(ConfigError, match="channel states: 1"):
        async with daemon(tmp_path, sealing_with(NEW, text=KEEPER), extra=[Keepers()]):
            raise AssertionError
    async with daemon(tmp_path, sealing_with(NEW, OLD, text=KEEPER), extra=[Keepers()]) as notifyd:
        assert await kept_under(notifyd) == {notifyd.app.registry().keyring.sealing_id}
    keepers = Keepers()
    async with daemon(tmp_path, sealing_with(NEW, text=KEEPER), extra=[keepers]):
        assert await keepers.states["keeper"].get("token") == SECRET


async def test_what_was_given_up_with_its_key_is_not_there_any_more(tmp_path: Path) -> None:
    keepers = Keepers()
    async with daemon(tmp_path, KEEPER, extra=[keepers]):
        await keepers.states["keeper"].set("token", SECRET)
    text = sealing_with(NEW, text=KEEPER)
    async with daemon(tmp_path, text, extra=[keepers], abandon_sealed=True):
        assert await keepers.states["keeper"].get("token") is None
        await keepers.states["keeper"].set("token", "another")
        assert await keepers.states["keeper"].get("token") == "another"


async def test_a_store_that_fails_and_one_that_is_not_there_yet_are_transient(tmp_path: Path) -> None:
    channels, keepers = Channels(), Keepers()
    channels.more["keeper"] = ChannelType("keeper", NoOptions, keepers.open)
    text = '[channels.keeper]\ntype = "keeper"'
    async with registry(text, channels):
        with pytest.raises(TransientError, match="once the service runs"):
            await keepers.states["keeper"].get("token")
    async with flow(tmp_path, text, channels=channels) as way:
        for step, call in (
            ("channel_state", keepers.states["keeper"].get("token")),
            ("keep_channel_state", keepers.states["keeper"].set("token", "x")),
            ("drop_channel_state", keepers.states["keeper"].delete("token")),
        ):
            way.store.fail(step)
            with pytest.raises(TransientError) as caught:
                await call
            assert isinstance(caught.value.__cause__, StoreError)


async def test_a_channel_of_another_type_is_not_given_what_one_of_its_name_has_kept(tmp_path: Path) -> None:
    channels, keepers = Channels(), Keepers()
    for type_ in ("keeper", "vault"):
        channels.more[type_] = ChannelType(type_, NoOptions, keepers.open)
    text = '[channels.keeper]\ntype = "keeper"'
    async with flow(tmp_path, text, channels=channels) as way:
        await keepers.states["keeper"].set("token", SECRET)
        assert await way.reload(text.replace('"keeper"', '"vault"'))
        assert await keepers.states["keeper"].get("token") is None
        assert await way.reload("")  # the channel is gone for a while
        assert await way.reload(text)
        assert await keepers.states["keeper"].get("token") == SECRET


async def test_a_channel_has_so_many_names_and_no_more_wherever_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.plugin._STATES", 2)
    async with daemon(tmp_path, KEEPER, extra=[keepers := Keepers()]):
        await keepers.states["other"].set("z", "beside them")
        for state in (keepers.states["keeper"], MemoryState()):
            for name in ("a", "b"):
                await state.set(name, SECRET)
            with pytest.raises(ValueError, match="'c' is one too many: the channel has 2") as caught:
                await state.set("c", SECRET)
            assert SECRET not in str(caught.value)
            await state.set("a", "anew")
            await state.delete("b")
            await state.set("c", "in its place")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a b", 7, None, b"token"])
async def test_a_name_and_a_value_have_their_bounds_wherever_they_are_kept(name: Any, tmp_path: Path) -> None:
    state = MemoryState()
    with pytest.raises(ValueError, match="is no name of a state"):
        await state.set(name, "x")
    with pytest.raises(ValueError, match="larger than 16 KiB"):
        await state.set("token", "\u00fc" * 8193)
    for odd in (None, 7, SECRET.encode(), {"token": SECRET}, f"{SECRET} \ud800"):
        with pytest.raises(ValueError, match="the state 'token'") as caught:
            await state.set("token", odd)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)
    await state.set("token", "\u00fc" * 8192)
    await state.delete("token")
    assert await state.get("token") is None
