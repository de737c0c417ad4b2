"""The services ``http`` and ``crypto`` of the fake.

Digests, codes and derived keys are real. Signatures and encryption are not, because the standard
library of Python has none: a signature is a code by the ``kid`` of a JSON Web Key, or by the text
of another key. So a test can sign with ``crypto.sign`` and any key of the same ``kid``.
"""

from __future__ import annotations

import enum
import hashlib
import hmac as hmac_module
import json
from collections.abc import Callable
from dataclasses import dataclass

Fields = list[tuple[str, str]]


@dataclass
class FakeCall:
    """A request that a filter sends."""

    method: str
    url: str
    headers: Fields
    body: bytes
    timeout_ms: int


@dataclass
class FakeAnswer:
    """The response of a service."""

    status: int
    headers: Fields
    body: bytes


Service = Callable[[FakeCall], FakeAnswer]


class _Err(Exception):
    def __init__(self, value: object) -> None:
        self.value = value


@dataclass
class _Settings:
    service: Service | None = None
    secrets: dict[str, bytes] | None = None


_settings = _Settings()


def set_up(service: Service | None, secrets: dict[str, bytes] | None) -> None:
    """Sets what responds to the calls of the filter, and its keys."""
    _settings.service, _settings.secrets = service, secrets


class http:  # noqa: N801 - stands for a module
    Request = FakeCall
    Response = FakeAnswer
    Err = _Err

    @dataclass
    class Error_Denied:  # noqa: N801 - the name that the bindings use
        value: str

    @dataclass
    class Error_Timeout:  # noqa: N801
        value: str

    @dataclass
    class Error_Unavailable:  # noqa: N801
        value: str

    @staticmethod
    def send(request: FakeCall) -> FakeAnswer:
        if _settings.service is None:
            raise _Err(http.Error_Denied("give the fake an `http` function that returns a response"))
        return _settings.service(request)


@dataclass(frozen=True)
class _Key:
    value: bytes | str


class crypto:  # noqa: N801
    class Hash(enum.Enum):
        SHA1 = "sha1"
        SHA256 = "sha256"
        SHA384 = "sha384"
        SHA512 = "sha512"

    class Algorithm(enum.Enum):
        RS256 = 0
        PS256 = 1
        ES256 = 2
        ES384 = 3
        EDDSA = 4

    class Key_Raw(_Key):  # noqa: N801
        pass

    class Key_Jwk(_Key):  # noqa: N801
        pass

    class Key_Pem(_Key):  # noqa: N801
        pass

    class Key_Secret(_Key):  # noqa: N801
        pass

    @dataclass
    class Error_Denied:  # noqa: N801
        value: str

    Err = _Err

    @staticmethod
    def digest(hash: crypto.Hash, data: bytes) -> bytes:
        return hashlib.new(hash.value, data).digest()

    @staticmethod
    def hmac(hash: crypto.Hash, key: _Key, data: bytes) -> bytes:
        return hmac_module.digest(_material(key), data, hash.value)

    @staticmethod
    def equal(a: bytes, b: bytes) -> bool:
        return hmac_module.compare_digest(a, b)

    @staticmethod
    def sign(algorithm: crypto.Algorithm, key: _Key, data: bytes) -> bytes:
        return hmac_module.digest(algorithm.name.encode() + _material(key), data, "sha256")

    @staticmethod
    def verify(algorithm: crypto.Algorithm, key: _Key, data: bytes, signature: bytes) -> bool:
        return hmac_module.compare_digest(crypto.sign(algorithm, key, data), signature)

    @staticmethod
    def encrypt(key: _Key, nonce: bytes, data: bytes, additional: bytes) -> bytes:
        stream = hashlib.shake_256(_material(key) + nonce).digest(len(data))
        text = bytes(a ^ b for a, b in zip(data, stream, strict=True))
        return text + hmac_module.digest(_material(key), nonce + text + additional, "sha256")[:16]

    @staticmethod
    def decrypt(key: _Key, nonce: bytes, data: bytes, additional: bytes) -> bytes | None:
        stream = hashlib.shake_256(_material(key) + nonce).digest(max(0, len(data) - 16))
        text = bytes(a ^ b for a, b in zip(data[:-16], stream, strict=True))
        return text if crypto.encrypt(key, nonce, text, additional) == data else None

    @staticmethod
    def derive(hash: crypto.Hash, password: _Key, salt: bytes, iterations: int, length: int) -> bytes:
        return hashlib.pbkdf2_hmac(hash.value, _material(password), salt, iterations, length)


def _material(key: _Key) -> bytes:
    if isinstance(key, crypto.Key_Secret):
        secret = (_settings.secrets or {}).get(str(key.value))
        if secret is None:
            raise _Err(crypto.Error_Denied(f"there is no key {key.value!r}"))
        return secret
    if isinstance(key, crypto.Key_Jwk):
        return str(json.loads(key.value).get("kid", key.value)).encode()
    return key.value if isinstance(key.value, bytes) else key.value.encode()
