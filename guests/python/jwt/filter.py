"""Accepts a request only with a JSON Web Token (RFC 7519) that the issuer signed.

The issuer's keys come from its key set (RFC 7517) and are kept in the key-value store. An issuer
that changes its keys names a key in a token that the filter does not know: then the filter fetches
the set again, at most once in `refetch_seconds`, so that invented names cause no flood.

The same filter exists in TypeScript.
"""

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from witgate import HttpError, Reply, Request, config, crypto, http, keyvalue, log, reply

KEYS, FETCHED = "jwks", "jwks.fetched"
# The algorithms that a token may choose. `none` and shared keys are not among them.
KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "ES384": "EC", "EdDSA": "OKP"}

_find_token = re.compile(r"Bearer +([\w-]+)\.([\w-]+)\.([\w-]+)", re.IGNORECASE | re.ASCII).fullmatch


class Unauthorized(Exception):
    """Why the token is refused. The client may know it."""


@dataclass
class Token:
    """A token whose signature has not been checked."""

    algorithm: Any
    kid: str | None
    claims: dict[str, Any]
    signed: str
    signature: bytes


def on_request(request: Request) -> Reply | None:
    try:
        token = parse(request.header("authorization") or "")
        keys = keys_for(token.kid)
        if not any(crypto.verify(token.algorithm, key, token.signed, token.signature) for key in keys if fits(key, token)):
            raise Unauthorized("the signature is not valid")
        check_claims(token.claims)
    except Unauthorized as refusal:
        challenge = f'Bearer error="invalid_token", error_description="{refusal}"'
        return reply(401, {"error": str(refusal)}, {"www-authenticate": challenge})
    except (HttpError, OSError) as failure:
        # Without the keys no token can be checked, and a token that is not checked is not valid.
        log.error(f"the keys of the issuer cannot be fetched: {failure}")
        return reply(503, {"error": "tokens cannot be checked at the moment"})
    # Replaces what the client sent: only a token says who the user is.
    subject = token.claims.get("sub")
    request.set_header("x-user", subject if isinstance(subject, str) else "")
    request.remove_header("authorization")
    return None


def parse(field: str) -> Token:
    """Takes the token of an `authorization` field apart."""
    match = _find_token(field.strip())
    if match is None:
        raise Unauthorized("a bearer token is required")
    head, body, signature = match.groups()
    try:
        header, claims = json.loads(decode(head)), json.loads(decode(body))
        kid = header.get("kid")
        if not isinstance(claims, dict) or not (kid is None or isinstance(kid, str)):
            raise ValueError("a part has the wrong type")
        token = Token(header.get("alg"), kid, claims, f"{head}.{body}", decode(signature))
    except (ValueError, AttributeError):
        raise Unauthorized("the token is malformed") from None
    if token.algorithm not in KEY_TYPES:
        raise Unauthorized("the algorithm of the token is not accepted")
    if "crit" in header:
        raise Unauthorized("the token has an extension that is not understood")
    return token


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def keys_for(kid: str | None) -> list[dict[str, Any]]:
    """The keys of the issuer: from the store, or fetched anew if they do not contain this one."""
    stored = keyvalue.get(KEYS)
    known: list[dict[str, Any]] | None = None if stored is None else json.loads(stored)
    if known is not None and (kid is None or any(key.get("kid") == kid for key in known)):
        return known
    # Only the first of simultaneous calls fetches. The others use what is known.
    is_first = keyvalue.increment(FETCHED, 1, int(config.get("refetch_seconds") or 10) * 1000) == 1
    if known is not None and not is_first:
        return known
    try:
        return fetch_keys()
    except (HttpError, OSError) as failure:
        if known is None:
            raise
        log.warn(f"the keys of the issuer cannot be fetched again: {failure}")
        return known


def fetch_keys() -> list[dict[str, Any]]:
    url = config.get("jwks_url") or ""
    response = http.get(url, {"accept": "application/json"})
    if not response.ok:
        raise OSError(f"{url} answered with status {response.status}")
    try:
        keys = [key for key in response.json()["keys"] if key.get("use") in (None, "sig")][:20]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OSError(f"{url} has no key set") from None
    keyvalue.set(KEYS, json.dumps(keys), int(config.get("cache_seconds") or 600) * 1000)
    return keys


def fits(key: dict[str, Any], token: Token) -> bool:
    is_named = token.kid is None or key.get("kid") in (None, token.kid)
    return is_named and key.get("kty") == KEY_TYPES[token.algorithm] and key.get("alg") in (None, token.algorithm)


def check_claims(claims: dict[str, Any]) -> None:
    """Refuses a token that is not for now, from the issuer, and for this audience. One without an
    end of its validity is refused, too."""
    now, leeway = time.time(), int(config.get("leeway_seconds") or 30)
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, (int, float)) or expires + leeway <= now:
        raise Unauthorized("the token has expired")
    if not isinstance(begins, (int, float)) or begins - leeway > now:
        raise Unauthorized("the token is not valid yet")
    if config.get("issuer") not in (None, claims.get("iss")):
        raise Unauthorized("the token is from another issuer")
    audiences = claims.get("aud")
    if config.get("audience") not in (None, *(audiences if isinstance(audiences, list) else [audiences])):
        raise Unauthorized("the token is for another audience")
