"""RFC 7518, section 3.1, as a table: the signature algorithms that hsmjwt makes and verifies."""

from __future__ import annotations

from typing import NamedTuple

from hsmjwt.jose.keys import EcKey, PublicKey


class Algorithm(NamedTuple):
    """One signature algorithm of JOSE.

    `kty` is the type of key it takes, `crv` the curve of such a key where it must lie on one, `min_bits` the smallest
    such key, `hash_name` the hash as hashlib spells it, and `digest_info` the DER that stands before the hash where a
    token signs a ready DigestInfo (RFC 8017, section 9.2).
    """

    name: str
    kty: str
    crv: str | None
    min_bits: int
    hash_name: str
    digest_info: bytes


_TABLE = (
    # name, key (RFC 7518, section 3.3: 2048 bits or larger), hash, DigestInfo (RFC 8017, section 9.2, note 1)
    Algorithm("RS256", "RSA", None, 2048, "sha256", bytes.fromhex("3031300d060960864801650304020105000420")),
    # name, key and curve (RFC 7518, section 3.4), hash
    Algorithm("ES256", "EC", "P-256", 256, "sha256", b""),
)

ALGORITHMS: dict[str, Algorithm] = {row.name: row for row in _TABLE}


def fits(alg: Algorithm, key: PublicKey) -> bool:
    """Tell whether the algorithm may be used with the key: its type, its curve and its size."""
    return misfit(alg, key) is None


def misfit(alg: Algorithm, key: PublicKey) -> str | None:
    """Return in words why the algorithm may not be used with the key, None where it may."""
    if alg.kty != key.kty:
        return f"{alg.name} takes {alg.kty} keys, and this one is {key.kty}"
    if alg.crv != _curve(key):
        return f"{alg.name} takes keys on {alg.crv} (RFC 7518, 3.4), and this one is on {_curve(key)}"
    if key.bits < alg.min_bits:
        return f"{alg.name} takes keys of {alg.min_bits} bits or more (RFC 7518, 3.3), and this one has {key.bits}"
    return None


def by_default(key: PublicKey) -> Algorithm:
    """Return the algorithm that a key signs with where nobody names one: the table's first for its type and curve."""
    return next(row for row in _TABLE if row.kty == key.kty and row.crv == _curve(key))


def _curve(key: PublicKey) -> str | None:
    return key.crv if isinstance(key, EcKey) else None
