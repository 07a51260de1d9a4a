"""How a token carries out an algorithm: by which mechanism, what that is handed, and what becomes of its answer."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection

import msgspec

from hsmjwt.errors import DeviceError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm
from hsmjwt.jose.keys import CURVES, ED25519

_SEQUENCE, _INTEGER, _LONG = 0x30, 0x02, 0x81  # X.690: two tags, and a length of one byte that follows
_PSS_PARAMS = struct.Struct("@LLL")  # CK_RSA_PKCS_PSS_PARAMS (PKCS#11 2.40, section 2.1.9): hash, mask, length of salt
_HASHES = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


class Way(msgspec.Struct, frozen=True):
    """One way to carry out an algorithm: a mechanism, what is handed to it, and how its answer becomes JOSE's form.

    `mechanism` is its name without CKM_, `number` its value, and `parameter` the C struct that goes with it, empty
    where none does.
    """

    mechanism: str
    number: int
    prepare: Callable[[bytes, Algorithm], bytes]
    finish: Callable[[bytes, Algorithm], bytes]
    parameter: bytes = b""


def _whole(data: bytes, alg: Algorithm) -> bytes:
    del alg
    return data


def _digest(message: bytes, alg: Algorithm) -> bytes:
    return _HASHES[alg.hash_name](message).digest()


def _digest_info(message: bytes, alg: Algorithm) -> bytes:
    """Return the DER DigestInfo over the hash, which CKM_RSA_PKCS pads and signs (RFC 8017, section 9.2)."""
    return alg.digest_info + _digest(message, alg)


def _fixed(signature: bytes, alg: Algorithm) -> bytes:
    """Return r and s in as many bytes each as the field has (RFC 7518, section 3.4).

    PKCS#11 asks for that too; what some tokens give is DER. An answer that is neither stays as it is: whoever verifies
    it says no.
    """
    assert alg.crv is not None  # noqa: S101 - so are the rows of the table
    width = CURVES[alg.crv].width
    if len(signature) == 2 * width:  # of DER in just this length the integers would lack six bytes or more
        return signature
    numbers = read_der_signature(signature)
    if numbers is None or max(numbers).bit_length() > 8 * width:
        return signature
    return b"".join(number.to_bytes(width, "big") for number in numbers)


def read_der_signature(data: bytes) -> tuple[int, int] | None:
    """Return r and s of a DER ECDSA-Sig-Value (RFC 3279, section 2.2.3); None where it is anything else.

    DER has one spelling for each: lengths and integers as short as can be, nothing behind them, neither number zero or
    negative.
    """
    body = _value(data, _SEQUENCE)
    if body is None or body[1]:
        return None
    first = _value(body[0], _INTEGER)
    second = _value(first[1], _INTEGER) if first is not None else None
    if first is None or second is None or second[1]:
        return None
    r, s = _positive(first[0]), _positive(second[0])
    return None if r is None or s is None else (r, s)


def _value(data: bytes, tag: int) -> tuple[bytes, bytes] | None:
    """Return the content of the value that data begins with, and what stands behind it."""
    if len(data) < 2 or data[0] != tag:  # tag and length
        return None
    start, size = 2, data[1]
    if size == _LONG and len(data) > 2 and data[2] >= 0x80:
        start, size = 3, data[2]
    elif size >= 0x80:
        return None
    content = data[start : start + size]
    return (content, data[start + size :]) if len(content) == size else None


def _positive(content: bytes) -> int | None:
    """Return the number of a DER INTEGER greater than zero."""
    if not content or content[0] >= 0x80 or (content[0] == 0 and content[1:2] < b"\x80"):
        return None
    return int.from_bytes(content, "big")


def _ways(alg: Algorithm) -> tuple[Way, ...]:
    """Return the ways of one algorithm in order of preference: hash and signature on the token first."""
    name = alg.hash_name.upper()
    if alg.kty == "OKP":  # pure Ed25519 (RFC 8037, section 3.1), which a missing parameter means (PKCS#11 3.0, 2.3.14)
        return (_way("EDDSA", _whole, _whole),)
    if alg.kty == "EC":
        return _way(f"ECDSA_{name}", _whole, _fixed), _way("ECDSA", _digest, _fixed)
    if alg.pss:
        salt = _HASHES[alg.hash_name]().digest_size  # RFC 7518, section 3.5
        parameter = _PSS_PARAMS.pack(pkcs11.Mechanism[name], pkcs11.MGF[name], salt)
        return (
            _way(f"{name}_RSA_PKCS_PSS", _whole, _whole, parameter),
            _way("RSA_PKCS_PSS", _digest, _whole, parameter),
        )
    return _way(f"{name}_RSA_PKCS", _whole, _whole), _way("RSA_PKCS", _digest_info, _whole)


def _way(
    mechanism: str,
    prepare: Callable[[bytes, Algorithm], bytes],
    finish: Callable[[bytes, Algorithm], bytes],
    parameter: bytes = b"",
) -> Way:
    return Way(mechanism, int(pkcs11.Mechanism[mechanism]), prepare, finish, parameter)


WAYS: dict[str, tuple[Way, ...]] = {name: _ways(alg) for name, alg in ALGORITHMS.items()}
"""For each algorithm its ways, the best first."""


def ways_left(alg: str, allowed: Collection[str] | None, offered: Collection[str] | None) -> list[Way]:
    """Return the ways to carry out an algorithm that a key's allowed mechanisms and a token's list leave.

    Both by name. `allowed` is empty where the key allows all, None where the token does not tell; `offered` is None
    where the token was not asked.
    """
    return [
        way
        for way in WAYS[alg]
        if (not allowed or way.mechanism in allowed) and (offered is None or way.mechanism in offered)
    ]


def best_mechanism(alg: str, offered: Collection[str]) -> str:
    """Return the first mechanism among those `offered` that carries out an algorithm.

    Raises DeviceError where the token has none.
    """
    for way in ways_left(alg, None, offered):
        return way.mechanism
    raise DeviceError(
        f"the token cannot make {alg}: it has no {' or '.join(f'CKM_{way.mechanism}' for way in WAYS[alg])}",
        hint="hsmjwt slot list --json names its mechanisms; nothing was changed",
        ckr="CKR_MECHANISM_INVALID",
    )


NEW_KEY = {None: "rsa:3072", "P-256": "p256", "P-384": "p384", "P-521": "p521", ED25519: "ed25519"}
"""By an algorithm's curve, what to ask `key generate` for where a key does not fit it."""
