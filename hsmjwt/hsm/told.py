"""What a token tells of a key, read: its type, its size, its public half, and what it may be used with.

Each function takes what the key says of itself by attribute name; what the token does not tell is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsmjwt.errors import KeyUnfitError
from hsmjwt.hsm.attributes import mechanism_name
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.jose.keys import (
    ED25519,
    EcKey,
    OkpKey,
    PointFault,
    PublicKey,
    RsaKey,
    curve_of,
    read_token_okp,
    read_token_point,
)

About = Mapping[str, Any]

_TYPES = {"RSA": "rsa", "EC": "ec", "EC_EDWARDS": "ed25519"}
KTY = {"rsa": "RSA", "ec": "EC", "ed25519": "OKP"}
"""By our names of the types that are used here: their names in a JWK (RFC 7518, 6.1; RFC 8037, 2)."""

_EDWARDS = frozenset(  # CKA_EC_PARAMS of an Ed25519 key, as tokens really write it: a curve's name or an OID
    {
        b"\x13\x0cedwards25519",  # PKCS#11 3.0, section 2.3.10: curveName as a PrintableString
        b"\x13\x07Ed25519",  # another name for it
        b"\x06\x03\x2b\x65\x70",  # RFC 8410, section 3: 1.3.101.112
        b"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01",  # of OpenPGP cards: 1.3.6.1.4.1.11591.15.1
    }
)
_TAKEN = "hsmjwt uses RSA keys, EC keys on P-256, P-384 and P-521, and Ed25519 keys"
_IMPORT = "every signature is verified: put the public key on the token, with the private key's CKA_ID"


def type_of(about: About) -> str | None:
    """Return `rsa`, `ec`, `ed25519`, another PKCS#11 name in lower case, or None where the token tells none."""
    value = about.get("KEY_TYPE")
    if value is None:
        return None
    try:
        name = str(pkcs11.KeyType(value).name)
    except ValueError:  # a vendor's own
        name = f"0x{int(value):x}"
    if name == "EC_EDWARDS" and about.get("EC_PARAMS") not in (None, b"", *_EDWARDS):  # Ed448 is of this type too
        return "ec_edwards"
    return _TYPES.get(name, name.lower())


def curve_name(about: About) -> str | None:
    """Return by its name in a JWK the curve of a key on one, None where it is none that is used here."""
    match type_of(about):
        case "ec":
            curve = curve_of(about.get("EC_PARAMS") or b"")
            return None if curve is None else curve.name
        case "ed25519":
            return ED25519
        case _:
            return None


def bits(about: About) -> int | None:
    """Return the length of an RSA modulus, or the size of the curve's field, in bits; None for other keys."""
    curve = curve_of(about.get("EC_PARAMS") or b"")
    if curve is not None:
        return curve.bits
    if type_of(about) == "ed25519":
        return 256
    modulus = about.get("MODULUS")
    return int.from_bytes(modulus, "big").bit_length() if modulus else None


def allowed(about: About) -> frozenset[str] | None:
    """Return the names of CKA_ALLOWED_MECHANISMS; empty where the key allows all, None where the token tells none."""
    numbers = about.get("ALLOWED_MECHANISMS")
    return None if numbers is None else frozenset(map(mechanism_name, numbers))


def public_key(about: About) -> PublicKey:
    """Return the public key that an object tells itself; raises KeyUnfitError where it does not."""
    match type_of(about):
        case "rsa":
            return _rsa_key(about)
        case "ec":
            return _ec_key(about)
        case "ed25519":
            return _okp_key(about)
        case other:
            raise KeyUnfitError(f"the key is of type {other or 'unknown'}", hint=_TAKEN)


def _rsa_key(about: About) -> RsaKey:
    modulus, exponent = about.get("MODULUS"), about.get("PUBLIC_EXPONENT")
    if not modulus or not exponent:
        raise KeyUnfitError(
            "the token tells no modulus and public exponent for the key, and no public half fits it", hint=_IMPORT
        )
    return RsaKey(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))


def _ec_key(about: About) -> EcKey:
    oid = about.get("EC_PARAMS")
    curve = curve_of(oid or b"")
    if curve is None:
        told = f"is on another curve than P-256, P-384 and P-521 (its CKA_EC_PARAMS is {oid.hex()})" if oid else None
        raise KeyUnfitError(f"the key is of type ec and {told or 'tells no curve'}", hint=_TAKEN)
    point = _point(about)
    try:
        return read_token_point(curve, point)
    except PointFault as error:
        raise _no_point(error) from None


def _okp_key(about: About) -> OkpKey:
    point = _point(about)
    try:
        return read_token_okp(point)
    except PointFault as error:
        raise _no_point(error) from None


def _point(about: About) -> bytes:
    point: bytes | None = about.get("EC_POINT")
    if not point:
        raise KeyUnfitError("the token tells no point for the key, and no public half fits it", hint=_IMPORT)
    return point


def _no_point(error: PointFault) -> KeyUnfitError:
    return KeyUnfitError(f"the token's CKA_EC_POINT is no public key: {error}", hint=_IMPORT)
