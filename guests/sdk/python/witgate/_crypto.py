"""Cryptography: ``crypto``."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from witgate import _check, _host

Hash = Literal["SHA-1", "SHA-256", "SHA-384", "SHA-512"]
Algorithm = Literal["RS256", "PS256", "ES256", "ES384", "EdDSA"]

_HASHES = {"SHA-1": "SHA1", "SHA-256": "SHA256", "SHA-384": "SHA384", "SHA-512": "SHA512"}
_ALGORITHMS = {
    "RS256": "RS256",
    "PS256": "PS256",
    "ES256": "ES256",
    "ES384": "ES384",
    "EdDSA": "EDDSA",
    "Ed25519": "EDDSA",
}
_NONCE_BYTES = 12


class CryptoError(RuntimeError):
    """Why the gateway refused a key or another argument. ``kind`` is ``denied``, ``invalidkey`` or
    ``invalid``; the text says why and never contains a part of a key."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Secret:
    """A key that the operator gave to the filter under ``crypto.keys``. It does not enter the
    filter."""

    name: str


SharedKey = bytes | str | Secret
PairKey = str | Mapping[str, object] | Secret


class crypto:  # noqa: N801 - authors use it like a module
    """Cryptography. Requires ``services = ["crypto"]`` in filter.toml and
    ``capabilities: [crypto]`` in gateway.yaml.

    A shared key or a password is bytes, text (its bytes in UTF-8) or a ``Secret``. A key of a key
    pair is a JSON Web Key as a dictionary or as text, a PEM text, or a ``Secret``. Data is bytes or
    text. Raises ``CryptoError`` for a key or an argument that the gateway refuses.
    """

    @staticmethod
    def digest(hash: Hash, data: bytes | str) -> bytes:
        """Returns the digest of ``data``."""
        return bytes(_call("digest", lambda raw: raw.digest(_hash(raw, hash), _bytes(data))))

    @staticmethod
    def hmac(hash: Hash, key: SharedKey, data: bytes | str) -> bytes:
        """Returns the message authentication code of ``data``."""
        return bytes(_call("hmac", lambda raw: raw.hmac(_hash(raw, hash), _shared(raw, key), _bytes(data))))

    @staticmethod
    def equal(a: bytes | str, b: bytes | str) -> bool:
        """Compares two values in a time that depends on their lengths only."""
        return bool(_call("equal", lambda raw: raw.equal(_bytes(a), _bytes(b))))

    @staticmethod
    def verify(algorithm: Algorithm, key: PairKey, data: bytes | str, signature: bytes) -> bool:
        """Returns whether ``signature`` is the signature of ``data``."""
        return bool(
            _call("verify", lambda raw: raw.verify(_algorithm(raw, algorithm), _pair(raw, key), _bytes(data), signature))
        )

    @staticmethod
    def sign(algorithm: Algorithm, key: PairKey, data: bytes | str) -> bytes:
        """Returns the signature of ``data``. ECDSA gives r and s, as tokens have it."""
        return bytes(_call("sign", lambda raw: raw.sign(_algorithm(raw, algorithm), _pair(raw, key), _bytes(data))))

    @staticmethod
    def encrypt(key: SharedKey, data: bytes | str, additional: bytes | str = b"") -> bytes:
        """Encrypts with AES-GCM. The key has 16 or 32 bytes. Returns a nonce of 12 random bytes,
        the encrypted text and its tag in one value, which ``decrypt`` takes."""
        nonce = bytes(_host.random.bytes(_NONCE_BYTES))
        sealed = _call("encrypt", lambda raw: raw.encrypt(_shared(raw, key), nonce, _bytes(data), _bytes(additional)))
        return nonce + bytes(sealed)

    @staticmethod
    def decrypt(key: SharedKey, data: bytes, additional: bytes | str = b"") -> bytes | None:
        """Decrypts what ``encrypt`` returned. ``None`` if it is something else or the key
        differs."""
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        if len(nonce) < _NONCE_BYTES:
            return None
        text = _call("decrypt", lambda raw: raw.decrypt(_shared(raw, key), nonce, sealed, _bytes(additional)))
        return None if text is None else bytes(text)

    @staticmethod
    def derive(hash: Hash, password: SharedKey, salt: bytes | str, iterations: int, length: int) -> bytes:
        """Derives a key of ``length`` bytes (1 to 64) from a password with PBKDF2, in 1 to
        1,000,000 iterations."""
        iterations = _check.units(iterations, "iterations", 1, 1_000_000)
        length = _check.units(length, "length", 1, 64)
        secret = _call(
            "derive",
            lambda raw: raw.derive(_hash(raw, hash), _shared(raw, password), _bytes(salt), iterations, length),
        )
        return bytes(secret)


def _bytes(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return _check.text(value, "data").encode()


def _hash(raw: Any, name: str) -> Any:
    if name not in _HASHES:
        raise ValueError(f"the hash is one of {', '.join(_HASHES)}, not {name!r:.100}")
    return getattr(raw.Hash, _HASHES[name])


def _algorithm(raw: Any, name: str) -> Any:
    if name not in _ALGORITHMS:
        raise ValueError(f"the algorithm is RS256, PS256, ES256, ES384 or EdDSA, not {name!r:.100}")
    return getattr(raw.Algorithm, _ALGORITHMS[name])


def _shared(raw: Any, key: SharedKey) -> Any:
    return raw.Key_Secret(_check.text(key.name, "a name")) if isinstance(key, Secret) else raw.Key_Raw(_bytes(key))


def _pair(raw: Any, key: PairKey) -> Any:
    if isinstance(key, Secret):
        return raw.Key_Secret(_check.text(key.name, "a name"))
    if isinstance(key, Mapping):
        return raw.Key_Jwk(json.dumps(dict(key)))
    text = _check.text(key, "a key")
    return raw.Key_Jwk(text) if text.lstrip().startswith("{") else raw.Key_Pem(text)


def _call(operation: str, work: Callable[[Any], Any]) -> Any:
    """Calls the gateway. The bindings raise an ``Err`` without a message: raises a ``CryptoError``
    with a message instead."""
    raw: Any = _host.crypto
    if raw is None:
        raise RuntimeError('crypto is not available: add `services = ["crypto"]` to filter.toml')
    try:
        return work(raw)
    except Exception as refusal:
        error = getattr(refusal, "value", None)
        if error is None:
            raise
        kind = type(error).__name__.removeprefix("Error_").lower()
        raise CryptoError(kind, f"crypto.{operation}: {kind}: {getattr(error, 'value', error)}") from None
