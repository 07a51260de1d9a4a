"""RFC 7518, section 3.1, with RFC 8037 and RFC 9864, as a table: the signature algorithms that hsmjwt makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hsmjwt.jose.keys import ED25519, HiddenKey, PublicKey, RsaKey


class Algorithm(NamedTuple):
    """One signature algorithm of JOSE.

    `kty` is the type of key it takes, `crv` the curve of such a key where it must lie on one, `min_bits` the smallest
    such key, and `hash_name` the hash as hashlib spells it, empty where the message is signed whole. `digest_info` is
    the DER that stands before the hash where a token signs a ready DigestInfo (RFC 8017, section 9.2). `pss` tells
    RSASSA-PSS, whose MGF1 has the same hash and whose salt is as long as that (RFC 7518, section 3.5).
    """

    name: str
    kty: str
    crv: str | None
    min_bits: int
    hash_name: str
    digest_info: bytes
    pss: bool = False


_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017, section 9.2, note 1
_SHA384 = bytes.fromhex("3041300d060960864801650304020205000430")
_SHA512 = bytes.fromhex("3051300d060960864801650304020305000440")

_TABLE = (
    # name, key (RFC 7518, section 3.3: 2048 bits or larger), hash, DigestInfo
    Algorithm("RS256", "RSA", None, 2048, "sha256", _SHA256),
    Algorithm("RS384", "RSA", None, 2048, "sha384", _SHA384),
    Algorithm("RS512", "RSA", None, 2048, "sha512", _SHA512),
    # the same keys (RFC 7518, section 3.5)
    Algorithm("PS256", "RSA", None, 2048, "sha256", b"", pss=True),
    Algorithm("PS384", "RSA", None, 2048, "sha384", b"", pss=True),
    Algorithm("PS512", "RSA", None, 2048, "sha512", b"", pss=True),
    # name, key and curve (RFC 7518, section 3.4), hash
    Algorithm("ES256", "EC", "P-256", 256, "sha256", b""),
    Algorithm("ES384", "EC", "P-384", 384, "sha384", b""),
    Algorithm("ES512", "EC", "P-521", 521, "sha512", b""),
    # name, key and curve: RFC 8037, section 3.1, whose name stands for any Edwards curve; RFC 9864, section 2.2
    Algorithm("EdDSA", "OKP", ED25519, 256, "", b""),
    Algorithm("Ed25519", "OKP", ED25519, 256, "", b""),
)

ALGORITHMS: dict[str, Algorithm] = {row.name: row for row in _TABLE}


def fits(alg: Algorithm, key: PublicKey | HiddenKey) -> bool:
    """Tell whether the algorithm may be used with the key: its type, its curve and its size."""
    return misfit(alg, key) is None


def misfit(alg: Algorithm, key: PublicKey | HiddenKey) -> str | None:
    """Return in words why the algorithm may not be used with the key, None where it may."""
    if alg.kty != key.kty:
        return f"{alg.name} takes {alg.kty} keys, and this one is {key.kty}"
    if alg.crv != _curve(key):
        return f"{alg.name} takes keys on {alg.crv}, and this one is on {_curve(key)} (RFC 7518, 3.4; RFC 8037, 3.1)"
    if key.bits < alg.min_bits:
        return f"{alg.name} takes keys of {alg.min_bits} bits or more (RFC 7518, 3.3), and this one has {key.bits}"
    return None


def by_default(key: PublicKey | HiddenKey) -> Algorithm:
    """Return the algorithm that a key signs with where nobody names one: the table's first for its type and curve."""
    return next(row for row in _TABLE if row.kty == key.kty and row.crv == _curve(key))


def preferred(named: Iterable[str], able: Sequence[Algorithm]) -> Algorithm | None:
    """Return the first of the named algorithms that a key can do; where none is named, the first that it can.

    `able` are those that it can, the best first. Where it can do none of the named ones that is the first of them,
    which whoever signs says no to; None where nothing is named or known.
    """
    wanted = [ALGORITHMS[name] for name in named]
    fitting = [alg for alg in wanted if alg in able] if wanted else able
    return next(iter((*fitting, *wanted)), None)


def _curve(key: PublicKey | HiddenKey) -> str | None:
    return None if isinstance(key, RsaKey) else key.crv


def usable_with(key: PublicKey | HiddenKey) -> tuple[Algorithm, ...]:
    """Return the algorithms that may be used with the key, in the table's order."""
    return tuple(row for row in _TABLE if fits(row, key))
