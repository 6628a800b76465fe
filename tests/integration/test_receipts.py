"""The receipt of an approval's end: what it says, that it stays, and that nothing in it can be changed."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined] # it has no __all__

from notifyd.security.dsse import EnvelopeError, sealed
from notifyd.security.jwt import KeySet
from notifyd.security.secrets import Secret
from notifyd.security.signing import SigningKeys
from tests import receipt_reader
from tests.daemon import TOKENS, Daemon, daemon
from tests.forked import notifyd as run
from tests.integration.test_own_signatures import NEW, OLD, config
from tests.integration.test_web_approvals import ACK, ONE, ack, problem
from tests.sinks import HttpSink
from tests.store.makers import audit_record
from tests.waiting import until_async

RECEIPT = f"{ONE}/receipt"
JWKS = "/.well-known/notifyd/jwks.json"
NOBODY = "http://127.0.0.1:9"


async def ended(notifyd: Daemon, comment: str = "Checked the migration.") -> dict[str, Any]:
    asked = await notifyd.ask()
    await notifyd.signed(ACK, ack(asked, comment=comment))
    return asked


async def keys_of(notifyd: Daemon) -> Any:
    return (await notifyd.get(JWKS, None)).json


async def test_a_receipt_says_who_decided_what_and_outsiders_can_read_it(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        asked = await ended(notifyd)
        receipt, jwks = (await notifyd.get(RECEIPT)).text, await keys_of(notifyd)
        shown = await notifyd.approval(asked)
    said = receipt_reader.statement(receipt.encode(), jwks)
    (vote,) = shown["decisions"]
    assert said["subject"] == [
        {"name": "run-0042/deploy-prod", "digest": {"sha256": asked["planHash"].removeprefix("sha256:")}}
    ]
    assert said["predicate"] | {"auditHead": None} == {
        "tenant": "acme",
        "runId": "run-0042",
        "approvalId": "deploy-prod",
        "round": 1,
        "status": "approved",
        "endedAt": shown["endedAt"],
        "endedBy": "alice@acme.example",
        "way": "client",
        "requestedBy": shown["requestedBy"],
        "requestedAt": shown["requestedAt"],
        "client": "task-runner",
        "eventId": asked["eventId"],
        "requiredApprovals": 1,
        "auditHead": None,
        "decisions": [
            {
                "decision": "approved",
                "decisionHash": vote["decisionHash"],
                "actor": "alice@acme.example",
                "onBehalfOf": None,
                "decidedAt": vote["decidedAt"],
                "way": "client",
                "client": "task-runner",
                "reason": {"sha256": hashlib.sha256(b"Checked the migration.").hexdigest()},
                "inputs": None,
                "groups": [],
                "breakGlass": False,
            }
        ],
    }
    assert "Checked" not in base64.b64decode(orjson.loads(receipt)["payload"]).decode()
    assert by_securesystemslib(receipt, jwks) == said


def by_securesystemslib(receipt: str, jwks: Any) -> Any:
    """The statement, as a verifier of in-toto's own house reads it."""
    envelope = dsse.Envelope.from_dict(json.loads(receipt))
    public = base64.urlsafe_b64decode(jwks["keys"][0]["x"] + "=").hex()
    key = SSlibKey(jwks["keys"][0]["kid"], "ed25519", "ed25519", {"public": public})
    envelope.verify([key], threshold=1)
    return json.loads(envelope.payload)


async def test_a_receipt_names_the_head_of_the_audit_trail_which_the_chain_still_has(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        await notifyd.app._store.write_audit([audit_record("before")])
        await notifyd.app._sealing.sweep()
        await ended(notifyd)
        told = await verified(tmp_path, (await notifyd.get(RECEIPT)).text)
        (head,) = (line.split()[1] for line in told.stdout.splitlines() if line.startswith("auditHead"))
        environ = {"NOTIFYD_URL": notifyd.url, "NOTIFYD_TOKEN": TOKENS["reader"]}
        assert (await run("audit", "verify", "--head", head, environ=environ)).code == 0
        changed = await run("audit", "verify", "--head", f"{head[:-1]}x", environ=environ)
        assert (changed.code, "is not in the chain" in changed.stdout) == (1, True)


async def test_a_receipt_stays_the_same_bytes_after_its_key_was_replaced(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        await ended(notifyd)
        first = await notifyd.get(RECEIPT)
        await notifyd.reload(config(NOBODY, NEW, OLD))
        assert (await notifyd.get(RECEIPT)).text == first.text
        assert receipt_reader.statement(first.text.encode(), await keys_of(notifyd))
        await notifyd.reload(config(NOBODY))
        assert (await notifyd.get(RECEIPT)).text == first.text


async def test_the_callback_names_its_receipt_by_the_hash_of_its_bytes(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon(tmp_path, config(sink.url, OLD)) as notifyd:
        asked = await notifyd.ask(resume={"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc"})
        await notifyd.signed(ACK, ack(asked, decision="rejected", comment="No."))
        (callback,) = await sink.wait(1, lambda one: one.path == "/resume")
        receipt = (await notifyd.get(RECEIPT)).text
        named = orjson.loads(callback.body)["data"]["receiptHash"]
        assert named == "sha256:" + hashlib.sha256(receipt.encode()).hexdigest()
        said = receipt_reader.statement(receipt.encode(), await keys_of(notifyd))
        assert said["predicate"]["status"] == "rejected"


async def test_ends_without_a_vote_have_receipts_that_say_by_which_way(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        asked = await notifyd.ask()
        updated = {
            **{name: asked[name] for name in ("tenant", "runId", "approvalId", "planHash", "occurredAt")},
            "type": "PackApprovalUpdated",
            "eventId": "e-2",
            "status": "cancelled",
            "decidedBy": "ci",
        }
        assert (await notifyd.signed("/notifications/pack-approvals", updated)).status == 202
        late = await notifyd.ask(approvalId="late")
        notifyd.clock.turn(8 * 86400)

        async def expired() -> bool:
            return bool((await notifyd.approval(late))["status"] == "expired")

        await until_async(expired)
        jwks, ways = await keys_of(notifyd), {}
        for approval in ("deploy-prod", "late"):
            receipt = (await notifyd.get(f"/notifications/pack-approvals/run-0042/{approval}/receipt")).text
            said = receipt_reader.statement(receipt.encode(), jwks)["predicate"]
            ways[approval] = (said["status"], said["way"], said["endedBy"], said["decisions"])
        assert ways == {
            "deploy-prod": ("cancelled", "event", "ci", []),
            "late": ("expired", "clock", "notifyd", []),
        }


async def test_there_is_no_receipt_before_the_end_nor_for_another_tenant(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        assert problem(await notifyd.get(RECEIPT)) == (404, "not_found")
        asked = await notifyd.ask()
        assert problem(await notifyd.get(RECEIPT)) == (404, "not_found")
        await notifyd.signed(ACK, ack(asked))
        assert (await notifyd.get(RECEIPT)).status == 200
        assert problem(await notifyd.get(RECEIPT, "outsider")) == (404, "not_found")
        assert problem(await notifyd.get(RECEIPT, "task-runner")) == (403, "scope_missing")
        assert problem(await notifyd.get(RECEIPT, None)) == (401, "unauthenticated")


async def test_there_is_no_receipt_of_an_end_that_can_still_be_taken_back(tmp_path: Path) -> None:
    text = config(NOBODY, OLD) + '\n[approvals]\nundo = "1h"\nrequire_reason = []\n'
    async with daemon(tmp_path, text) as notifyd:
        asked = await notifyd.ask()
        ballot = {"decision": "approved", "planHash": asked["planHash"]}
        assert (await notifyd.post(ACK, ballot, "task-runner")).status == 200
        assert problem(await notifyd.get(RECEIPT)) == (404, "not_found")
        notifyd.clock.turn(3601)

        async def final() -> bool:
            return (await notifyd.get(RECEIPT)).status == 200

        await until_async(final)


async def test_without_a_key_there_is_a_problem_that_says_so_until_there_is_one(tmp_path: Path) -> None:
    async with HttpSink() as sink, daemon(tmp_path, config(sink.url)) as notifyd:
        asked = await notifyd.ask(resume={"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc"})
        await notifyd.signed(ACK, ack(asked))
        (callback,) = await sink.wait(1, lambda one: one.path == "/resume")
        assert "receiptHash" not in orjson.loads(callback.body)["data"]
        assert problem(await notifyd.get(RECEIPT)) == (409, "no_signing_key")
        await notifyd.reload(config(sink.url, OLD))
        assert receipt_reader.statement((await notifyd.get(RECEIPT)).text.encode(), await keys_of(notifyd))


# --- the command -------------------------------------------------------------------------------------------

SEALED = sealed(
    SigningKeys([Secret(OLD)]),
    "application/vnd.in-toto+json",
    json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "run-0042/deploy-prod", "digest": {"sha256": "a" * 64}}],
            "predicateType": "urn:notifyd:approval:v1",
            "predicate": {"status": "approved", "tenant": "acme", "runId": "run-0042", "round": 1}
            | {"approvalId": "deploy-prod", "endedAt": "2026-11-04T10:00:00Z", "endedBy": "alice"}
            | {"decisions": [{"actor": "alice", "decision": "approved", "way": "link"}]},
        }
    ).encode(),
)
PUBLISHED = json.dumps(SigningKeys([Secret(OLD)]).jwks())
OTHERS = json.dumps(SigningKeys([Secret(NEW)]).jwks())


async def verified(tmp_path: Path, receipt: str, keys: str = PUBLISHED, *more: str) -> Any:
    (tmp_path / "receipt.json").write_text(receipt)
    (tmp_path / "keys.json").write_text(keys)
    files = (tmp_path / "receipt.json", "--keys", tmp_path / "keys.json")
    return await run("receipt", "verify", *files, *more)


async def test_the_command_proves_a_receipt_with_the_public_keys_alone(tmp_path: Path) -> None:
    told = await verified(tmp_path, SEALED + "\n")
    assert (told.code, told.stderr) == (0, "")
    assert "alice approved (link)" in told.stdout
    assert "sha256:" + "a" * 64 in told.stdout
    assert (await verified(tmp_path, SEALED, PUBLISHED, "--json")).json["predicate"]["runId"] == "run-0042"


async def test_the_command_takes_the_keys_from_the_service_that_publishes_them(tmp_path: Path) -> None:
    async with daemon(tmp_path, config(NOBODY, OLD)) as notifyd:
        (tmp_path / "receipt.json").write_text(SEALED)
        told = await run("receipt", "verify", tmp_path / "receipt.json", "--keys", notifyd.url + JWKS)
        assert (told.code, told.stderr) == (0, "")
        gone = await run("receipt", "verify", tmp_path / "receipt.json", "--keys", notifyd.url + "/nothing")
        assert (gone.code, "404" in gone.stderr) == (1, True)
    plain = await run("receipt", "verify", tmp_path / "receipt.json", "--keys", "http://acme.example/keys")
    assert (plain.code, "https" in plain.stderr) == (2, True)


@pytest.mark.parametrize(
    ("change", "keys", "wrong"),
    [
        (lambda text: text, OTHERS, "is not among the public keys"),
        (lambda text: text.replace("in-toto+json", "in-toto+jso"), PUBLISHED, "payloadType"),
        (lambda text: text.replace('"payload":"e', '"payload":"f'), PUBLISHED, "the signature is not one of"),
        (lambda text: text.replace('"sig":"', '"sig":"-'), PUBLISHED, "sig is not base64"),
        (lambda text: text[:-1], PUBLISHED, "it is not JSON"),
        (lambda text: text.replace("{", '{"x":1,', 1), PUBLISHED, "not a DSSE envelope"),
        (lambda text: text, "{}", "is not a JSON Web Key Set"),
    ],
    ids=["another key", "payload type", "payload", "signature", "cut", "a member more", "no keys"],
)
async def test_the_command_says_what_is_wrong(tmp_path: Path, change: Any, keys: str, wrong: str) -> None:
    told = await verified(tmp_path, change(SEALED), keys)
    assert (told.code, told.stdout) == (1, "")
    assert wrong in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_no_bit_of_a_receipt_can_be_changed() -> None:
    from notifyd.approval.receipts import prove

    keys, receipt = KeySet.parse(PUBLISHED), SEALED.encode()
    assert prove(receipt, keys).keys
    for place in range(len(receipt)):
        changed = bytearray(receipt)
        changed[place] ^= 1 << place % 8
        with pytest.raises(EnvelopeError):
            prove(bytes(changed), keys)
        with pytest.raises((ValueError, KeyError, TypeError)):
            receipt_reader.statement(bytes(changed), json.loads(PUBLISHED))


def test_what_the_same_key_has_signed_of_another_kind_is_no_receipt() -> None:
    from notifyd.approval.receipts import prove

    keys = SigningKeys([Secret(OLD)])
    payload = base64.b64decode(json.loads(SEALED)["payload"])
    swapped = sealed(keys, "application/json", payload).replace(
        '"application/json"', '"application/vnd.in-toto+json"'
    )
    with pytest.raises(EnvelopeError, match="signature"):
        prove(swapped, KeySet.parse(PUBLISHED))
    other = sealed(
        keys,
        "application/vnd.in-toto+json",
        payload.replace(b"urn:notifyd:approval:v1", b"https://slsa.dev/provenance/v1"),
    )
    with pytest.raises(EnvelopeError, match="predicateType"):
        prove(other, KeySet.parse(PUBLISHED))
    for nobody in ("[]", "{}", '"x"'):
        unsigned = json.dumps(json.loads(SEALED) | {"signatures": json.loads(nobody)})
        with pytest.raises(EnvelopeError, match="nobody"):
            prove(unsigned, KeySet.parse(PUBLISHED))
