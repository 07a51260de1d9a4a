"""How a token carries out an algorithm: by which mechanism, what that is handed, and what becomes of its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.keys import CURVES

_SEQUENCE, _INTEGER, _LONG = 0x30, 0x02, 0x81  # X.690: two tags, and a length of one byte that follows


class Way(msgspec.Struct, frozen=True):
    """One way to carry out an algorithm: a mechanism, what is handed to it, and how its answer becomes JOSE's form."""

    mechanism: str
    prepare: Callable[[bytes, Algorithm], bytes]
    finish: Callable[[bytes, Algorithm], bytes]


def _whole(data: bytes, alg: Algorithm) -> bytes:
    del alg
    return data


def _digest(message: bytes, alg: Algorithm) -> bytes:
    return hashlib.new(alg.hash_name, message).digest()


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
    if len(signature) == 2 * width:  # of DER in just this length the integers would lack six bytes
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


WAYS: dict[str, tuple[Way, ...]] = {
    "RS256": (Way("SHA256_RSA_PKCS", _whole, _whole), Way("RSA_PKCS", _digest_info, _whole)),
    "ES256": (Way("ECDSA_SHA256", _whole, _fixed), Way("ECDSA", _digest, _fixed)),
}
"""For each algorithm the ways in order of preference: hash and signature on the token first."""

NEW_KEY = {"RSA": "rsa:3072", "EC": "p256"}
"""By type of key, what to ask `key generate` for where a key does not fit its algorithm."""
