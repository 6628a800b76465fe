"""`check-config` tells all faults at once: each alone and beside all others, once, and no false one with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import tomli_w

from notifyd.cli.trial import try_out
from notifyd.config.load import read
from notifyd.errors import ConfigError
from notifyd.registry.discovery import discover
from tests.process import SEAL_KEY, SECRET

GOOD: Final[Mapping[str, Any]] = {
    "keys": {"seal": [SEAL_KEY]},
    "auth": {"clients": {"runner": {"hmac_secrets": [SECRET], "scopes": ["Notifier.Events:Write"]}}},
    "channels": {
        "hook": {"type": "webhook", "url": "https://hook.acme.example/"},
        "mail": {"type": "email", "host": "mail.acme.example", "from": "n@acme.example"},
        "team": {"type": "slack", "bot_token": "xoxb-1", "app_token": "xapp-1"},
    },
    "rules": [{"name": "all", "when": "true", "channels": ["hook"]}],
}


def rule(name: str | None, **keys: Any) -> dict[str, Any]:
    return {"rules": [{**({"name": name} if name else {}), "when": "true", "channels": ["hook"], **keys}]}


FAULTS: Final[Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]]] = {
    "a listen that is none": ({"server": {"listen": "nowhere"}}, ("server.listen",)),
    "a public address that is none": ({"server": {"public_url": "ftp://x"}}, ("server.public_url",)),
    "an authority that is not there": (
        {"server": {"tls": {"client_ca": "no.pem"}}},
        ("server.tls.client_ca",),
    ),
    "a certificate in a variable that is not set": (
        {"server": {"tls": {"cert": "${NO_SUCH_VARIABLE}", "key": "no.pem"}}},
        ("server.tls.cert",),
    ),
    "a database where none can be": ({"store": {"url": "sqlite:////no/such/x.db"}}, ("store.url",)),
    "a client of the wrong scope": (
        {
            "auth": {
                "clients": {"a": {"scopes": ["no"], "certificate_names": ["a.example"], "shares": ["nobody"]}}
            }
        },
        ("auth.clients.a.scopes[0]", "auth.clients.a.shares[0]"),
    ),
    "a client whose secret is none": (
        {"auth": {"clients": {"b": {"hmac_secrets": ["short"]}}}},
        ("auth.clients.b.hmac_secrets[0]",),
    ),
    "a provider that lacks a key": (
        {"auth": {"oidc": {"issuer": "https://x.example", "client_secret": "s"}}},
        ("auth.oidc.client_id",),
    ),
    "a sign-in that nobody can be known by": (
        {"approvals": {"proof": "sign-in", "links": "maybe"}},
        ("approvals.links",),
    ),
    "a channel with a private address and another fault": (
        {"channels": {"private": {"type": "webhook", "url": "https://10.0.0.1", "secret": 3}}},
        ("channels.private.url", "channels.private.secret"),
    ),
    "a channel of no type": ({"channels": {"pigeon": {"type": "pigeon"}}}, ("channels.pigeon.type",)),
    "a recipient with a faulty key": (
        {
            "recipients": {"a@acme.example": {"locale": "?", "addresses": {"slak": "U1"}}},
            **rule("asks", channels=["team"], to=["b@acme.example"], grants=3),
        },
        (
            'recipients."a@acme.example".locale',
            'recipients."a@acme.example".addresses.slak',
            "rules.asks.grants",
            "rules.asks.to[0]",
        ),
    ),
    "a recipient whose address cannot be read": (
        {
            "recipients": {"c@acme.example": {"addresses": {"slack": 7}}},
            **rule("reaches", channels=["team"], to=["c@acme.example"]),
        },
        ('recipients."c@acme.example".addresses.slack',),
    ),
    "a rule with many faults": (
        rule(
            "many",
            when="event.runId",
            channels=["hook", 3, "nobody"],
            to=["x", "d@acme.example", "d@acme.example"],
            template="none-of-that-name",
            escalate=[{"after": "1x", "channels": ["nobody"]}, {"channels": ["hook"]}],
        ),
        (
            "rules.many.when",
            "rules.many.channels[1]",
            "rules.many.channels[2]",
            "rules.many.to[0]",
            "rules.many.to[2]",
            "rules.many.template",
            "rules.many.escalate[0].after",
            "rules.many.escalate[0].channels[0]",
            "rules.many.escalate[1].after",
        ),
    ),
    "a rule with a misspelt key": (rule("spelt", tepmlate="x", to=[]), ("rules.spelt.tepmlate",)),
    "a shorthand for a channel that is not there": (
        {"notifications": {"on_a": ["hook", "nobody", 3]}},
        ("notifications.on_a[1]", "notifications.on_a[2]"),
    ),
    "a drill with two faults": (
        {"drill": {"channels": ["hook", "nobody"], "to": 3}},
        ("drill.channels[1]", "drill.to"),
    ),
    "an operator with two faults": (
        {"console": {"operators": {"e@acme.example": {"scopes": ["no"], "tenants": ["a b"]}}}},
        (
            'console.operators."e@acme.example".scopes[0]',
            'console.operators."e@acme.example".tenants[0]',
        ),
    ),
    "a plugin without options": ({"plugins": {"log": {"x": 1}}}, ("plugins.log",)),
    "a section that does not exist": ({"nothing": {}}, ("nothing",)),
}  # fmt: skip


def together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One document: tables are joined, and arrays follow one another."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            match value:
                case dict():
                    whole[key] = together((whole.get(key, {}), value))
                case list() if key == "rules":
                    whole[key] = [*whole.get(key, []), *value]
                case _:
                    whole[key] = value
    return whole


FOLLOWS: Final = {
    "auth.clients.a.certificate_names": ("a client of the wrong scope", "an authority that is not there"),
    'console.operators."e@acme.example"': ("an operator with two faults", "a provider that lacks a key"),
    "approvals.proof": ("a sign-in that nobody can be known by", "a provider that lacks a key"),
}
"""What is a fault beside the first, as long as the second does not leave open whether it is one."""

TRIED: Final = ("store.url", "channels.private.url", "rules.many.when", "rules.many.template")
"""What is found by trying out what could be read."""


def expected(names: Iterable[str]) -> Counter[str]:
    found = Counter(pointer for name in names for pointer in FAULTS[name][1])
    found.update(path for path, (of, without) in FOLLOWS.items() if of in names and without not in names)
    return found


def written(folder: Path, names: Iterable[str]) -> Path:
    path = folder / "notifyd.toml"
    path.write_text(tomli_w.dumps(together((GOOD, *(FAULTS[name][0] for name in names)))))
    return path


async def test_all_faults_are_told_at_once_and_each_once(tmp_path: Path) -> None:
    path, discovered = written(tmp_path, FAULTS), discover()
    with pytest.raises(ConfigError) as caught:
        await try_out(path, read(path, discovered.brought), discovered)
    assert Counter(fault.pointer for fault in caught.value.faults) == expected(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone_is_told_alone(name: str, tmp_path: Path) -> None:
    reading = read(written(tmp_path, [name]), discover().brought)
    found = Counter(fault.pointer for fault in reading.faults)
    assert found == Counter({path: n for path, n in expected([name]).items() if path not in TRIED})
