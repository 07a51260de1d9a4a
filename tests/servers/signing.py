"""A key in software that is a Signer, and profiles from flags: for tests that are not about tokens."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hsmjwt.config import Settings
from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.keys import RsaKey
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve

URI = "pkcs11:token=t;object=k"


class SoftKey:
    """Signs RS256 in memory; `signed` counts its signatures."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        numbers = self._key.public_key().public_numbers()
        self.public_key = RsaKey(numbers.n, numbers.e)
        self.signed = 0
        self.pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        assert alg.name == "RS256"
        self.signed += 1
        return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def profile(*, exchanging: bool = True, **flags) -> Profile:
    """Return a generic profile from flags alone."""
    given = {"key": URI, "iss": "i", **flags}
    return resolve(Settings(), SigningFlags(**given), None, {}, exchanging=exchanging)
