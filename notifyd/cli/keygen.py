"""`notifyd keygen`: keys, secrets and tokens from the system's random source."""

from __future__ import annotations

import base64
import hashlib
import secrets

import click

from notifyd.cli.common import json_option, needless_config_option, print_json

_BYTES = 32


@click.command()
@click.option("--hmac", "kind", flag_value="hmac", help="A secret to sign with, whsec_<base64>.")
@click.option("--token", "kind", flag_value="token", help="An API token, and its hash for the configuration.")
@click.option(
    "--sign", "kind", flag_value="sign", help="A key for keys.sign, whsk_<base64>, and its public one."
)
@needless_config_option
@json_option
def keygen(kind: str | None, as_json: bool) -> None:
    """Make a key for keys.seal, or with an option something else. It is printed and kept nowhere."""
    made = {"hmac": _hmac_secret, "token": _api_token, "sign": _signing_key, None: _seal_key}[kind]()
    if as_json:
        print_json(made)
    elif kind == "token":
        click.echo(made["token"])
        click.echo(f'token_hashes = ["{made["tokenHash"]}"]')
    else:
        for value in made.values():
            click.echo(value)


def _seal_key() -> dict[str, str]:
    return {"sealKey": _base64(secrets.token_bytes(_BYTES))}


def _hmac_secret() -> dict[str, str]:
    return {"hmacSecret": "whsec_" + _base64(secrets.token_bytes(_BYTES))}


def _api_token() -> dict[str, str]:
    # The prefix lets a scanner of repositories know one where it should not be.
    token = "notifyd_" + secrets.token_urlsafe(_BYTES)
    return {"token": token, "tokenHash": "sha256:" + hashlib.sha256(token.encode()).hexdigest()}


def _signing_key() -> dict[str, str]:
    from notifyd.security.secrets import Secret
    from notifyd.security.signing import PRIVATE_PREFIX, public_text, signing_key

    key = PRIVATE_PREFIX + _base64(secrets.token_bytes(_BYTES))
    return {"signKey": key, "publicKey": public_text(signing_key(Secret(key)))}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
