"""Public keys as numbers: what a JWK, an SPKI and a token's attributes all say in their own way."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class RsaKey(NamedTuple):
    """An RSA public key: modulus and public exponent (RFC 8017, section 3.1)."""

    n: int
    e: int

    @property
    def kty(self) -> str:
        """Return the key's type by its name in a JWK (RFC 7518, section 6.1)."""
        return "RSA"

    @property
    def bits(self) -> int:
        """Return the size of the modulus in bits."""
        return self.n.bit_length()


PublicKey: TypeAlias = RsaKey


def signature_bytes(key: PublicKey) -> int:
    """Return how long every signature by this key is, in bytes (RFC 8017, section 8.2.1)."""
    return (key.bits + 7) // 8
