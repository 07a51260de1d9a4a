"""What a token answers becomes JOSE's form: r and s in fixed width, from DER too."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.hsm.ways import NEW_KEY, WAYS, read_der_signature
from hsmjwt.jose.algorithms import ALGORITHMS, misfit
from hsmjwt.jose.keys import CURVES, EcKey, OkpKey, RsaKey

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "p256-leading-zeros.json").read_text())
ES256 = ALGORITHMS["ES256"]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEYS = {  # what `key generate --type` makes, as far as an algorithm asks
    "rsa:3072": RsaKey(1 << 3071 | 1, 65537),
    "p256": EcKey("P-256", 1, 2),
    "p384": EcKey("P-384", 1, 2),
    "p521": EcKey("P-521", 1, 2),
    "ed25519": OkpKey("Ed25519", bytes(32)),
}
NUMBERS = st.one_of(st.integers(1, ORDER - 1), st.integers(1, 2**16), st.integers(2**255 - 9, 2**255 + 9))


def finished(signature):
    of_all = {way.finish(signature, ES256) for way in WAYS["ES256"]}
    assert len(of_all) == 1
    return of_all.pop()


def test_every_algorithm_has_a_way_and_a_type_of_key_to_make():
    assert set(WAYS) == set(ALGORITHMS)
    assert {alg.crv for alg in ALGORITHMS.values()} == set(NEW_KEY)
    assert all(misfit(alg, KEYS[NEW_KEY[alg.crv]]) is None for alg in ALGORITHMS.values())


TABLE = {  # PKCS#11 3.0, pkcs11t.h: the mechanism that hashes, and the raw one
    "RS256": [0x40, 0x1],
    "RS384": [0x41, 0x1],
    "RS512": [0x42, 0x1],
    "PS256": [0x43, 0xD],
    "PS384": [0x44, 0xD],
    "PS512": [0x45, 0xD],
    "ES256": [0x1044, 0x1041],
    "ES384": [0x1045, 0x1041],
    "ES512": [0x1046, 0x1041],
    "EdDSA": [0x1057],
    "Ed25519": [0x1057],
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_mechanism_that_hashes_comes_first_and_gets_the_message_whole(name):
    alg, ways = ALGORITHMS[name], WAYS[name]
    assert [way.number for way in ways] == TABLE[name]
    assert ways[0].prepare(b"message", alg) == b"message"
    if len(ways) == 2:
        digest = hashlib.new(alg.hash_name, b"message").digest()
        assert ways[1].prepare(b"message", alg) == alg.digest_info + digest


@pytest.mark.parametrize(
    ("name", "parameter"),
    [  # CKM_SHA256, CKG_MGF1_SHA256 and 32, and so on
        ("PS256", (0x250, 2, 32)),
        ("PS384", (0x260, 3, 48)),
        ("PS512", (0x270, 4, 64)),
    ],
)
def test_pss_has_its_hash_its_mask_and_a_salt_as_long_as_the_hash_in_so_many_words(name, parameter):
    assert {way.parameter for way in WAYS[name]} == {struct.pack("@LLL", *parameter)}


def test_nothing_but_pss_has_a_parameter():
    assert {way.parameter for name in WAYS if name not in ("PS256", "PS384", "PS512") for way in WAYS[name]} == {b""}


@pytest.mark.parametrize("name", VECTORS["signatures"])
def test_leading_zeros_of_r_and_s_stay(name):
    vector = VECTORS["signatures"][name]
    jose = bytes.fromhex(vector["jose"])
    assert finished(bytes.fromhex(vector["der"])) == jose
    assert finished(jose) == jose


@given(NUMBERS, NUMBERS)
def test_der_becomes_r_and_s_in_32_bytes_each(r, s):
    der = encode_dss_signature(r, s)
    assert read_der_signature(der) == (r, s)
    if len(der) != 64:  # which both are small enough for once in 2**48
        assert finished(der) == r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_64_bytes_are_never_taken_for_der():
    der = encode_dss_signature(2**230, 2**229)
    assert len(der) == 64
    assert finished(der) == der


@given(st.binary(max_size=80))
def test_what_is_no_der_stays_as_it_is(data):
    if read_der_signature(data) is None:
        assert finished(data) == data


@given(st.binary(max_size=12).map(lambda tail: b"\x30\x06\x02\x01" + tail))
def test_der_has_one_spelling_for_each_signature(data):
    read = read_der_signature(data)
    assert read is None or encode_dss_signature(*read) == data


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3006",
        "3006020101020101" + "00",  # something behind it
        "3007020101020101",  # cut short
        "300602010102010100",
        "3005020101020101",
        "3007020101020101" + "05",
        "300902010102010105" + "00",
        "3006020101020100",  # zero
        "3006020100020101",
        "30060201ff020101",  # negative
        "3006020101020180",
        "300702020001020101",  # a zero byte too many
        "3007020101" + "02020001",
        "30050200020101",  # no number
        "3006030101020101",  # other types
        "3006020101040101",
        "3106020101020101",
        "308106020101020101",  # a length that is longer than need be
        "3080020101020101" + "0000",  # one left open
        "30820006020101020101",
        "3006028101" + "01020101",
        "30030201" + "01",  # one number alone
        "3009020101020101020101",  # three
    ],
)
def test_anything_but_der_of_two_numbers_is_no_signature(data):
    assert read_der_signature(bytes.fromhex(data)) is None


def test_numbers_that_the_field_does_not_hold_stay_as_they_are():
    der = encode_dss_signature(2**256, 1)
    assert read_der_signature(der) == (2**256, 1)
    assert finished(der) == der


def test_a_longer_signature_has_its_length_in_a_byte_of_its_own():
    r, s = 2**520 + 1, 2**519 + 1  # of P-521
    der = encode_dss_signature(r, s)
    assert der[:2] == b"\x30\x81"
    assert read_der_signature(der) == (r, s)
    wide = r.to_bytes(66, "big") + s.to_bytes(66, "big")
    assert {way.finish(der, ALGORITHMS["ES512"]) for way in WAYS["ES512"]} == {wide}
    for wrong in (der[:-1], der + b"\0", b"\x30" + der[2:], b"\x30\x82\0" + der[2:], b"\x30\x81\x7f" + der[3:]):
        assert read_der_signature(wrong) is None


@pytest.mark.parametrize(("name", "width"), [("ES256", 32), ("ES384", 48), ("ES512", 66)])
@given(data=st.data())
def test_der_becomes_as_many_bytes_as_the_field_of_each_curve_has(name, width, data):
    bits = CURVES[ALGORITHMS[name].crv].bits
    numbers = st.one_of(st.integers(1, 2**bits - 1), st.integers(1, 2**16), st.integers(2 ** (bits - 1), 2**bits - 1))
    r, s = data.draw(numbers), data.draw(numbers)
    der = encode_dss_signature(r, s)
    if len(der) != 2 * width:
        for way in WAYS[name]:
            assert way.finish(der, ALGORITHMS[name]) == r.to_bytes(width, "big") + s.to_bytes(width, "big")


@pytest.mark.parametrize("name", ["ES256", "ES384", "ES512"])
def test_der_with_a_number_wider_than_the_field_stays_as_it_is(name):
    width = CURVES[ALGORITHMS[name].crv].width
    for numbers in ((2 ** (8 * width), 1), (1, 2 ** (8 * width))):
        der = encode_dss_signature(*numbers)
        assert {way.finish(der, ALGORITHMS[name]) for way in WAYS[name]} == {der}
