"""Keys in software that sign with every algorithm: for what only has to be signed by somebody."""

from __future__ import annotations

import functools
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm
from hsmjwt.jose.keys import CURVES, EcKey
from hsmjwt.x509.public import load_public

HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


class SoftKey:
    """A Signer whose key is in memory."""

    def __init__(self, private: Any) -> None:
        self.private = private
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.public_key = load_public(spki)

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the signature in JOSE's form."""
        if not alg.hash_name:
            return self.private.sign(message)
        digest = HASHES[alg.hash_name]
        if isinstance(self.public_key, EcKey):
            halves = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(digest)))
            return b"".join(half.to_bytes(CURVES[self.public_key.crv].width, "big") for half in halves)
        way = padding.PSS(padding.MGF1(digest), digest.digest_size) if alg.pss else padding.PKCS1v15()
        return self.private.sign(message, way, digest)


@functools.cache
def soft_key(kind: str) -> SoftKey:
    """Return a key of a kind, made once: `RSA` or the name of a curve; what follows a slash asks for another one."""
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    name = kind.partition("/")[0]
    if name == "RSA":
        return SoftKey(rsa.generate_private_key(65537, 2048))
    if name == "Ed25519":
        return SoftKey(ed25519.Ed25519PrivateKey.generate())
    return SoftKey(ec.generate_private_key(curves[name]))


def for_alg(name: str) -> tuple[SoftKey, Algorithm]:
    """Return a key that fits the algorithm, and the algorithm."""
    alg = ALGORITHMS[name]
    return soft_key(alg.crv or alg.kty), alg
