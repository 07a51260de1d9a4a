"""Private keys of every type, and the files that hold them, as openssl, ssh-keygen and consoles write them."""

from __future__ import annotations

import functools
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.public import load_public

MAKERS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-again": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa3": lambda: rsa.generate_private_key(3, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed448": ed448.Ed448PrivateKey.generate,
    "x25519": x25519.X25519PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(2048),
}
TAKEN = ("rsa", "rsa3", "p256", "p384", "p521", "ed25519")
_FORMATS = {
    "pkcs8": PrivateFormat.PKCS8,
    "old": PrivateFormat.TraditionalOpenSSL,  # PKCS#1 of RSA, SEC1 of EC
    "ssh": PrivateFormat.OpenSSH,
}


@functools.cache
def private(kind: str) -> Any:
    """Return a private key, the same for the same name."""
    return MAKERS[kind]()


def pem(kind: str, form: str = "pkcs8", passphrase: bytes | None = None) -> bytes:
    """Return it as PEM: `form` is pkcs8, old or ssh."""
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return private(kind).private_bytes(Encoding.PEM, _FORMATS[form], lock)


def der(kind: str, form: str = "pkcs8", passphrase: bytes | None = None) -> bytes:
    """Return it as DER."""
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return private(kind).private_bytes(Encoding.DER, _FORMATS[form], lock)


def public_pem(kind: str) -> bytes:
    """Return its public half as PEM."""
    return private(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public(kind: str) -> PublicKey:
    """Return its public half in numbers."""
    return load_public(public_pem(kind))


def shreds(data: bytes, size: int = 16) -> list[str]:
    """Return pieces of a PEM file's base64, of which none may stand in any output."""
    text = b"".join(line for line in data.splitlines() if b"-" not in line and b":" not in line).decode()
    return [text[at : at + size] for at in range(0, len(text) - size, size)]
