"""The whole sign-in at an OpenID provider that somebody else has written."""

from __future__ import annotations

import base64
import hashlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import flask
import pytest
import werkzeug.serving
from attrs import define, field

from tests.daemon import Daemon, daemon
from tests.integration.test_sign_in import Place, config, signed_in, signed_out
from tests.integration.test_web_page import ALICE, status
from tests.provider import OUTSIDE, Browser, OpenIdProvider

with warnings.catch_warnings(record=True):  # it is written against an older authlib, which says so
    import oidc_provider_mock

MALLORY = "mallory@acme.example"


@define
class Elsewhere:
    """A provider at `url`. `calls` are the paths that it was asked for, with what a form held."""

    url: str
    calls: list[tuple[str, dict[str, str]]] = field(factory=list)

    async def sign_in(self, notifyd: Daemon, address: str, email: str) -> str:
        """A person signs in on the form at `address`: where the browser is sent back to."""
        async with notifyd.session.post(address, data={"sub": email}, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            return answer.headers["Location"].removeprefix(OUTSIDE)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    app = oidc_provider_mock.app(require_nonce=True)
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    running = Elsewhere(f"http://127.0.0.1:{server.server_port}")

    def note() -> None:
        running.calls.append((flask.request.path, flask.request.form.to_dict()))

    app.before_request(note)

    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")
async def test_the_whole_sign_in_at_another_partys_provider(
    tmp_path: Path, templates_once: None, elsewhere: Elsewhere
) -> None:
    async with daemon(tmp_path, config(elsewhere.url)) as notifyd:
        place = Place(notifyd, OpenIdProvider(), Browser(notifyd))
        asked, path = await notifyd.ask(), await notifyd.link()
        other = await elsewhere.sign_in(notifyd, await place.begin(path), MALLORY)
        assert signed_out(await place.come_back(other, path))
        address = await place.begin(path, "read it")
        begun = dict(parse_qsl(urlsplit(address).query))
        assert signed_in(await place.come_back(await elsewhere.sign_in(notifyd, address, ALICE), path))
        assert (await place.decide(path)).status == 303
        assert await status(notifyd, asked) == "approved"
        (decision,) = (await notifyd.approval(asked))["decisions"]
    assert (decision["actor"], decision["via"]) == (ALICE, "sign-in")
    asked_for = [path for path, _ in elsewhere.calls]
    assert asked_for.count("/.well-known/openid-configuration") == 1
    assert asked_for.count("/jwks") == 1
    told = [form for path, form in elsewhere.calls if path == "/oauth2/token"][-1]
    assert begun["code_challenge_method"] == "S256"
    digest = hashlib.sha256(told["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == begun["code_challenge"]
