"""What notifyd sends, signed by its own key: webhooks and callbacks, verified with what it publishes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from joserfc.jwk import OKPKey

from notifyd.errors import ConfigError
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, verify
from tests.daemon import CONFIG, SECRETS, Daemon, Inbox, daemon, discovered_with, settings
from tests.sinks import HttpSink, Received

OLD, NEW = ("whsk_" + base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


def config(url: str, *keys: str) -> str:
    hook = f'\n[channels.hook]\ntype = "webhook"\nurl = "{url}"\n'
    rule = '\n[[rules]]\nname = "hook"\nwhen = \'event.action == "requested"\'\nchannels = ["hook"]\n'
    text = CONFIG.replace("[keys]", f"[keys]\nsign = {list(keys)}").replace("http://127.0.0.1:9", url)
    return text + hook + rule


def signed_by(keys: Iterable[Mapping[str, Any]], request: Received) -> list[str]:
    """The ids of the published keys that have signed a request."""
    told = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    offered = [one.partition(",") for one in request.headers["webhook-signature"].split(" ")]
    made = [base64.b64decode(text, validate=True) for version, _, text in offered if version == "v1a"]
    found = []
    for key in keys:
        public: Any = OKPKey.import_key(dict(key)).public_key
        for signature in made:
            try:
                public.verify(signature, told)
                found.append(str(key["kid"]))
            except InvalidSignature:
                continue
    assert len(found) == len(made)
    return found


async def decided(notifyd: Daemon, url: str) -> None:
    document = await notifyd.ask(
        resume={"callbackUrl": f"{url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    )
    path = "/notifications/pack-approvals/{runId}/{approvalId}/ack".format_map(document)
    answer = await notifyd.post(
        path, {"decision": "approved", "planHash": document["planHash"]}, "task-runner"
    )
    assert answer.status == 200, answer.text


async def test_webhooks_and_callbacks_verify_with_the_published_key(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon(tmp_path, config(sink.url, OLD)) as notifyd:
        await decided(notifyd, sink.url)
        (hook,) = await sink.wait(1, lambda one: one.path == "/")
        (callback,) = await sink.wait(1, lambda one: one.path == "/resume")
        published = (await notifyd.get("/.well-known/notifyd/jwks.json", None)).json["keys"]
        assert len(published) == 1
        for request in (hook, callback):
            assert signed_by(published, request) == [published[0]["kid"]]
        runner = secret_bytes(SECRETS["task-runner"])
        verify([runner], callback.headers, callback.body, int(callback.headers["webhook-timestamp"]), 1)


async def test_a_callback_verifies_with_each_secret_of_its_client_while_one_is_replaced(
    tmp_path: Path,
) -> None:
    new = SECRETS["outsider"]
    both = config("http://x", OLD).replace(
        'hmac_secrets = ["${SECRET_TASK_RUNNER}"]',
        f'hmac_secrets = ["${{SECRET_TASK_RUNNER}}", "{new.reveal()}"]',
    )
    async with HttpSink() as sink, daemon(tmp_path, both.replace("http://x", sink.url)) as notifyd:
        await decided(notifyd, sink.url)
        (callback,) = await sink.wait(1, lambda one: one.path == "/resume")
        for secret in (SECRETS["task-runner"], new):
            stamp = int(callback.headers["webhook-timestamp"])
            verify([secret_bytes(secret)], callback.headers, callback.body, stamp, 1)


async def test_the_first_key_signs_and_all_are_published_so_that_it_can_be_replaced(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon(tmp_path, config(sink.url, OLD, NEW)) as notifyd:

        async def signer(count: int) -> tuple[int, int]:
            """Which of the published keys has signed the newest, and how many there are."""
            resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
            await notifyd.ask(runId=f"run-{count}", resume=resume)
            hook = (await sink.wait(count))[-1]
            published = (await notifyd.get("/.well-known/notifyd/jwks.json", None)).json["keys"]
            (kid,) = signed_by(published, hook)
            return [key["kid"] for key in published].index(kid), len(published)

        assert await signer(1) == (0, 2)
        await notifyd.reload(notifyd.text.replace(f"{[OLD, NEW]}", f"{[NEW, OLD]}"))
        assert await signer(2) == (0, 2)
        await notifyd.reload(notifyd.text.replace(f"{[OLD, NEW]}", f"{[NEW]}"))
        assert await signer(3) == (0, 1)


async def test_without_a_key_nothing_is_published_and_v1_stands_alone(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon(tmp_path, config(sink.url)) as notifyd:
        await decided(notifyd, sink.url)
        (callback,) = await sink.wait(1, lambda one: one.path == "/resume")
        (hook,) = await sink.wait(1, lambda one: one.path == "/")
        assert callback.headers["webhook-signature"].startswith("v1,")
        assert " " not in callback.headers["webhook-signature"]
        assert "webhook-signature" not in hook.headers
        assert (await notifyd.get("/.well-known/notifyd/jwks.json", None)).json == {"keys": []}


def test_the_keys_are_secrets_and_each_is_named_once() -> None:
    plugins = discovered_with([Inbox()])
    assert Secret(OLD).reveal() not in repr(settings(config("http://127.0.0.1:9", OLD), plugins))
    with pytest.raises(ConfigError) as caught:
        settings(config("http://127.0.0.1:9", OLD, "whsk_AAAA"), plugins)
    assert [fault.pointer for fault in caught.value.faults] == ["keys.sign[1]"]
    with pytest.raises(ConfigError) as caught:
        settings(config("http://127.0.0.1:9", OLD, OLD), plugins)
    assert [fault.pointer for fault in caught.value.faults] == ["keys.sign[1]"]


def test_who_shows_a_certificate_and_has_no_secret_needs_another_way_to_sign_callbacks(
    tmp_path: Path,
) -> None:
    from tests.authority import Authority

    tls = f'[server.tls]\ncert = "c.pem"\nclient_ca = "{Authority().write(tmp_path / "ca.pem")}"\n[keys]'
    text = CONFIG.replace("[keys]", tls).replace(
        'hmac_secrets = ["${SECRET_TASK_RUNNER}"]', 'certificate_names = ["runner.acme.example"]'
    )
    plugins = discovered_with([Inbox()])
    with pytest.raises(ConfigError) as caught:
        settings(text, plugins)
    assert [fault.pointer for fault in caught.value.faults] == ["auth.clients.task-runner"]
    settings(text.replace("[keys]", f'[keys]\nsign = ["{OLD}"]'), plugins)
    settings(text.replace("[resume]", f'[resume]\nsecrets = ["{SECRETS["outsider"].reveal()}"]'), plugins)
