"""Approvals with all that they have, together and in any order, over each store, beside a model of their own.

The daemon's steps run over HTTP on a clock that is turned, two nodes over one store, and each sweep where a rule
says so. `pytest --hypothesis-profile=deep` takes thousands of steps.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import orjson
import pytest
from attrs import define, frozen
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from notifyd.config import load as config
from notifyd.config.settings import Settings
from notifyd.metrics import Metrics
from notifyd.model import RESUME_CHANNEL, SECOND, Delivery
from notifyd.registry.registry import Current, Registry, open_registry
from notifyd.security.links import Link
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign
from notifyd.service.app import App, _cancelled
from notifyd.store import AuditFilter, DeliveryFilter, Page, Store
from notifyd.store.open import StoreOptions, open_store
from notifyd.testing import Sink
from notifyd.web.pages import csrf
from notifyd.wire.codec import parse_instant, rfc3339
from tests import events, fakes, receipt_reader
from tests.approval_model import BREAK_GLASS, RUN, Asked, Model, Refused, Said, Vote
from tests.fakes import NODE, NOW, Channels, TurnableClock, discovered
from tests.mongodb import MongoServer
from tests.waiting import until, until_async

TENANT, APPROVAL = RUN
WEEKS: Final = 28 * 24 * 3600 * SECOND
"""Between examples: each begins on the same day of the week."""

SIGN_KEY: Final = "whsk_" + base64.b64encode(b"s" * 32).decode()
CLIENTS: Final = {
    "plain": frozenset[str](),
    "sec": frozenset({"sec"}),
    "ops": frozenset({"ops"}),
    "both": frozenset({"sec", "ops"}),
    "glass": frozenset({BREAK_GLASS}),
    "glass-sec": frozenset({BREAK_GLASS, "sec"}),
}
"""The clients that decide, with the grants of each beside `Packs.Approve`."""

ALICE, BOB, CAROL, BRUNO, DAN, DORA = (
    f"{name}@acme.example" for name in ("alice", "bob", "carol", "bruno", "dan", "dora")
)
PEOPLE: Final = (ALICE, BOB, CAROL, BRUNO, DAN)
DEPUTIES: Final = {(BRUNO, ALICE), (BRUNO, CAROL)}
"""Bruno stood in for dan, too, in other years."""

LINK_GRANTS: Final = {"anytime": {"Packs.Approve", "sec", BREAK_GLASS}, "office": {"Packs.Approve", "ops"}}
STATUS: Final = dict.fromkeys(
    ("expired", "already_decided", "plan_changed", "already_voted", "inputs_differ", "window_closed"), 409
) | {
    "not_found": 404,
    "grant_missing": 403,
    "self_approval": 403,
    "actor_not_allowed": 403,
    "invalid_event": 422,
}
UNDO: Final = (0, 10, 60)
"""Seconds in which a decision can be taken back: a reload changes them."""

PLANS: Final = tuple(f"sha256:{letter * 64}" for letter in "abc")


def secret(name: str) -> Secret:
    return Secret("whsec_" + base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


def _client(name: str) -> str:
    return f"""
[auth.clients.{name}]
hmac_secrets = ["{secret(name).reveal()}"]
token_hashes = ["sha256:{hashlib.sha256(f"token-{name}".encode()).hexdigest()}"]
scopes = ["Packs.Approve", "Notifier.Read"]
grants = {json.dumps(sorted(CLIENTS[name]))}
act_as = ["*@acme.example"]
tenants = ["{TENANT}"]
"""


def _deputy(of: str, until: str) -> str:
    return f'[recipients."{of}"]\ndeputy = {{to = "{BRUNO}", from = 2026-01-01, until = {until}}}\n'


def _rule(name: str, operator: str, more: str) -> str:
    return f"""
[[rules]]
name = "{name}"
when = 'event.kind == "pack.approval" && event.labels.environment {operator} "office"'
channels = ["mail", "team"]
to = {json.dumps(PEOPLE)}
grants = {json.dumps(sorted(LINK_GRANTS[name]))}
remind = ["1h", "30m before expiry"]
escalate = [{{after = "2h", channels = ["night"], to = ["{DORA}"]}}]
{more}
"""


CONFIG: Final = (
    '[egress]\nallow_private = ["127.0.0.0/8"]\n'
    + "".join(
        f'[channels.{name}]\ntype = "{kind}"\n'
        for name, kind in {"team": "fake", "mail": "person", "night": "person"}.items()
    )
    + "".join(map(_client, CLIENTS))
    + _deputy(ALICE, "2099-12-31")
    + _deputy(CAROL, "2099-12-31")
    + _deputy(DAN, "2026-01-02")
    + _rule("anytime", "!=", "")
    + _rule("office", "==", 'window = "Mon-Fri 09:00-16:00 UTC"')
)


def configured(undo: int, channels: Channels, runner: str) -> Settings:
    text = fakes.CONFIG.replace("[server]", '[server]\nlisten = "127.0.0.1:0"')
    text = text.replace("[keys]", f'[keys]\nsign = ["{SIGN_KEY}"]') + CONFIG
    text += f'\n[approvals]\nundo = "{undo}s"\n[resume]\nallowed_origins = ["{runner}"]\n'
    environ = {"SEAL_KEY": base64.b64encode(fakes.SEAL_KEY).decode()}
    return config.reads(text, channels.brought, environ).whole()


@frozen
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def told(self) -> tuple[int, str, frozenset[str]]:
        """Status, and the problem's code and pointers."""
        if self.status < 400:
            return self.status, "", frozenset()
        problem = self.json
        return self.status, problem["code"], frozenset(one["pointer"] for one in problem.get("errors", ()))


@define(eq=False)
class World:
    """Two nodes over one store, on a test's clock. Nothing runs by itself but planning."""

    store: Store
    nodes: list[App]
    registries: Mapping[int, Registry]
    current: Current
    clock: TurnableClock
    session: aiohttp.ClientSession
    runner: Sink
    examples: int = 0

    @property
    def now(self) -> int:
        return self.clock() // SECOND

    async def call(self, node: int, method: str, path: str, **request: Any) -> Answer:
        host, port = self.nodes[node].address
        url = f"http://{host}:{port}{path}"
        async with self.session.request(method, url, allow_redirects=False, **request) as response:
            return Answer(response.status, await response.read())

    async def post(self, node: int, path: str, document: Any, client: str, message: str = "") -> Answer:
        """Signed under the id `message`, or with the client's token where that is empty."""
        body, headers = orjson.dumps(document), {"Content-Type": "application/json"}
        if message:
            key = fakes.RUNNER if client == "task-runner" else secret(client)
            headers |= sign([key], message, self.now, body) | {"X-Notifyd-Client": client}
        else:
            headers["Authorization"] = f"Bearer token-{client}"
        return await self.call(node, "POST", path, data=body, headers=headers)

    async def get(self, path: str) -> Answer:
        return await self.call(0, "GET", path, headers={"Authorization": "Bearer token-plain"})

    async def look(self, node: int) -> None:
        """What a node does once a second, in the order of its steps."""
        app = self.nodes[node]
        for sweep in (app._expiry.sweep, app._timers.sweep, app._effects.sweep):
            await sweep()


@asynccontextmanager
async def world(url: str) -> AsyncIterator[World]:
    clock, channels = TurnableClock(), Channels()
    async with AsyncExitStack() as resources:
        runner = await resources.enter_async_context(Sink())
        found = discovered(channels)
        registries = {
            undo: await open_registry(configured(undo, channels, runner.url), found, clock) for undo in UNDO
        }
        for one in registries.values():
            resources.push_async_callback(one.aclose)
        current = Current(registries[0])
        store = await open_store(url, StoreOptions(node=NODE, clock=clock, timeout=20))
        resources.push_async_callback(store.aclose)
        nodes = [App(current, store, Metrics(), clock) for _ in range(2)]
        for node in nodes:
            node._note_config()
            await node._listen(resources, None)
            planning = asyncio.create_task(node._planner.run())
            resources.push_async_callback(_cancelled, planning)
        session = await resources.enter_async_context(aiohttp.ClientSession())
        yield World(store, nodes, registries, current, clock, session, runner)


@frozen
class Op:
    """Something that is done at a node, and whether a model allows what came of it; it moves the model."""

    run: Callable[[int], Awaitable[Any]]
    allows: Callable[[Model, Any], bool]


# --- what is done ------------------------------------------------------------------------------------------

INPUTS: Final = (
    {"name": "version", "type": "text", "required": True, "pattern": "v[0-9]+"},
    {"name": "share", "type": "number", "default": 0.5},
    {"name": "region", "type": "choice", "choices": ["eu", "us"], "default": "eu"},
    {"name": "drain", "type": "boolean"},
)
GROUPS: Final = (
    (),
    (("Security", "sec", 1),),
    (("Security", "sec", 1), ("Operations", "ops", 2)),
    (("Two", "sec", 1), ("Same", "sec", 1)),
)
FILLED_IN: Final = [
    *[{"version": "v1"}] * 10,
    {"version": "v1", "share": 1},
    {"version": "v1", "drain": True},
    {"version": "v1", "region": ""},
    {"version": "v1", "share": 0.5, "region": "us"},
    {"version": "v1", "region": ["us"]},
    {"version": "v1", "drain": "true"},
    {"version": "v1", "share": True},
    {"version": "v1", "other": "x"},
    {"version": "v2"},
    {"version": "x"},
    {"version": 1},
    {"version": None, "share": "1"},
    {},
]


def drawn(*usual: Mapping[str, Any], **choices: Sequence[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One of the choices for each name, evenly: Hypothesis prefers what is first and what it has drawn before.

    Over that, in most cases, one of `usual`: what would seldom come about where each is drawn for itself.
    """

    def draw(dice: Random) -> dict[str, Any]:
        alone = {name: dice.choice(values) for name, values in choices.items()}
        return {**alone, **dice.choice([*usual, {}])}

    return st.randoms(use_true_random=True).map(draw)


FIT: Final = {"approves": True, "comment": "why", "inputs": {"version": "v1"}, "behalf": "", "glass": False}
BY_CLIENT: Final = {"plan": None, "round": 0, "client": "both"}
VOTES: Final = (
    *[FIT] * 5,
    FIT | {"glass": True},
    FIT | {"actor": BRUNO, "behalf": ALICE},
    FIT | {"actor": BRUNO, "behalf": CAROL},
)


requests = drawn(
    plan=PLANS,
    ago=[0, 0, 0, 60, 5000, -200],
    lasts=[100_000] * 5 + [10_000] * 3 + [1000, 20, -10],
    quorum=[2, 3, 3, 4, 1],
    requester=["ci@acme.example"] * 4 + [ALICE, BRUNO],
    grants=[("Packs.Approve",)] * 6 + [("sec",)],
    groups=GROUPS,
    inputs=[(), (), INPUTS],
    hours=[False] * 5 + [True],
)
ballots = drawn(
    *(BY_CLIENT | one | ({"client": "glass-sec"} if one["glass"] else {}) for one in VOTES),
    actor=[*PEOPLE, DORA],
    approves=[True] * 8 + [False],
    plan=[None] * 10 + [*PLANS],
    round=[0] * 7 + [None, -1],
    comment=["why"] * 6 + [""],
    client=["both"] * 5 + ["glass-sec"] * 3 + [*CLIENTS],
    inputs=FILLED_IN,
    behalf=[""] * 8 + [ALICE, CAROL, DAN],
    glass=[False] * 9 + [True],
    signed=[False, False, True],
)
presses = drawn(
    *({"back": 0} | one for one in VOTES),
    actor=PEOPLE,
    approves=[True] * 8 + [False],
    comment=["why"] * 6 + [""],
    inputs=FILLED_IN,
    behalf=[""] * 6 + [ALICE, DAN],
    glass=[False] * 9 + [True],
    back=[0] * 6 + [1],
)
back = drawn(taken=[*PEOPLE], behalf=["", "", ALICE], though=[False] * 5 + [True])
heard = drawn(
    again=[None] * 6 + [*range(6)], status=[None] * 30 + ["approved", "rejected", "expired", "cancelled"]
)
times = drawn(
    seconds=[1] * 4 + [9, 9, 10, 10, 59, 60, 60, 600, 1800, 3600, 7200, 30_000, -5, -200],
    undo=[None] * 9 + [*UNDO],
    node=[0, 1],
)
races = drawn(
    first=["vote", "press", "take back", "look", "ask"], second=["vote", "press", "look", "cancelled"]
)


class Machine(RuleBasedStateMachine):
    """What the daemon answers and keeps, beside what `model` says."""

    world: World
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.world.examples += 1
        self.world.clock.now = NOW + self.world.examples * WEEKS
        self.models = [Model(f"run-{self.world.examples}")]
        self.path = f"/notifications/pack-approvals/{self.model.run}/{APPROVAL}"
        self.sent: list[tuple[str, Said, dict[str, Any], str]] = []
        self.events: list[dict[str, Any]] = []
        self.failed = False
        self.undo = 0

    @property
    def now(self) -> int:
        return self.world.now

    @property
    def model(self) -> Model:
        """What is so: of two things at once, as if the order had been the first that fits all that is known."""
        return self.models[0]

    def do(self, *ops: Op) -> None:
        """Do all at once, each at a node, and find the orders in which the model allows it."""
        self.failed = True
        answers = self.runner.run(self._done(ops))
        shown = self.runner.run(self.world.get(self.path))
        differences, fitting = [], []
        orders = itertools.permutations(zip(ops, answers, strict=True))
        for before, order in itertools.product(self.models, orders):
            model = copy.deepcopy(before)
            if all(op.allows(model, answer) for op, answer in order):
                found = list(self.differences(model, shown))
                if not found:
                    fitting.append(model)
                differences.append(found)
        assert fitting, f"{answers} in no order, or then {differences}; before: {self.models}"
        self.models, self.failed = fitting, False

    async def _done(self, ops: tuple[Op, ...]) -> list[Any]:
        return await asyncio.gather(*(op.run(node % 2) for node, op in enumerate(ops)))

    # -- events -------------------------------------------------------------------------------------------

    @initialize(given=requests, undo=st.sampled_from(UNDO))
    def begin(self, given: dict[str, Any], undo: int) -> None:
        self.use(undo)
        self.do(self.asking(given))

    @rule(given=requests, otherwise=heard)
    def hear(self, given: dict[str, Any], otherwise: dict[str, Any]) -> None:
        """Of another request, of an end, or of something again."""
        if otherwise["again"] is not None:
            self.hear_again(self.events[otherwise["again"] % len(self.events)])
        else:
            self.do(self.telling(otherwise["status"]) if otherwise["status"] else self.asking(given))

    def hear_again(self, document: dict[str, Any]) -> None:
        """Unless the clock was put back meanwhile so far that it would lie ahead."""
        if parse_instant(document["occurredAt"]) > self.world.clock():
            return
        path, message = "/notifications/pack-approvals", f"again-{self.now}"
        self.do(
            Op(
                lambda node: self.world.post(node, path, document, "task-runner", message),
                lambda _, answer: bool(answer.status == 200),
            )
        )

    def asking(self, given: dict[str, Any]) -> Op:
        occurred = self.now - given.pop("ago")
        asked = Asked(occurred=occurred, expires=self.now + given.pop("lasts"), **given)
        groups = [{"name": name, "grant": grant, "required": count} for name, grant, count in asked.groups]
        document = events.requested(
            at=occurred * SECOND,
            runId=self.model.run,
            approvalId=APPROVAL,
            planHash=asked.plan,
            expiresAt=rfc3339(asked.expires * SECOND),
            requiredApprovals=asked.quorum,
            requiredGrants=list(asked.grants),
            requestedBy=asked.requester,
            approvalGroups=groups or None,
            inputs=list(asked.inputs) or None,
            labels={"environment": "office" if asked.hours else "test"},
            resume={
                "callbackUrl": f"{self.world.runner.url}/{self.model.run}",
                "token": fakes.TOKEN.reveal(),
            },
        )
        return self.event(document, lambda model: model.request(asked, self.now))

    def telling(self, status: str) -> Op:
        plan = self.model.asked.plan if self.model.asked else PLANS[0]
        document = events.updated(
            status, at=self.world.clock(), runId=self.model.run, approvalId=APPROVAL, planHash=plan
        )
        return self.event(document, lambda model: model.update(status))

    def event(self, document: dict[str, Any], move: Callable[[Model], str]) -> Op:
        def allows(model: Model, answer: Answer) -> bool:
            outcome = move(model)
            self.events.append(document)
            return (answer.status, answer.json["outcome"]) == (202, outcome)

        async def run(node: int) -> Answer:
            message = f"event-{document['eventId']}"
            return await self.world.post(
                node, "/notifications/pack-approvals", document, "task-runner", message
            )

        return Op(run, allows)

    # -- decisions ----------------------------------------------------------------------------------------

    @rule(given=ballots)
    def vote(self, given: dict[str, Any]) -> None:
        self.do(self.voting(given))

    def voting(self, given: dict[str, Any]) -> Op:
        asked, client = self.model.asked, given.pop("client")
        behalf, back = given.pop("behalf"), given.pop("round")
        signed, plan = given.pop("signed"), given.pop("plan")
        said = Said(
            plan=plan or (asked.plan if asked else PLANS[0]),
            round=None if back is None else max(1, self.model.round + back),
            grants=CLIENTS[client] | {"Packs.Approve", "Notifier.Read"},
            behalf=behalf if behalf != given["actor"] else "",
            message=f"vote-{self.model.run}-{len(self.sent)}" if signed else "",
            client=client,
            **(given | {"inputs": given["inputs"] if asked and asked.inputs else {}}),
        )
        document = {
            "decision": said.decision,
            "actor": said.actor,
            "planHash": said.plan,
            "comment": said.comment,
            "breakGlass": said.glass,
            "inputs": said.inputs,
            **({"round": said.round} if said.round is not None else {}),
            **({"onBehalfOf": said.behalf} if said.behalf else {}),
            **({"tenant": {"id": TENANT}, "runId": self.model.run, "approvalId": APPROVAL} if signed else {}),
        }
        self.sent.append((client, said, document, said.message))
        return self.ballot(*self.sent[-1])

    def ballot(self, client: str, said: Said, document: dict[str, Any], message: str) -> Op:
        def allows(model: Model, answer: Answer) -> bool:
            before = len(model.votes)
            try:
                if said.behalf and (said.actor, said.behalf) not in DEPUTIES:
                    raise Refused("actor_not_allowed")
                vote = model.decide(said, self.now, self.undo)
            except Refused as refused:
                return answer.told == (STATUS[refused.code], *refused.told)
            if answer.status != 200:
                return False
            fresh = len(model.votes) > before
            vote.answer = vote.answer or answer.body
            return answer.body == vote.answer and (not fresh or answers(model, vote, answer.json))

        return Op(lambda node: self.world.post(node, f"{self.path}/ack", document, client, message), allows)

    @rule(given=drawn(which=range(100)))
    def send_a_vote_again(self, given: dict[str, Any]) -> None:
        """By the one who sent it, or by somebody who has captured it."""
        if self.sent:
            self.do(self.ballot(*self.sent[given["which"] % len(self.sent)]))

    # -- the page -----------------------------------------------------------------------------------------

    @rule(given=presses)
    def press(self, given: dict[str, Any]) -> None:
        if self.model.asked is not None:
            self.do(self.pressing(given))

    def link(self, actor: str, behalf: str, back: int) -> tuple[str, Asked, int]:
        """Its path's last part, what it asked, and its round."""
        asked = self.model.void_asked[-1] if back and self.model.void_asked else self.model.asked
        assert asked is not None
        number = self.model.round - (asked is not self.model.asked)
        link = Link(
            TENANT,
            self.model.run,
            APPROVAL,
            number,
            asked.plan,
            actor,
            rule_of(asked),
            self.world.clock() + WEEKS,
            behalf or None,
        )
        return self.world.current().links.seal(link), asked, number

    def pressing(self, given: dict[str, Any]) -> Op:
        actor, behalf = given["actor"], given["behalf"] if given["behalf"] != given["actor"] else ""
        token, asked, number = self.link(actor, behalf, given["back"])
        fields = {
            name: "1" if value is True else str(value)
            for name, value in given["inputs"].items()
            if name != "other" and value not in (None, False, "") and not isinstance(value, list)
        }
        comment = "why" if given["glass"] else given["comment"]
        form = {
            "decision": "approved" if given["approves"] else "rejected",
            "comment": comment,
            "confirmed": "1",
        }
        form |= {f"input.{name}": text for name, text in fields.items()}
        form |= {"breakGlass": "1"} if given["glass"] else {}

        def allows(model: Model, answer: Answer) -> bool:
            said = Said(
                actor,
                given["approves"],
                asked.plan,
                number,
                comment,
                frozenset(LINK_GRANTS[rule_of(asked)]),
                read_fields(model, fields) if given["approves"] else {},
                behalf,
                given["glass"],
            )
            try:
                if behalf and (actor, behalf) not in DEPUTIES:
                    raise Refused("grant_missing")
                model.decide(said, self.now, self.undo)
            except Refused:
                return 403 <= answer.status <= 422
            return answer.status == 303

        return Op(lambda node: self.submit(node, token, form), allows)

    async def submit(self, node: int, token: str, form: dict[str, str]) -> Answer:
        held = csrf.issue(self.world.current().keyring, token, self.world.clock())
        return await self.world.call(node, "POST", f"/approvals/{token}", data=form | {"csrf": held})

    @rule(given=back)
    def take_back(self, given: dict[str, Any]) -> None:
        """Where there is something to take back, and now and then where there is not."""
        if self.model.undoable or given["though"]:
            self.do(self.taking_back(given))

    def taking_back(self, given: dict[str, Any]) -> Op:
        actor, behalf = given["taken"], given["behalf"] if given["behalf"] != given["taken"] else ""
        token, asked, _ = self.link(actor, behalf, 0)

        def allows(model: Model, answer: Answer) -> bool:
            stands_in = not behalf or (actor, behalf) in DEPUTIES
            if not stands_in or not model.confers(LINK_GRANTS[rule_of(asked)], {actor, behalf} - {""}):
                return answer.status == 403
            try:
                model.take_back(actor, self.now)
            except Refused:
                return answer.status == 409
            return answer.status == 303

        return Op(lambda node: self.submit(node, token, {"takeBack": "1"}), allows)

    # -- time, and what befalls it ------------------------------------------------------------------------

    @rule(given=times)
    def turn(self, given: dict[str, Any]) -> None:
        self.world.clock.turn(given["seconds"])
        if given["undo"] is not None:
            self.use(given["undo"])

    def use(self, undo: int) -> None:
        """As a reload does."""
        self.undo = undo
        self.world.current.swap(self.world.registries[undo])

    @rule(given=times)
    def look(self, given: dict[str, Any]) -> None:
        self.world.clock.turn(given["seconds"])
        self.do(self.looking(given["node"]))
        self.settled()

    def looking(self, at: int = 0) -> Op:
        def allows(model: Model, _: Any) -> bool:
            model.look(self.now)
            return True

        return Op(lambda _: self.world.look(at), allows)

    @rule(kinds=races, one=ballots, press=presses, taken=back, request=requests)
    def race(self, kinds: dict[str, str], **given: dict[str, Any]) -> None:
        """Two things at once, at two nodes."""
        if self.model.asked is None:
            return
        ops: dict[str, Callable[[], Op]] = {
            "vote": lambda: self.voting(dict(given["one"])),
            "press": lambda: self.pressing(given["press"]),
            "take back": lambda: self.taking_back(given["taken"]),
            "ask": lambda: self.asking(dict(given["request"])),
            "look": self.looking,
            "cancelled": lambda: self.telling("cancelled"),
        }
        self.do(*(ops[kind]() for kind in kinds.values()))
        self.do(self.looking())
        self.settled()

    def teardown(self) -> None:
        """In the end everything has ended, is told once and is proved."""
        if self.failed:
            return
        for seconds in (7000, 14 * 24 * 3600):
            self.world.clock.turn(seconds)
            self.do(self.looking())
        self.do(self.looking(1))
        self.settled()
        self.runner.run(self.told_in_time())

    # -- what must be so ----------------------------------------------------------------------------------

    @staticmethod
    def differences(model: Model, answer: Answer) -> Iterator[str]:
        if not model.known:
            if answer.status != 404:
                yield "it is known"
            return
        shown = answer.json
        yield from compared("status", shown["status"], model.status)
        yield from compared("undoable", shown.get("undoable", False), model.undoable)
        votes = [*model.void, *model.votes]
        yield from compared("votes", [vote_of(one) for one in shown["decisions"]], list(map(seen, votes)))
        if model.asked is None:
            return
        yield from compared("round", (shown["round"], shown["planHash"]), (model.round, model.asked.plan))
        counted = shown["approvals"]
        yield from compared(
            "quorum", (counted["required"], counted["received"]), (model.required, model.received)
        )
        people = [name for group in counted.get("groups", ()) for name in group["actors"]]
        if len(people) != len(set(people)) or not set(people) <= model.approvers.keys():
            yield f"counted in groups: {people}"
        if model.asked.inputs:
            filled_in = {name: shown["inputs"][name] for name in ("proposed", "effective")}
            yield from compared("inputs", filled_in, model.filled_in)

    def settled(self) -> None:
        """After a look nothing is owed: what is due has been done, once."""
        self.failed = True
        self.runner.run(self._settled())
        self.failed = False

    async def _settled(self) -> None:
        found, _ = await self.world.store.audit(TENANT, AuditFilter(self.model.run), Page(1000))
        lines = (one.name.value.partition("pack.approval.") for one in found)
        audited = Counter(name for _, ours, name in lines if ours)
        # Whether a look came before what befell beside it may be told by nothing else.
        self.models = [next((one for one in self.models if Counter(one.audited) == audited), self.model)]
        model = self.model
        assert audited == Counter(model.audited)
        rows = await self.deliveries(RESUME_CHANNEL)
        assert len(rows) == model.callback_due
        receipt = await self.world.get(f"{self.path}/receipt")
        ended = model.status != "pending" and not model.undoable
        assert receipt.status == (200 if ended else 404)
        if ended:
            keys = await self.world.call(0, "GET", "/.well-known/notifyd/jwks.json")
            self.proves(receipt.body, keys.json)
        if rows:
            self.tells(await self.told(), receipt.body)

    async def deliveries(self, channel: str) -> list[Delivery]:
        """Those of this approval, over a channel."""
        rows, _ = await self.world.store.deliveries(TENANT, DeliveryFilter(channel=channel), Page(200))
        return [row for row in rows if row.run_id == self.model.run]

    async def told(self) -> dict[str, Any]:
        """What the one who asked was sent, under one id however often."""
        path, received = f"/{self.model.run}", self.world.runner.received
        await until(lambda: any(one.path == path for one in received))
        told = {one.headers["webhook-id"]: one.body for one in received if one.path == path}
        (body,) = told.values()
        data: dict[str, Any] = orjson.loads(body)["data"]
        return data

    def proves(self, receipt: bytes, keys: dict[str, Any]) -> None:
        said = receipt_reader.statement(receipt, keys)["predicate"]
        votes = [one.hash for one in self.model.votes]
        assert (said["status"], [one["decisionHash"] for one in said["decisions"]]) == (
            self.model.status,
            votes,
        )
        if self.model.by == "clock":
            assert said["way"] == "clock"

    def tells(self, data: dict[str, Any], receipt: bytes) -> None:
        model = self.model
        assert data["receiptHash"] == "sha256:" + hashlib.sha256(receipt).hexdigest()
        assert data["decision"] == model.status
        if model.by == "clock":
            assert (data["decisionHash"], data["actors"]) == (model.expiry_hash, [])
            return
        last = model.votes[-1]
        same = [vote.said for vote in model.votes if vote.said.approves is last.said.approves]
        assert data["decisionHash"] == last.hash
        assert data["actors"] == list(dict.fromkeys(said.actor for said in same))
        assert data.get("onBehalfOf", {}) == {said.actor: said.behalf for said in same if said.behalf}
        assert data.get("breakGlass", False) is last.said.glass
        assert data.get("inputs", {}) == last.inputs

    async def told_in_time(self) -> None:
        """Each reminder and escalation was an event of its own, once."""

        async def reminded() -> bool:
            rows = await self.deliveries("team")
            told = [row.event_key for row in rows if row.action == "reminded"]
            assert len(told) == len(set(told))
            return len(told) == sum(name.startswith("reminded") for _, name in self.model.told)

        await until_async(reminded)


def rule_of(asked: Asked) -> str:
    return "office" if asked.hours else "anytime"


def read_fields(model: Model, fields: Mapping[str, str]) -> dict[str, Any]:
    """What the page makes of a form: a box is ticked or not, a number is read, and an empty field is no value."""
    read: dict[str, Any] = {}
    for one in model.asked.inputs if model.asked else ():
        text = fields.get(one["name"], "")
        if one["type"] == "boolean":
            read[one["name"]] = bool(text)
        elif one["type"] == "number" and text.replace(".", "").isdigit():
            read[one["name"]] = json.loads(text)
        else:
            read[one["name"]] = text or None
    return read


def answers(model: Model, vote: Vote, answer: dict[str, Any]) -> bool:
    """Does the first answer to a vote tell the state that it made?"""
    decision = answer["decision"]
    return (answer["status"], decision["decisionHash"], decision["actor"]) == (
        model.status,
        vote.hash,
        vote.said.actor,
    ) and ("undoUntil" in decision) is vote.waits


def compared(name: str, found: Any, expected: Any) -> Iterator[str]:
    if found != expected:
        yield f"{name}: {found} and not {expected}"


def vote_of(shown: dict[str, Any]) -> tuple[Any, ...]:
    names = ("decision", "actor", "decisionHash", "round", "breakGlass", "inputs", "onBehalfOf", "comment")
    return (*(shown[name] for name in names), set(shown["groups"]))


def seen(vote: Vote) -> tuple[Any, ...]:
    said = vote.said
    told = (said.decision, said.actor, vote.hash, vote.round, said.glass, vote.inputs, said.behalf or None)
    return (*told, said.comment, vote.groups)


PROFILE: Final = settings()
DEEP: Final = PROFILE.max_examples > 100  # as in the profile `deep`


def play(url: str, examples: int) -> None:
    """Play against the store at `url`."""
    played = settings(
        max_examples=PROFILE.max_examples // 10 if DEEP else examples,
        stateful_step_count=50 if DEEP else 20,
        derandomize=not DEEP,  # a fault that is found by chance is not to stop whoever did not make it
        database=None,
        phases=[Phase.generate],  # to shrink what was found would take longer than a test may
        suppress_health_check=list(HealthCheck),
    )
    with asyncio.Runner() as runner:
        resources = AsyncExitStack()
        try:
            shared = runner.run(resources.enter_async_context(world(url)))
            machine = type("Played", (Machine,), {"world": shared, "runner": runner})
            run_state_machine_as_test(machine, settings=played)
        finally:
            runner.run(resources.aclose())


def test_approvals_over_sqlite_are_as_the_documentation_has_them(tmp_path: Path) -> None:
    play(f"sqlite:///{tmp_path}/notifyd.db", examples=8)


@pytest.mark.long
def test_approvals_over_mongodb_are_as_the_documentation_has_them(mongo_server: MongoServer) -> None:
    play(mongo_server.database(), examples=2)
