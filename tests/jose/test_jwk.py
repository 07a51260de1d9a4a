"""Keys as JWK, their thumbprints, and the table of algorithms."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.algorithms import ALGORITHMS, by_default, fits, misfit
from hsmjwt.jose.encoding import b64u_decode
from hsmjwt.jose.jwk import thumbprint, to_jwk
from hsmjwt.jose.keys import CURVES, EcKey, RsaKey, signature_bytes

VECTORS = Path(__file__).parent.parent / "vectors"
POINT = EcKey("P-256", 1, 2)  # of the right type; nothing here asks whether it is on the curve


def _vector(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def jwk_thumbprint(jwk):
    """RFC 7638, section 3, word for word."""
    text = json.dumps({name: jwk[name] for name in sorted(jwk)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def _key(jwk):
    return RsaKey(*(int.from_bytes(b64u_decode(jwk[name]), "big") for name in ("n", "e")))


def test_thumbprint_of_rfc_7638():
    vector = _vector("rfc7638-rsa-thumbprint.json")
    assert thumbprint(_key(vector["jwk"])) == vector["thumbprint"]


def test_jwk_of_rfc_7517_comes_out_as_it_went_in():
    jwk = _vector("rfc7638-rsa-thumbprint.json")["jwk"]
    assert to_jwk(_key(jwk)) == jwk


def test_a_jwk_holds_the_public_members_alone():
    assert list(to_jwk(RsaKey(n=187, e=3))) == ["kty", "n", "e"]


@given(st.integers(1, 2**2048))
def test_numbers_are_written_in_as_few_bytes_as_hold_them(n):
    data = b64u_decode(to_jwk(RsaKey(n=n, e=65537))["n"])
    assert int.from_bytes(data, "big") == n
    assert data[0] != 0


def test_jwk_of_rfc_7515_on_a_curve_comes_out_as_it_went_in():
    jwk = _vector("rfc7515-a3-es256.json")["jwk"]
    x, y = (int.from_bytes(b64u_decode(jwk[name]), "big") for name in ("x", "y"))
    public = {name: jwk[name] for name in ("kty", "crv", "x", "y")}
    assert to_jwk(EcKey("P-256", x, y)) == public
    assert thumbprint(EcKey("P-256", x, y)) == jwk_thumbprint(public)


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**240))
def test_a_coordinate_is_written_in_all_its_bytes(x, y):
    jwk = to_jwk(EcKey("P-256", x, y))
    for name, value in (("x", x), ("y", y)):
        assert len(jwk[name]) == 43
        assert int.from_bytes(b64u_decode(jwk[name]), "big") == value


def test_a_leading_zero_byte_of_a_coordinate_stays():
    short = _vector("p256-leading-zeros.json")["x"]["jwk"]
    key = EcKey("P-256", *(int.from_bytes(b64u_decode(short[name]), "big") for name in ("x", "y")))
    assert key.x.bit_length() <= 248
    assert to_jwk(key) == {"kty": "EC", "crv": "P-256", "x": short["x"], "y": short["y"]}
    assert short["x"].startswith("A")
    assert len(short["x"]) == 43


def test_two_keys_share_no_thumbprint():
    one, other = RsaKey(n=187, e=3), RsaKey(n=187, e=7)
    assert thumbprint(one) != thumbprint(other)
    assert len(thumbprint(one)) == 43


@pytest.mark.parametrize(("bits", "size"), [(2048, 256), (2047, 256), (2049, 257), (2041, 256), (2040, 255)])
def test_a_signature_is_as_long_as_the_modulus_in_whole_bytes(bits, size):
    key = RsaKey(n=(1 << (bits - 1)) | 1, e=65537)
    assert key.bits == bits
    assert signature_bytes(key) == size


def test_a_signature_on_a_curve_is_two_numbers_of_the_field():
    assert POINT.bits == 256
    assert signature_bytes(POINT) == 64


@pytest.mark.parametrize("alg", [alg for alg in ALGORITHMS.values() if alg.digest_info], ids=lambda alg: alg.name)
def test_a_digestinfo_prefix_fits_its_hash(alg):
    digest = hashlib.new(alg.hash_name, b"").digest()
    whole = alg.digest_info + digest
    assert whole[0] == 0x30
    assert whole[1] == len(whole) - 2  # the SEQUENCE holds prefix and digest, nothing more
    assert alg.digest_info[-2:] == bytes([0x04, len(digest)])


def test_rs256_takes_rsa_keys_from_2048_bits():
    rs256 = ALGORITHMS["RS256"]
    assert fits(rs256, RsaKey(n=1 << 2047 | 1, e=65537))
    short = RsaKey(n=1 << 2046 | 1, e=65537)
    assert not fits(rs256, short)
    assert misfit(rs256, short) == "RS256 takes keys of 2048 bits or more (RFC 7518, 3.3), and this one has 2047"


def test_es256_takes_keys_on_p_256_alone():
    es256 = ALGORITHMS["ES256"]
    assert fits(es256, POINT)
    assert misfit(es256, RsaKey(n=1 << 2047 | 1, e=65537)) == "ES256 takes EC keys, and this one is RSA"
    assert misfit(ALGORITHMS["RS256"], POINT) == "RS256 takes RSA keys, and this one is EC"
    other = misfit(es256, POINT._replace(crv="P-384"))
    assert other == "ES256 takes keys on P-256, and this one is on P-384 (RFC 7518, 3.4; RFC 8037, 3.1)"


def test_a_key_signs_the_algorithm_of_its_type_where_nobody_says_otherwise():
    assert by_default(RsaKey(n=1 << 2047 | 1, e=65537)).name == "RS256"
    assert by_default(POINT).name == "ES256"


def test_every_curve_has_an_algorithm_and_every_algorithm_on_a_curve_has_its_curve():
    assert {alg.crv for alg in ALGORITHMS.values() if alg.kty == "EC"} == set(CURVES)
    assert {by_default(EcKey(crv, 1, 2)).crv for crv in CURVES} == set(CURVES)
