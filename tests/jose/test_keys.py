"""Points on a curve, as tokens and SPKI write them: read strictly, and on the curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.encoding import b64u_decode
from hsmjwt.jose.keys import CURVES, EcKey, PointFault, curve_of, read_point, read_token_point

P256 = CURVES["P-256"]
P521 = CURVES["P-521"]  # a size that DER's short form of a length does not hold
A3 = json.loads((Path(__file__).parent.parent / "vectors" / "rfc7515-a3-es256.json").read_text(encoding="utf-8"))
X, Y = (b64u_decode(A3["jwk"][name]) for name in ("x", "y"))
KEY = EcKey("P-256", int.from_bytes(X, "big"), int.from_bytes(Y, "big"))
POINT = b"\x04" + X + Y


def _of(private):
    numbers = private.public_key().public_numbers()
    return numbers.x, numbers.y


def test_a_point_comes_back_as_it_was_written():
    assert read_point(P256, POINT) == KEY
    assert KEY.point == POINT


@given(st.integers(1, 2**255))
def test_every_point_of_the_curve_is_read(secret):
    x, y = _of(ec.derive_private_key(secret, ec.SECP256R1()))
    key = EcKey("P-256", x, y)
    assert read_point(P256, key.point) == key
    assert read_token_point(P256, b"\x04\x41" + key.point) == key


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not written as 04, x and y, 65 bytes for P-256"),
        (b"\0", "not written as"),  # infinity
        (X + Y, "not written as"),
        (POINT[:-1], "not written as"),
        (POINT + b"\0", "not written as"),
        (b"\x06" + X + Y, "not written as"),  # hybrid
        (b"\x03" + X, "the point is compressed"),
        (b"\x04" + Y + X, "not on the curve P-256"),
        (b"\x04" + bytes(64), "not on the curve"),
        (b"\x04" + (P256.p).to_bytes(32, "big") + Y, "not on the curve"),
        (b"\x04" + b"\xff" * 64, "not on the curve"),
        (POINT[:-1] + bytes([POINT[-1] ^ 1]), "not on the curve"),
    ],
)
def test_what_is_no_point_is_refused(data, reason):
    for read in (read_point, read_token_point):
        with pytest.raises(PointFault, match=reason):
            read(P256, data)


def test_a_coordinate_has_one_spelling_alone():
    small = P256.p  # x = 0 is on the curve, and so it would be where x is the modulus itself
    y = pow(P256.b, (P256.p + 1) // 4, P256.p)
    assert read_point(P256, b"\x04" + bytes(32) + y.to_bytes(32, "big")) == EcKey("P-256", 0, y)
    with pytest.raises(PointFault):
        read_point(P256, b"\x04" + small.to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_a_point_of_another_curve_is_refused():
    x, y = _of(ec.derive_private_key(7, ec.SECP256K1()))
    with pytest.raises(PointFault, match="not on the curve P-256"):
        read_point(P256, b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_a_tokens_point_stands_in_an_octet_string_or_alone():
    assert read_token_point(P256, b"\x04\x41" + POINT) == KEY
    assert read_token_point(P256, POINT) == KEY


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x41" + POINT + b"\0",
        b"\x04\x81\x41" + POINT,  # BER
        b"\x04\x42\x04" + POINT[1:],
        b"\x03\x42\x00" + POINT,  # a BIT STRING
        b"\x04\x43\x04\x41" + POINT,
        b"\x04\x40" + POINT[1:],
    ],
)
def test_a_tokens_point_in_another_wrapping_is_refused(data):
    with pytest.raises(PointFault, match="not written as"):
        read_token_point(P256, data)


def test_the_length_of_a_larger_point_takes_two_bytes():
    x, y = _of(ec.derive_private_key(7, ec.SECP521R1()))
    point = b"\x04" + x.to_bytes(66, "big") + y.to_bytes(66, "big")
    assert read_token_point(P521, b"\x04\x81\x85" + point) == EcKey("P-521", x, y)
    assert read_token_point(P521, point) == EcKey("P-521", x, y)


def test_a_curve_goes_by_the_der_of_its_name():
    assert curve_of(P256.oid) is P256
    assert curve_of(P521.oid) is P521
    assert curve_of(bytes.fromhex("06052b81040021")) is None  # secp224r1
    assert curve_of(b"") is None
    assert curve_of(P256.oid + b"\0") is None
