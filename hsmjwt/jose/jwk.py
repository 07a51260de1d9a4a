"""Public keys as JSON Web Keys (RFC 7517; RFC 7518, section 6), and their thumbprints (RFC 7638)."""

from __future__ import annotations

import hashlib
from typing import assert_never

from hsmjwt.jose.encoding import b64u_encode, dump
from hsmjwt.jose.keys import EcKey, OkpKey, PublicKey, RsaKey


def to_jwk(key: PublicKey) -> dict[str, str]:
    """Return the members that make up the key: `kty` and its numbers (RFC 7518, 6.2.1 and 6.3.1; RFC 8037, 2)."""
    match key:
        case RsaKey():
            return {"kty": key.kty, "n": _base64url_uint(key.n), "e": _base64url_uint(key.e)}
        case EcKey():
            x, y = (b64u_encode(each) for each in key.coordinates)
            return {"kty": key.kty, "crv": key.crv, "x": x, "y": y}
        case OkpKey():
            return {"kty": key.kty, "crv": key.crv, "x": b64u_encode(key.x)}
        case _:
            assert_never(key)


def thumbprint(key: PublicKey) -> str:
    """Return the key's SHA-256 thumbprint in base64url, 43 characters (RFC 7638, section 3; RFC 8037, section 2)."""
    required = to_jwk(key)
    canonical = dump({name: required[name] for name in sorted(required)})
    return b64u_encode(hashlib.sha256(canonical).digest())


def _base64url_uint(value: int) -> str:
    """Return a Base64urlUInt: big-endian, in as few bytes as hold it, zero being one byte (RFC 7518, section 2)."""
    return b64u_encode(value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
