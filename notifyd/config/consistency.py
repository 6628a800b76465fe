"""What must agree between the parts of a configuration. Each check adds to one collection of faults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from notifyd.config import units
from notifyd.config.faults import Findings, Told, listed
from notifyd.config.first_party import no_such_type
from notifyd.config.settings import (
    Approvals,
    Auth,
    ChannelSettings,
    Client,
    Console,
    Drill,
    Escalation,
    Keys,
    Proof,
    Recipient,
    Resume,
    Rule,
    Scope,
    Server,
    Templates,
)
from notifyd.model import RESUME_CHANNEL
from notifyd.security import certificates
from notifyd.security.actors import Actors
from notifyd.security.names import canonical_name
from notifyd.security.oidc import is_loopback


@frozen
class Kind:
    """What a channel's type says of whom it reaches: see `ChannelType`."""

    name: str
    personal: bool
    addressed: bool
    answers: bool


@frozen
class Draft:
    """The parts of a configuration as far as they could be read: without the keys that have faults of their own.

    None is an entry of a table of which nothing could be read. `channel_types` has every channel there is by name,
    with what is known of its type. `types` are the names of those that plugins bring. `shorthand` has the rules
    that `[notifications]` stands for, by key. A check that reads a key beside the one it tells of asks `told`
    whether it is known.
    """

    server: Server
    auth: Auth
    clients: Mapping[str, Client | None]
    keys: Keys
    resume: Resume
    forwarders: Mapping[str, ChannelSettings | None]
    channel_types: Mapping[str, Kind | None]
    types: Collection[str]
    rules: tuple[Rule | None, ...]
    shorthand: Mapping[str, Rule | None]
    recipients: Mapping[str, Recipient | None]
    drill: Drill
    templates: Templates
    approvals: Approvals
    console: Console
    told: Told

    @property
    def knows_address(self) -> bool:
        """Is it known how people reach the service?"""
        return self.told.knows("server.public_url", "server.listen", "server.tls.cert")


def check(draft: Draft, findings: Findings) -> None:
    for one_check in _CHECKS:
        one_check(draft, findings)


def _server(draft: Draft, findings: Findings) -> None:
    server = draft.server
    if server.listen.everywhere and not server.public_url:
        findings.under("server", "public_url").add(
            "is required where server.listen is every address: a link must lead to one"
        )


def _tls(draft: Draft, findings: Findings) -> None:
    tls, known = draft.server.tls, draft.told.knows("server.tls.cert")
    for key in ("key", "client_ca"):
        if known and getattr(tls, key) and not tls.cert:
            findings.under("server", "tls", key).add("needs server.tls.cert")


def _keys(draft: Draft, findings: Findings) -> None:
    at = findings.under("keys", "seal")
    if not draft.keys.seal:
        at.add('needs at least one key; "notifyd keygen" makes one')
    for key in ("seal", "sign"):
        for index in _repeated(getattr(draft.keys, key)):
            findings.under("keys", key, index).add("is the same key as an earlier one")


_PROOFS: Final = ("hmac_secrets", "token_hashes", "certificate_names")
"""What shows that somebody is a client."""


def _clients(draft: Draft, findings: Findings) -> None:
    owners: dict[object, str] = {}
    for name, client in draft.clients.items():
        at = findings.under("auth", "clients", name)
        with at.catching():
            units.parse_name(name)
        if client is None:
            continue
        if not any(getattr(client, key) for key in _PROOFS) and draft.told.knows(*at.each(_PROOFS)):
            at.add("needs hmac_secrets, token_hashes or certificate_names, else nobody can be this client")
        if (
            client.certificate_names
            and not draft.server.tls.client_ca
            and draft.told.knows("server.tls.client_ca")
        ):
            at.under("certificate_names").add("needs server.tls.client_ca")
        _owned(name, client, owners, at)
        others = draft.clients.keys() - {name}
        for index, other in enumerate(client.shares):
            if other not in others:
                at.under("shares", index).add(
                    f'there is no other client "{other}"; there are: {listed(others)}'
                )


def _owned(name: str, client: Client, owners: dict[object, str], at: Findings) -> None:
    """Does each token and each name of a certificate prove one client?"""
    proofs: list[tuple[str, int, object]]
    proofs = [("token_hashes", index, token) for index, token in enumerate(client.token_hashes)]
    for index, text in enumerate(client.certificate_names):
        proofs += [("certificate_names", index, one) for one in certificates.wanted(text)]
    for key, index, proof in proofs:
        owner = owners.setdefault(proof, name)
        if owner != name:
            at.under(key, index).add(f'proves the client "{owner}" too')


def _sign_in(draft: Draft, findings: Findings) -> None:
    """Can a person sign in where one has to? Without https, whoever listens could take what proves them."""
    wanted = [
        findings.under("rules", index, "proof")
        for index, rule in enumerate(draft.rules)
        if rule and rule.proof is Proof.SIGN_IN
    ]
    if draft.approvals.proof is Proof.SIGN_IN:
        wanted.append(findings.under("approvals", "proof"))
    for at in wanted:
        if draft.auth.oidc is None and draft.told.knows("auth.oidc"):
            at.add("needs [auth.oidc]: where people sign in")
        if draft.knows_address and not _private(public_url(draft.server)):
            at.add("needs an https address in server.public_url")


def _console(draft: Draft, findings: Findings) -> None:
    """Can who is named sign in, and can nobody listen to what proves them from then on?"""
    console, at = draft.console, findings.under("console")
    if console.enabled and draft.knows_address and not _private(public_url(draft.server)):
        at.under("enabled").add("needs an https address in server.public_url")
    names: dict[str, str] = {}
    for name, operator in console.operators.items():
        here = at.under("operators", name)
        with here.catching():
            first = names.setdefault(_persons(draft)(canonical_name(name)), name)
            if first != name:
                here.add(f'is the same person as "{first}"')
        if draft.auth.oidc is None and draft.told.knows("auth.oidc"):
            here.add("needs [auth.oidc]: where people sign in")
        if Scope.READ not in operator.scopes:
            here.under("scopes").add(f'needs "{Scope.READ}" to look at anything')
        if not operator.tenants:
            here.under("tenants").add("needs at least one tenant, else there is nothing to see")


def _private(address: str) -> bool:
    """Can nobody listen on the way to it: by https, or on this machine?"""
    parts = urlsplit(address)
    return parts.scheme == "https" or is_loopback(parts)


def public_url(server: Server) -> str:
    """How people reach the service; by default, where it listens."""
    return server.public_url or f"{'https' if server.tls.cert else 'http'}://{server.listen}"


def _callbacks(draft: Draft, findings: Findings) -> None:
    """Can what a client asks for be called back? Whoever shows a certificate may have no secret to sign with."""
    resume, keys = draft.resume, draft.keys
    known = draft.told.knows("resume.secrets", "keys.sign")
    if not known or not resume.allowed_origins or resume.secrets or keys.sign:
        return
    for name, client in draft.clients.items():
        if not draft.told.knows(*findings.under("auth", "clients", name).each(_PROOFS)):
            continue
        if client and Scope.INGEST in client.scopes and client.certificate_names and not client.hmac_secrets:
            findings.under("auth", "clients", name).add(
                "has no hmac_secrets to sign callbacks with: give it one, or set resume.secrets or keys.sign"
            )


def _actors(draft: Draft, findings: Findings) -> None:
    actors = draft.auth.actors
    names: dict[str, str] = {}
    for name in actors:
        at = findings.under("auth", "actors", name)
        with at.catching():
            first = names.setdefault(canonical_name(name), name)
            if first != name:
                at.add(f'is the same name as "{first}"')
    owners: dict[str, str] = {}
    for name, aliases in actors.items():
        for index, alias in enumerate(aliases):
            at = findings.under("auth", "actors", name, index)
            with at.catching():
                known = canonical_name(alias)
                owner = owners.setdefault(known, name)
                if owner != name:
                    at.add(f'is an alias of "{owner}" too')
                if names.get(known, name) != name:
                    at.add("is itself a name that has aliases")


def _channels(draft: Draft, findings: Findings) -> None:
    for name in draft.channel_types:
        at = findings.under("channels", name)
        with at.catching():
            units.parse_channel_name(name)
        if name == RESUME_CHANNEL:
            at.add("is the name under which resume callbacks are recorded; choose another")


def _forwarders(draft: Draft, findings: Findings) -> None:
    for name in draft.forwarders:
        with findings.under("resume", "forwarders", name).catching():
            units.parse_channel_name(name)


def _rules(draft: Draft, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for index, rule in enumerate(draft.rules):
        if rule is None:
            continue
        at = findings.under("rules", index)
        if draft.told.knows(at.under("name").path) and seen.setdefault(rule.name, at.path) != at.path:
            at.under("name").add("is the name of an earlier rule too")
        _known_channels(rule.channels, draft, at.under("channels"))
        _audience(rule, draft, at)
        _grouping(rule, draft, at)
        _timers(rule, draft, at)


def _audience(rule: Rule, draft: Draft, at: Findings) -> None:
    """Does everyone who is named have a way to be reached, and does a message have someone to reach?"""
    for index in _repeated(map(_persons(draft), rule.to)):
        at.under("to", index).add("is named twice")
    for index in _repeated(rule.lists):
        at.under("lists", index).add("is named twice")
    types = _types(rule.channels, draft, at)
    if types is None:
        return
    personal = [name for name, kind in types.items() if kind.personal]
    _addresses(rule.to, types.values(), draft, at.under("to"))
    answering = any(kind.answers for kind in types.values())
    for key, usable in (("to", personal or answering), ("lists", personal)):
        if getattr(rule, key) and not usable:
            at.under(key).add("needs a channel that reaches named people, such as email")
    if personal and not rule.to and not rule.lists and draft.told.knows(at.under("lists").path):
        at.under("to").add(f'is required, or lists: the channel "{personal[0]}" reaches named people only')


def _types(names: Iterable[str], draft: Draft, at: Findings) -> dict[str, Kind] | None:
    """The types of all channels of a rule, or of what else names some at `at`; None where one is not known."""
    types = {name: draft.channel_types.get(name) for name in names}
    known = {name: kind for name, kind in types.items() if kind is not None}
    whole = len(known) == len(types) and draft.told.knows(at.under("channels").path)
    return known if whole else None


def _addresses(people: Sequence[str], kinds: Iterable[Kind], draft: Draft, at: Findings) -> None:
    """Can each of `people` be reached over one of the personal channels among `kinds`, or answer over another?"""
    ways = [kind for kind in kinds if kind.personal or kind.answers]
    needed = {kind.name for kind in ways}
    if not ways or any(kind.personal and not kind.addressed for kind in ways) or draft.told.has("recipients"):
        return
    canonical, table = _persons(draft), Findings().under("recipients")
    reached = {
        canonical(name)
        for name, one in draft.recipients.items()
        if one and not needed.isdisjoint(one.addresses)
    }
    reached |= {
        canonical(name)
        for name in draft.recipients
        if not draft.told.knows(table.under(name, "addresses").path)
    }
    for index, person in enumerate(people):
        if canonical(person) not in reached:
            at.under(index).add(f"has no address for {' or '.join(sorted(needed))} in [recipients]")


def _persons(draft: Draft) -> Callable[[str], str]:
    """Whose name it is, as far as [auth.actors] can be read."""
    try:
        return Actors(draft.auth.actors).canonical
    except ValueError:
        return Actors({}).canonical


def _known_channels(names: tuple[str, ...], draft: Draft, at: Findings) -> None:
    if not names:
        at.add("must name at least one channel")
    for index in _repeated(names):
        at.under(index).add("is named twice")
    known = draft.channel_types
    for index, name in enumerate(names):
        if name not in known and not draft.told.has("channels"):
            at.under(index).add(f'there is no channel "{name}"; there are: {listed(known)}')


def _grouping(rule: Rule, draft: Draft, at: Findings) -> None:
    for key, other in (("group_wait", "group_by"), ("group_by", "group_wait")):
        if getattr(rule, key) and not getattr(rule, other) and draft.told.knows(at.under(other).path):
            at.under(key).add(f"needs {other}")
    hours = rule.quiet_hours
    if hours and hours.from_ == hours.to:
        at.under("quiet_hours", "to").add("must differ from its beginning")


def _timers(rule: Rule, draft: Draft, at: Findings) -> None:
    for index in _repeated(rule.remind):
        at.under("remind", index).add("is the same time as an earlier one")
    timed = [
        (index, step)
        for index, step in enumerate(rule.escalate)
        if draft.told.knows(at.under("escalate", index, "after").path)
    ]
    for place in _repeated(step.after for _, step in timed):
        at.under("escalate", timed[place][0], "after").add(
            "is the same time as an earlier one: write them as one"
        )
    asked = {_persons(draft)(person) for person in rule.to}
    for index, step in enumerate(rule.escalate):
        _escalation(step, asked, draft, at.under("escalate", index))


def _escalation(step: Escalation, asked: set[str], draft: Draft, at: Findings) -> None:
    _known_channels(step.channels, draft, at.under("channels"))
    people = list(map(_persons(draft), step.to))
    for index in _repeated(people):
        at.under("to", index).add("is named twice")
    for index, person in enumerate(people):
        if person in asked:
            at.under("to", index).add("is asked by the rule itself: an escalation is for others")
    types = _types(step.channels, draft, at)
    if types is None:
        return
    personal = [name for name, kind in types.items() if kind.personal]
    _addresses(step.to, types.values(), draft, at.under("to"))
    if step.to and not personal and not any(kind.answers for kind in types.values()):
        at.under("to").add("needs a channel that reaches named people, such as email")
    if personal and not step.to:
        at.under("to").add(f'is required: the channel "{personal[0]}" reaches named people only')


def _shorthand(draft: Draft, findings: Findings) -> None:
    for key, rule in draft.shorthand.items():
        if rule is None:
            continue
        at = findings.under("notifications", key)
        _known_channels(rule.channels, draft, at)
        for index, name in enumerate(rule.channels):
            kind = draft.channel_types.get(name)
            if kind and kind.personal:
                at.under(index).add(f'the channel "{name}" reaches named people: write a rule with "to"')
        if any(other and other.name == rule.name for other in draft.rules):
            at.add(f'a rule is named "{rule.name}" already')


def _recipients(draft: Draft, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for name in draft.recipients:
        at = findings.under("recipients", name)
        with at.catching():
            units.parse_line(name)
            first = seen.setdefault(canonical_name(name), name)
            if first != name:
                at.add(f'is the same person as "{first}"')


def _recipient_addresses(draft: Draft, findings: Findings) -> None:
    """Is each address one of a type that there is, and one person's?"""
    owners: dict[tuple[str, str], str] = {}
    for name, recipient in draft.recipients.items():
        for kind, address in recipient.addresses.items() if recipient else ():
            at = findings.under("recipients", name, "addresses", kind)
            owner = owners.setdefault((kind, address), name)
            if kind not in draft.types:
                at.add(no_such_type(kind, draft.types))
            elif owner != name:
                at.add(f'is the address of "{owner}" too')


def _deputies(draft: Draft, findings: Findings) -> None:
    """Does each deputy stand in for another person, on days that there are, and have none of their own then?"""
    person = _persons(draft)
    deputies = {person(name): r.deputy for name, r in draft.recipients.items() if r and r.deputy}
    for name, recipient in draft.recipients.items():
        deputy = recipient.deputy if recipient else None
        if deputy is None:
            continue
        at, own = findings.under("recipients", name, "deputy"), deputies.get(person(deputy.to))
        if deputy.until < deputy.from_:
            at.under("until").add("must not be before its beginning")
        if person(deputy.to) == person(name):
            at.under("to").add("must be somebody else")
        elif own and own.from_ <= deputy.until and deputy.from_ <= own.until:
            at.under("to").add("has a deputy too on some of these days: nobody stands in for a deputy")


def _breakglass(draft: Draft, findings: Findings) -> None:
    to, at = draft.approvals.breakglass_to, findings.under("approvals", "breakglass_to")
    for index in _repeated(map(_persons(draft), to)):
        at.under(index).add("is named twice")
    types = [kind for kind in draft.channel_types.values() if kind]
    if len(types) < len(draft.channel_types) or draft.told.has("channels"):
        return  # what a type would have told is not known
    _addresses(to, [kind for kind in types if kind.personal], draft, at)
    if to and not any(kind.personal for kind in types):
        at.add("needs a channel that reaches named people, such as email")


def _drill(draft: Draft, findings: Findings) -> None:
    """Is there each channel, and somebody to reach over it?"""
    drill, at = draft.drill, findings.under("drill")
    if not drill.channels:
        return
    _known_channels(drill.channels, draft, at.under("channels"))
    types = _types(drill.channels, draft, at)
    if types is None:
        return
    personal = [name for name, kind in types.items() if kind.personal]
    if personal and drill.to is None:
        at.under("to").add(f'is required: the channel "{personal[0]}" reaches named people only')
    elif drill.to is not None and not personal:
        at.under("to").add("needs a channel that reaches named people, such as email")
    people = [drill.to] if drill.to is not None else []
    for name in personal:
        _addresses(people, [types[name]], draft, at.under("to"))


def _templates(draft: Draft, findings: Findings) -> None:
    for index, folder in enumerate(draft.templates.dirs):
        if not folder.is_dir():
            findings.under("templates", "dirs", index).add("is not a folder")


_CHECKS: Final[tuple[Callable[[Draft, Findings], None], ...]] = (
    _server,
    _tls,
    _clients,
    _sign_in,
    _console,
    _callbacks,
    _actors,
    _keys,
    _channels,
    _forwarders,
    _rules,
    _shorthand,
    _recipients,
    _recipient_addresses,
    _deputies,
    _breakglass,
    _drill,
    _templates,
)


def _repeated(items: Iterable[object]) -> list[int]:
    """The places of items that stand earlier too."""
    seen: set[object] = set()
    places = []
    for index, item in enumerate(items):
        if item in seen:
            places.append(index)
        seen.add(item)
    return places
