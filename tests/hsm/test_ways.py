"""What a token answers becomes JOSE's form: r and s in fixed width, from DER too."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.hsm.ways import NEW_KEY, WAYS, read_der_signature
from hsmjwt.jose.algorithms import ALGORITHMS

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "p256-leading-zeros.json").read_text())
ES256 = ALGORITHMS["ES256"]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
NUMBERS = st.one_of(st.integers(1, ORDER - 1), st.integers(1, 2**16), st.integers(2**255 - 9, 2**255 + 9))


def finished(signature):
    of_all = {way.finish(signature, ES256) for way in WAYS["ES256"]}
    assert len(of_all) == 1
    return of_all.pop()


def test_every_algorithm_has_a_way_and_a_type_of_key_to_make():
    assert set(WAYS) == set(ALGORITHMS)
    assert {alg.kty for alg in ALGORITHMS.values()} == set(NEW_KEY)


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
