"""Signatures are checked for real, and a wrong one is never released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt import verify
from hsmjwt.errors import DeviceError, KeyUnfitError
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.encoding import EncodingFault, b64u_decode
from hsmjwt.jose.judge import judge
from hsmjwt.jose.jws import Signer, split
from hsmjwt.jose.keys import CURVES, EcKey, RsaKey

VECTORS = Path(__file__).parent / "vectors"
A2 = json.loads((VECTORS / "rfc7515-a2-rs256.json").read_text(encoding="utf-8"))
A3 = json.loads((VECTORS / "rfc7515-a3-es256.json").read_text(encoding="utf-8"))
ZEROS = json.loads((VECTORS / "p256-leading-zeros.json").read_text(encoding="utf-8"))
KEY = RsaKey(*(int.from_bytes(b64u_decode(A2["jwk"][name]), "big") for name in ("n", "e")))
PARTS = split(A2["jwt"])
RS256 = ALGORITHMS["RS256"]
ES256 = ALGORITHMS["ES256"]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-4, D.1.2.3)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _point(jwk):
    return EcKey("P-256", *(int.from_bytes(b64u_decode(jwk[name]), "big") for name in ("x", "y")))


POINT = _point(A3["jwk"])
SIGNED = split(A3["jwt"])
R, S = (int.from_bytes(half, "big") for half in (SIGNED.signature[:32], SIGNED.signature[32:]))


def _pair(r, s):
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Device:
    """A Signer that returns what it was told to, as a token that has failed does."""

    secret = "not to be reached"

    def __init__(self, signature, key=KEY):
        self.public_key = key
        self.signature = signature

    def sign(self, message, alg):
        return self.signature


def test_the_signature_of_rfc_7515_is_valid():
    assert verify.valid(KEY, RS256, PARTS.signing_input, PARTS.signature)


def test_a_key_too_short_for_the_algorithm_signs_nothing():
    class Short:
        public_key = RsaKey(n=1 << 1023 | 1, e=65537)

        def sign(self, message, alg):
            raise AssertionError

    with pytest.raises(KeyUnfitError, match="2048 bits"):
        verify.Verified(Short()).sign(b"m", RS256)


def test_every_algorithm_of_the_table_can_be_verified():
    assert {alg.hash_name for alg in ALGORITHMS.values() if alg.kty != "OKP"} <= set(verify._HASHES)
    assert set(CURVES) == set(verify._CURVES)


def test_the_signature_of_rfc_7515_on_a_curve_is_valid():
    assert verify.valid(POINT, ES256, SIGNED.signing_input, SIGNED.signature)
    assert verify.Verified(Device(SIGNED.signature, POINT)).sign(SIGNED.signing_input, ES256) == SIGNED.signature


@pytest.mark.parametrize("name", ZEROS["signatures"])
def test_leading_zeros_of_r_and_s_belong_to_the_signature(name):
    key, message = _point(ZEROS["jwk"]), ZEROS["message"].encode()
    signature = bytes.fromhex(ZEROS["signatures"][name]["jose"])
    assert verify.valid(key, ES256, message, signature)
    shorter = signature.lstrip(b"\0"), signature[:32].lstrip(b"\0") + signature[32:].lstrip(b"\0")
    for other in (*shorter, bytes.fromhex(ZEROS["signatures"][name]["der"])):
        assert other == signature or not verify.valid(key, ES256, message, other)


@given(st.integers(0, 63), st.integers(0, 7))
def test_one_bit_makes_a_signature_on_a_curve_wrong(at, bit):
    changed = bytearray(SIGNED.signature)
    changed[at] ^= 1 << bit
    assert not verify.valid(POINT, ES256, SIGNED.signing_input, bytes(changed))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIGNED.signature[1:],
        SIGNED.signature[:-1],
        SIGNED.signature + b"\0",
        b"\0" + SIGNED.signature,
        SIGNED.signature[:32] + b"\0" + SIGNED.signature[32:],
        b"\0" + SIGNED.signature[:32] + b"\0" + SIGNED.signature[32:],
        SIGNED.signature[32:] + SIGNED.signature[:32],
        utils.encode_dss_signature(R, S),
        _pair(0, 0),
        _pair(0, S),
        _pair(R, 0),
        _pair(1, 1),
        _pair(ORDER, S),
        _pair(R, ORDER),
        _pair(ORDER, ORDER),
        b"\xff" * 64,
    ],
)
def test_a_signature_on_a_curve_has_one_form_alone(signature):
    assert not verify.valid(POINT, ES256, SIGNED.signing_input, signature)
    with pytest.raises(DeviceError) as caught:
        verify.Verified(Device(signature, POINT)).sign(SIGNED.signing_input, ES256)
    assert caught.value.exit_code == 7


def test_a_signature_on_a_curve_is_of_its_message_hash_and_key():
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    key = EcKey("P-256", numbers.x, numbers.y)

    def signed(hash_):
        return _pair(*utils.decode_dss_signature(private.sign(b"m", ec.ECDSA(hash_))))

    assert verify.valid(key, ES256, b"m", signed(hashes.SHA256()))
    assert not verify.valid(key, ES256, b"m ", signed(hashes.SHA256()))
    assert not verify.valid(key, ES256, b"m", signed(hashes.SHA512()))
    assert not verify.valid(POINT, ES256, b"m", signed(hashes.SHA256()))


def test_a_signature_is_never_checked_by_an_algorithm_for_another_type_of_key():
    assert not verify.valid(POINT, RS256, SIGNED.signing_input, SIGNED.signature)
    assert not verify.valid(KEY, ES256, PARTS.signing_input, PARTS.signature)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 1), (POINT.y, POINT.x), (-1, 2), (2**300, 1), (POINT.x, -POINT.y)])
def test_a_point_that_is_not_on_the_curve_is_refused(x, y):
    with pytest.raises(KeyUnfitError, match="no usable EC public key"):
        verify.valid(EcKey("P-256", x, y), ES256, b"m", b"s" * 64)
    with pytest.raises(KeyUnfitError):
        verify.Verified(Device(b"", EcKey("P-256", x, y)))


@given(st.integers(0, 255), st.integers(0, 7))
def test_one_bit_makes_a_signature_wrong(at, bit):
    changed = bytearray(PARTS.signature)
    changed[at] ^= 1 << bit
    assert not verify.valid(KEY, RS256, PARTS.signing_input, bytes(changed))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        PARTS.signature[1:],
        PARTS.signature[:-1],
        b"\0" + PARTS.signature,
        PARTS.signature + b"\0",
        PARTS.signature * 2,
        b"\0" * 256,
        b"\xff" * 256,
        (KEY.n - 1).to_bytes(256, "big"),
        KEY.n.to_bytes(256, "big"),
    ],
    ids=["empty", "front off", "end off", "zero before", "zero behind", "twice", "zero", "ones", "n-1", "n"],
)
def test_a_signature_of_another_form_is_wrong_and_never_released(signature):
    assert not verify.valid(KEY, RS256, PARTS.signing_input, signature)
    with pytest.raises(DeviceError) as caught:
        verify.Verified(Device(signature)).sign(PARTS.signing_input, RS256)
    assert caught.value.exit_code == 7
    shown = f"{caught.value.message} {caught.value.hint}"
    assert not signature or signature.hex() not in shown


def test_another_message_or_key_makes_a_signature_wrong():
    other = RsaKey(n=KEY.n ^ 2, e=KEY.e)
    assert not verify.valid(KEY, RS256, PARTS.signing_input + b" ", PARTS.signature)
    assert not verify.valid(other, RS256, PARTS.signing_input, PARTS.signature)
    assert not verify.valid(KEY._replace(e=3), RS256, PARTS.signing_input, PARTS.signature)


def test_a_signature_with_another_hash_or_padding_is_wrong():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = private.public_key().public_numbers()
    key = RsaKey(numbers.n, numbers.e)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
    assert verify.valid(key, RS256, b"m", private.sign(b"m", padding.PKCS1v15(), hashes.SHA256()))
    assert not verify.valid(key, RS256, b"m", private.sign(b"m", padding.PKCS1v15(), hashes.SHA512()))
    assert not verify.valid(key, RS256, b"m", private.sign(b"m", pss, hashes.SHA256()))


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (b"", "the token returned an empty signature"),
        (b"x" * 255, "the token returned a signature of 255 bytes, where the key makes 256"),
        (b"x" * 257, "a signature of 257 bytes"),
        (b"x" * 256, "the token's RS256 signature does not verify with the key's public half"),
    ],
)
def test_the_error_says_what_the_token_did(signature, reason):
    with pytest.raises(DeviceError, match=reason) as caught:
        verify.Verified(Device(signature)).sign(b"m", RS256)
    assert "nothing was released" in caught.value.hint


def test_a_right_signature_passes_through():
    signer: Signer = verify.Verified(Device(PARTS.signature))
    assert signer.public_key == KEY
    assert signer.sign(PARTS.signing_input, RS256) == PARTS.signature


def test_nothing_else_of_the_wrapped_signer_is_reached():
    with pytest.raises(AttributeError):
        _ = verify.Verified(Device(b"")).secret


def test_an_error_of_the_wrapped_signer_stays_as_it_is():
    class Broken(Device):
        def sign(self, message, alg):
            raise KeyUnfitError("no")

    with pytest.raises(KeyUnfitError, match="no"):
        verify.Verified(Broken(b"")).sign(b"m", RS256)


def test_a_signer_that_swaps_its_key_is_verified_with_the_one_it_began_with():
    device = Device(PARTS.signature)
    signer = verify.Verified(device)
    device.public_key = RsaKey(n=KEY.n ^ 2, e=KEY.e)
    assert signer.public_key == KEY
    assert signer.sign(PARTS.signing_input, RS256) == PARTS.signature


@pytest.mark.parametrize(
    "key", [RsaKey(0, 3), RsaKey(-5, 3), RsaKey(KEY.n, 1), RsaKey(KEY.n, 2), RsaKey(KEY.n, KEY.n), RsaKey(KEY.n, -3)]
)
def test_numbers_that_are_no_key_are_refused(key):
    with pytest.raises(KeyUnfitError, match="no usable RSA public key"):
        verify.valid(key, RS256, b"m", b"s")
    with pytest.raises(KeyUnfitError):
        verify.Verified(Device(b"", key))


def _spellings(jwt):
    """Yield texts that a lenient reader takes for the very same token."""
    head, body, tail = jwt.split(".")
    middle = len(tail) // 2
    last = ALPHABET.index(tail[-1])
    unused = 4 if len(tail) % 4 == 2 else 2
    for junk in ("=", "!", "\n", "\r\n", " ", "\t", "\0", "\u00a0", "\u200b", "é", ".", "%3D"):
        yield f"{head}.{body}.{tail[:middle]}{junk}{tail[middle:]}"
        yield f"{head[:3]}{junk}{head[3:]}.{body}.{tail}"
        yield f"{head}.{body[:3]}{junk}{body[3:]}.{tail}"
    for extra in range(1, 6):
        yield f"{head}.{body}.{tail}{'=' * extra}"
    for bits in range(1, 1 << unused):
        yield f"{head}.{body}.{tail[:-1]}{ALPHABET[last ^ bits]}"
    yield f"{head}.{body}.{tail.replace('-', '+').replace('_', '/')}"
    yield f"{head}.{body}.{tail}A"
    yield f"{head}.{body}.{tail}."


@pytest.mark.parametrize(("jwt", "key"), [(A2["jwt"], KEY), (A3["jwt"], POINT)], ids=["RS256", "ES256"])
def test_a_token_has_one_spelling_alone(jwt, key):
    assert _verdict(jwt, key) == 0
    spellings = list(_spellings(jwt))
    assert jwt not in spellings
    assert {_verdict(spelling, key) for spelling in spellings} <= {2, 7}


def _verdict(jwt, key):
    try:
        return judge(split(jwt), key, check=verify.valid, now=0).exit_code
    except EncodingFault:
        return 2
