"""Public keys as numbers: what a JWK, an SPKI and a token's attributes all say in their own way."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, assert_never


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


class EcKey(NamedTuple):
    """A point on an elliptic curve: the curve by its name in a JWK, and the coordinates (RFC 7518, section 6.2.1)."""

    crv: str
    x: int
    y: int

    @property
    def kty(self) -> str:
        """Return the key's type by its name in a JWK (RFC 7518, section 6.1)."""
        return "EC"

    @property
    def bits(self) -> int:
        """Return the size of the curve's field in bits."""
        return CURVES[self.crv].bits

    @property
    def coordinates(self) -> tuple[bytes, bytes]:
        """Return x and y, each in as many bytes as the field has, leading zeros and all (RFC 7518, 6.2.1.2)."""
        width = CURVES[self.crv].width
        return self.x.to_bytes(width, "big"), self.y.to_bytes(width, "big")

    @property
    def point(self) -> bytes:
        """Return the point without compression: 04, x, y (SEC 1, section 2.3.3)."""
        return b"".join((b"\x04", *self.coordinates))


class OkpKey(NamedTuple):
    """An octet key pair's public half: the curve by its name in a JWK, and the key's bytes (RFC 8037, section 2)."""

    crv: str
    x: bytes

    @property
    def kty(self) -> str:
        """Return the key's type by its name in a JWK (RFC 8037, section 2)."""
        return "OKP"

    @property
    def bits(self) -> int:
        """Return the size of the curve's field, rounded up to whole bytes, in bits."""
        return 8 * len(self.x)


PublicKey: TypeAlias = RsaKey | EcKey | OkpKey


class HiddenKey(NamedTuple):
    """What is known of a key whose public half is nowhere: type and curve by their names in a JWK, and size in bits."""

    kty: str
    crv: str | None
    bits: int


ED25519 = "Ed25519"
ED25519_BYTES = 32  # of a public key; a signature has twice as many (RFC 8032, section 5.1)


class Curve(NamedTuple):
    """The curve y² = x³ + ax + b over the integers modulo `p` (SEC 1, section 3.1.1).

    `name` is that of a JWK, `oid` the DER that names the curve in an SPKI and in CKA_EC_PARAMS (RFC 5480, 2.1.1.1).
    """

    name: str
    oid: bytes
    p: int
    a: int
    b: int

    @property
    def bits(self) -> int:
        """Return the size of the field in bits."""
        return self.p.bit_length()

    @property
    def width(self) -> int:
        """Return in how many bytes a coordinate is written, or one half of a signature (RFC 7518, 3.4)."""
        return (self.bits + 7) // 8


_TABLE = (
    Curve(  # FIPS 186-4, D.1.2.3
        name="P-256",
        oid=bytes.fromhex("06082a8648ce3d030107"),
        p=2**256 - 2**224 + 2**192 + 2**96 - 1,
        a=-3,
        b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    Curve(  # FIPS 186-4, D.1.2.4
        name="P-384",
        oid=bytes.fromhex("06052b81040022"),
        p=2**384 - 2**128 - 2**96 + 2**32 - 1,
        a=-3,
        b=0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    Curve(  # FIPS 186-4, D.1.2.5
        name="P-521",
        oid=bytes.fromhex("06052b81040023"),
        p=2**521 - 1,
        a=-3,
        b=int(
            "0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
    ),
)

CURVES: dict[str, Curve] = {row.name: row for row in _TABLE}


class PointFault(ValueError):
    """Bytes that are no point on the curve; says in words why not."""


def signature_bytes(key: PublicKey) -> int:
    """Return how long every signature by this key is in JOSE's form (RFC 8017, 8.2.1; RFC 7518, 3.4; RFC 8032, 5.1)."""
    match key:
        case RsaKey():
            return (key.bits + 7) // 8
        case EcKey():
            return 2 * CURVES[key.crv].width
        case OkpKey():
            return 2 * ED25519_BYTES
        case _:
            assert_never(key)


def curve_of(oid: bytes) -> Curve | None:
    """Return the curve that this DER names, None where it names none of the table."""
    return next((curve for curve in _TABLE if curve.oid == oid), None)


def read_point(curve: Curve, data: bytes) -> EcKey:
    """Return the key whose point this is, as SPKI and tokens write it: 04, x, y (SEC 1, section 2.3.4).

    Raises PointFault for any other form, a compressed one and the point at infinity among them, and for coordinates of
    a point that is not on the curve.
    """
    size = 1 + 2 * curve.width
    if data[:1] in (b"\x02", b"\x03") and len(data) == 1 + curve.width:
        raise PointFault("the point is compressed")
    if len(data) != size or data[0] != 4:  # the octet that says: not compressed
        raise PointFault(f"the point is not written as 04, x and y, {size} bytes for {curve.name}")
    x, y = (int.from_bytes(half, "big") for half in (data[1 : 1 + curve.width], data[1 + curve.width :]))
    if x >= curve.p or y >= curve.p or (y * y - (x * x * x + curve.a * x + curve.b)) % curve.p:
        raise PointFault(f"the point is not on the curve {curve.name}")
    return EcKey(curve.name, x, y)


def read_okp(data: bytes) -> OkpKey:
    """Return the Ed25519 key whose bytes these are (RFC 8032, section 5.1.5); raises PointFault for another length.

    Whether they are a point on the curve is for who verifies with the key.
    """
    if len(data) != ED25519_BYTES:
        raise PointFault(f"an Ed25519 key has {ED25519_BYTES} bytes, and this one has {len(data)}")
    return OkpKey(ED25519, data)


def read_token_okp(data: bytes) -> OkpKey:
    """Return the Ed25519 key whose CKA_EC_POINT this is: the bytes as a DER OCTET STRING or BIT STRING, or alone.

    The three differ in length (PKCS#11 3.0, section 2.3.5 names the first; 3.1 the bytes alone). Raises PointFault.
    """
    for head in (bytes((0x04, ED25519_BYTES)), bytes((0x03, ED25519_BYTES + 1, 0))):
        if len(data) == len(head) + ED25519_BYTES and data.startswith(head):
            return read_okp(data[len(head) :])
    return read_okp(data)


def read_token_point(curve: Curve, data: bytes) -> EcKey:
    """Return the key whose CKA_EC_POINT this is: the point as a DER OCTET STRING, from some tokens the point alone.

    The two differ in length, so that none is taken for the other. Raises PointFault as `read_point` does.
    """
    size = 1 + 2 * curve.width
    head = bytes((4, size) if size < 0x80 else (4, 0x81, size))  # X.690, 8.1.3
    return read_point(curve, data[len(head) :] if len(data) == len(head) + size and data.startswith(head) else data)
