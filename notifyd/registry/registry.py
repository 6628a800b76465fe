"""What a configuration becomes: channels, rules, templates and keys as one immutable value.

A reload builds a whole new one, which can fail without harm, and then swaps one reference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from contextlib import AsyncExitStack
from datetime import date, datetime
from functools import partial
from typing import ParamSpec, TypeVar
from zoneinfo import ZoneInfo

from attrs import field, frozen

from notifyd.config.first_party import FIRST_PARTY
from notifyd.config.load import secrets
from notifyd.config.settings import Jwt, Proof, Recipient, Rule, Scope, Settings
from notifyd.errors import ConfigError, Fault
from notifyd.model import APPROVAL_KIND, RESUME_CHANNEL, SECOND, Approval, Clock, Instant, OwnDeputy
from notifyd.registry.channels import Means, OpenChannel, Sessions, callback_secrets, open_channels
from notifyd.registry.credentials import Clients, build_clients
from notifyd.registry.deputies import OwnDeputies
from notifyd.registry.digests import CHANNEL_TEST, DIGEST, digest_faults, own_digest
from notifyd.registry.discovery import Discovered
from notifyd.registry.egress import Guard, callback_fault, open_session
from notifyd.registry.provider import Provider
from notifyd.registry.published import Published
from notifyd.registry.state import States
from notifyd.registry.tls import ServerContext, server_context
from notifyd.registry.tokens import Tokens
from notifyd.render.render import TemplateSet
from notifyd.rules.rules import RuleBook
from notifyd.security import resume_token
from notifyd.security.actors import Actors
from notifyd.security.jwt import KeySet
from notifyd.security.links import Links
from notifyd.security.redact import Redactor
from notifyd.security.secrets import Keyring
from notifyd.security.signing import SigningKeys

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_NOBODY = Recipient()
"""Who reads a message that is for no one person, or for one of whom nothing is known."""


@frozen
class Registry:
    """One configuration, in force whole. Its channels include `resume`, for callbacks, and the forwarders."""

    settings: Settings
    discovered: Discovered
    guard: Guard
    keyring: Keyring
    redactor: Redactor
    actors: Actors
    links: Links
    clients: Clients
    rules: RuleBook
    templates: TemplateSet
    channels: Mapping[str, OpenChannel]
    rules_by_name: Mapping[str, Rule]
    tls: ServerContext | None
    recipients: Mapping[str, Recipient]  # by canonical name
    tokens: Tokens
    provider: Provider | None  # where approvers sign in
    signing: SigningKeys
    states: States
    deputies: OwnDeputies
    _resources: AsyncExitStack = field(repr=False)
    edits: bool = field(init=False)  # is there a channel that can change what it has sent?
    throttles: bool = field(init=False)  # is there a rule with a budget?
    timed: tuple[Rule, ...] = field(init=False)  # the rules with reminders or escalations
    _approvers: dict[str, Set[str]] = field(factory=dict, init=False, eq=False, repr=False)

    # Asked for each event, and so not looked up in all channels and rules each time.
    @edits.default
    def _edits(self) -> bool:
        return any(channel.edits for channel in self.channels.values())

    @timed.default
    def _timed(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.settings.rules if rule.remind or rule.escalate)

    @throttles.default
    def _throttles(self) -> bool:
        return any(rule.throttle for rule in self.settings.rules)

    def channel(self, name: str, type_: str) -> OpenChannel | None:
        """The channel a delivery was planned for: None where it is gone, or of another type by now."""
        found = self.channels.get(name)
        return found if found is not None and found.type == type_ else None

    def takes_html(self, channel: str, type_: str) -> bool:
        """Is a message for this channel written as HTML too? One that is gone may take it when it is back."""
        found = self.channel(channel, type_)
        return found is None or found.personal

    def takes_fields(self, channel: str, type_: str) -> bool:
        """Are a message's fields written for this channel? One that is gone may show them when it is back."""
        found = self.channel(channel, type_)
        return found is None or found.fields

    def takes_answers(self, channel: str, type_: str) -> bool:
        """Can its readers decide by what they answer there?"""
        found = self.channel(channel, type_)
        return found is not None and found.answers

    def comes_back_to(self, channel: str, type_: str) -> bool:
        """May a message sent there be answered, or changed, later on?"""
        found = self.channel(channel, type_)
        return found is not None and (found.answers or found.edits)

    def lane_fault(self, lane: str) -> str | None:
        """Why nothing may be sent by this lane now, None where it may: a callback's origin has to be allowed."""
        kind, _, origin = lane.partition(":")
        if kind != RESUME_CHANNEL or not origin:
            return None
        return callback_fault(origin, self.settings.resume.allowed_origins, self.guard)

    def signs_callbacks(self, client: str) -> bool:
        """Has the configuration a secret, or a key, to sign a callback for this client with?"""
        return bool(self.settings.keys.sign or callback_secrets(self.settings, client))

    def token_for_client(self, approval: Approval) -> str | None:
        """The resume token sealed for the client that posted the request, once there is something to resume.

        None where that client has no secret to seal it under. Raises `SealError`.
        """
        client = self.settings.auth.clients.get(approval.client)
        if approval.resume_delivery is None or approval.sealed_token is None:
            return None
        if client is None or not client.hmac_secrets:
            return None
        return resume_token.seal_for(
            client.hmac_secrets[0], resume_token.reveal(self.keyring, approval.sealed_token)
        )

    def digest_template(self, rule_name: str, channel: str, type_: str) -> str | None:
        """The template of a digest: the rule's own if there is one, else the common one where the channel can
        send that. None where it cannot: then each message goes as itself."""
        rule = self.rule(rule_name)
        own = own_digest(rule, self.templates) if rule else None
        return own or (None if self.own_body(channel, type_) else DIGEST)

    def own_body(self, channel: str, type_: str) -> str | None:
        """The media type of what the rule's template writes, where nothing else can be sent there."""
        found = self.channel(channel, type_)
        return found.own_body if found else None

    def test_template(self, channel: OpenChannel) -> str:
        """What writes a test message: where a channel sends its rules' own form, the first rule's template."""
        if channel.own_body is None:
            return CHANNEL_TEST
        wanted = (rule.template for rule in self.settings.rules if channel.name in rule.channels)
        return next((name for name in wanted if name and self.templates.knows(name)), CHANNEL_TEST)

    def zone(self, recipient: str | None) -> str:
        """The zone whose times a reader is shown, an IANA name: UTC for one who has none."""
        return self.recipient(recipient).zone or "UTC"

    def recipient(self, name: str | None) -> Recipient:
        """How a person likes to read, by any of their names."""
        return _NOBODY if name is None else self.recipients.get(self.actors.canonical(name), _NOBODY)

    def address(self, name: str, channel_type: str) -> str:
        """Where a person, by any of their names, is on channels of that type: their name itself where nothing else
        is known. An address of a list is given back as it is."""
        return self.recipient(name).addresses.get(channel_type, name)

    def reaches(self, channel: OpenChannel, name: str) -> bool:
        """Can a person be sent a message over a personal channel?"""
        return not channel.addressed or channel.type in self.recipient(name).addresses

    def person_at(self, channel_type: str, address: str) -> str | None:
        """Whose address it is on channels of that type, by their canonical name."""
        found = (name for name, one in self.recipients.items() if one.addresses.get(channel_type) == address)
        return next(found, None)

    def deputy_of(self, tenant: str, name: str, at: Instant) -> str | None:
        """Who stands in for a person at that time; a deputy's own deputy does not.

        It is whom the configuration names that day, else whom the person has.
        """
        configured = self.recipient(name).deputy
        own = self.deputies.of(tenant, self.actors.canonical(name)) if self.deputies else ()
        if configured is None and not own:  # as of most, and each event asks for each reader
            return None
        day = self.day(name, at)
        if configured is not None and configured.from_ <= day <= configured.until:
            return configured.to
        today = (one for one in own if one.first <= day.isoformat() <= one.last)
        return next((one.deputy for one in today if self.counts(one)), None)

    def is_deputy(self, tenant: str, actor: str, name: str, at: Instant) -> bool:
        """Does `actor` stand in for the person at that time, each by any of their names?"""
        deputy = self.deputy_of(tenant, name, at)
        return deputy is not None and self.actors.canonical(deputy) == self.actors.canonical(actor)

    def counts(self, own: OwnDeputy) -> bool:
        """Does a deputy whom a person has named stand in for them, on the days that they are named for?

        Somebody whom no rule asks any more does not, nor one who was named by a link alone where people can
        sign in.
        """
        proved = own.proved or self.provider is None
        return proved and own.deputy in self.approvers(own.tenant)

    def approvers(self, tenant: str) -> Set[str]:
        """The canonical names of all whom rules can ask to approve in a tenant."""
        found = self._approvers.get(tenant)
        if found is None:
            asked = {"kind": APPROVAL_KIND, "action": "requested", "tenant": {"id": tenant}}
            rules = (rule for rule in self.rules.possible(asked) if Scope.APPROVE.value in rule.grants)
            found = frozenset(self.actors.canonical(name) for rule in rules for name in rule.people)
            self._approvers[tenant] = found
        return found

    def day(self, name: str | None, at: Instant) -> date:
        """The day that it is for a person then."""
        return datetime.fromtimestamp(at / SECOND, ZoneInfo(self.zone(name))).date()

    def proof(self, rule: Rule) -> Proof:
        """What shows that whoever decides by a link of `rule` is its recipient."""
        return rule.proof or self.settings.approvals.proof

    def rule(self, name: str) -> Rule | None:
        return self.rules_by_name.get(name)

    async def aclose(self) -> None:
        """Close every channel and session, in reverse order. Safe to call twice."""
        await self._resources.aclose()


class Current:
    """The registry in force: called, it gives it; a reload swaps it; the last one is closed at the end."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self) -> Registry:
        return self._registry

    def swap(self, fresh: Registry) -> Registry:
        """Put `fresh` in force and give back the one before, for the caller to close."""
        before, self._registry = self._registry, fresh
        return before

    async def aclose(self) -> None:
        await self._registry.aclose()


async def open_registry(
    settings: Settings, discovered: Discovered, clock: Clock, before: Registry | None = None
) -> Registry:
    """Build everything a configuration names. `before` is what was in force until now.

    Raises `ConfigError`, and then leaves nothing open.
    """
    guard, states = Guard(settings.egress.allow_private), before.states if before else States()
    keyring, actors = Keyring(settings.keys.seal), Actors(settings.auth.actors)
    # Compiling takes up to half a second, and a reload happens while the loop has requests to answer.
    faults: list[Fault] = []
    rules = await _built(faults, RuleBook.compile, settings.rules, discovered.rule_functions)
    templates = await _built(faults, load_templates, settings, discovered)
    for fault in templates.left_out if templates else ():
        log.error("a plugin's template is left out: %s", fault)
    redactor = await asyncio.to_thread(lambda: Redactor(secrets(settings)))
    tls = await _built(faults, server_context, settings.server.tls)
    ca = settings.egress.tls_ca
    sessions = partial(open_session, guard, tls=await asyncio.to_thread(ca.context) if ca else None)
    signing = SigningKeys(settings.keys.sign)
    async with AsyncExitStack() as resources:
        means = Means(sessions, clock, signing, keyring, states, redactor)
        channels = await open_channels(settings, discovered, means, resources, faults)
        faults += digest_faults(settings.rules, channels, templates) if templates else ()
        if faults or rules is None or templates is None:
            raise ConfigError(faults)
        tokens = await _open_tokens(settings.auth.jwt, sessions, resources, before)
        provider = await _open_provider(settings, sessions, resources)
        kept = resources.pop_all()
    return Registry(
        settings=settings,
        discovered=discovered,
        guard=guard,
        keyring=keyring,
        redactor=redactor,
        actors=actors,
        links=Links(keyring, settings.server.public_url),
        clients=build_clients(settings.auth),
        rules=rules,
        templates=templates,
        channels=channels,
        rules_by_name={rule.name: rule for rule in settings.rules},
        tls=tls,
        recipients={actors.canonical(name): known for name, known in settings.recipients.items()},
        tokens=tokens,
        provider=provider,
        signing=signing,
        states=states,
        deputies=before.deputies if before else OwnDeputies(),
        resources=kept,
    )


def load_templates(settings: Settings, discovered: Discovered) -> TemplateSet:
    """All templates of a configuration. Raises `ConfigError`."""
    return TemplateSet.load(
        discovered.template_sources,
        settings.templates.dirs,
        settings.templates.default_locale,
        (*FIRST_PARTY, *discovered.channel_types),
    )


async def _built(faults: list[Fault], build: Callable[P, T], *given: P.args, **more: P.kwargs) -> T | None:
    """What `build` makes on a thread; None where it has faults, which are added to `faults`."""
    try:
        return await asyncio.to_thread(build, *given, **more)
    except ConfigError as error:
        faults += error.faults
        return None


async def _open_tokens(
    settings: Jwt | None, sessions: Sessions, resources: AsyncExitStack, before: Registry | None
) -> Tokens:
    if settings is None or settings.jwks.keys is not None:
        return Tokens(settings)
    session = await resources.enter_async_context(sessions(limit=1))
    now = asyncio.get_running_loop().time
    keys = Published("the keys of auth.jwt", settings.jwks.at, KeySet.parse, session, now)
    if before is not None and before.tokens.keys is not None:
        keys.take_over(before.tokens.keys)
    resources.push_async_callback(keys.aclose)
    return Tokens(settings, keys)


async def _open_provider(
    settings: Settings, sessions: Sessions, resources: AsyncExitStack
) -> Provider | None:
    oidc = settings.auth.oidc
    if oidc is None:
        return None
    session = await resources.enter_async_context(sessions())
    provider = Provider(oidc, settings.server.public_url, session, asyncio.get_running_loop().time)
    resources.push_async_callback(provider.aclose)
    return provider
