"""The compact form: made byte for byte, taken apart strictly, and found in what a person pasted."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import RSAKey

from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, b64u_encode
from hsmjwt.jose.jwk import to_jwk
from hsmjwt.jose.jws import sign_jwt, signing_input, split, trim
from hsmjwt.jose.keys import RsaKey

VECTORS = Path(__file__).parent.parent / "vectors"
RS256 = ALGORITHMS["RS256"]


def _vector(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


A2 = _vector("rfc7515-a2-rs256.json")
GOLDEN = _vector("adobe-golden.json")


class SoftwareSigner:
    """A Signer whose key is in memory: that of RFC 7515."""

    def __init__(self):
        number = {name: int.from_bytes(b64u_decode(text), "big") for name, text in A2["jwk"].items() if name != "kty"}
        self.public_key = RsaKey(number["n"], number["e"])
        names = ("p", "q", "d", "dp", "dq", "qi")
        public = rsa.RSAPublicNumbers(number["e"], number["n"])
        self.private = rsa.RSAPrivateNumbers(*(number[name] for name in names), public).private_key()

    def sign(self, message, alg):
        assert alg is RS256
        return self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())


@pytest.fixture(scope="module")
def signer():
    return SoftwareSigner()


def test_the_golden_vector_comes_out_byte_for_byte():
    assert signing_input(GOLDEN["header"], GOLDEN["claims"]).decode() == GOLDEN["signing_input"]


def test_the_signature_of_rfc_7515_comes_out(signer):
    parts = split(A2["jwt"])
    assert (parts.header, parts.claims) == (A2["header"], A2["claims"])
    assert signer.sign(parts.signing_input, RS256) == parts.signature


def test_the_digest_and_its_prefix_are_what_the_signature_of_rfc_7515_holds(signer):
    parts = split(A2["jwt"])
    size = len(parts.signature)
    opened = pow(int.from_bytes(parts.signature, "big"), signer.public_key.e, signer.public_key.n).to_bytes(size, "big")
    digest = hashlib.new(RS256.hash_name, parts.signing_input).digest()
    assert opened.endswith(b"\xff\x00" + RS256.digest_info + digest)


def test_pyjwt_and_joserfc_accept_what_is_signed(signer):
    header = {"alg": "RS256", "typ": "JWT", "kid": "k"}
    claims = {"iss": "é", "aud": ["a", "b"], "exp": 4102444800, "big": 12345678901234567890123, "f": 1.5}
    token = sign_jwt(header, claims, signer, RS256)
    pem = signer.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert pyjwt.decode(token, pem, algorithms=["RS256"], audience="b") == claims
    assert pyjwt.get_unverified_header(token) == header
    other = joserfc_jws.deserialize_compact(token, RSAKey.import_key(dict(to_jwk(signer.public_key))))
    assert json.loads(other.payload) == claims
    assert split(token)[:2] == (header, claims)


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63) | st.booleans()))
def test_what_is_put_together_comes_apart_again(claims):
    made = signing_input({"alg": "RS256"}, claims)
    parts = split(made.decode() + ".c2ln")
    assert parts == ({"alg": "RS256"}, claims, b"sig", made)


def test_a_claim_that_json_cannot_hold_is_named():
    with pytest.raises(EncodingFault, match=r"^claim 'x\.a\[0\]'"):
        signing_input({"alg": "RS256"}, {"x": {"a": [float("inf")]}})
    with pytest.raises(EncodingFault, match=r"^header parameter 'kid' holds half"):
        signing_input({"kid": "\ud800"}, {})


def test_a_header_that_names_another_algorithm_is_not_signed(signer):
    for header in ({}, {"alg": "none"}, {"alg": "RS512"}, {"alg": None}):
        with pytest.raises(EncodingFault, match="RS256"):
            sign_jwt(header, {}, signer, RS256)


def _jwt(header, payload, signature=b"sig"):
    return ".".join(b64u_encode(part) for part in (header, payload, signature))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no dots"),
        ("opaque", "opaque token"),
        ("a.b", "two parts"),
        ("a.b.c.d", "4 parts"),
        ("a.b.c.d.e.f", "6 parts"),
        (_vector("rfc7516-a1-jwe.json")["jwe"], "encrypted token (JWE)"),
        ('{"payload":"e30","signatures":[]}', "it is JSON"),
        ('{"iss":"example.com","aud":"a.b"}', "it is JSON"),
        ("..", "the header: not JSON: it is empty"),
        ("!.e30.", "the header is not base64url: '!' at character 1"),
        (_jwt(b"[]", b"{}"), "the header: a list where"),
        (_jwt(b"null", b"{}"), "the header: null where"),
        (_jwt(b'{"alg":"RS256","alg":"none"}', b"{}"), "the header: header parameter 'alg' occurs twice"),
        (_jwt(b"\xef\xbb\xbf{}", b"{}"), "the header: begins with a byte order mark"),
        (_jwt(b"\xff\xff", b"{}"), "the header: not UTF-8"),
        (_jwt(b"{}", b'"text"'), "the payload: text where"),
        (_jwt(b"{}", b"[1]"), "the payload: a list where"),
        (_jwt(b"{}", b'{"exp":1e400}'), "the payload: claim 'exp' is a number that no double holds"),
        (_jwt(b"{}", b'{"a":1,"a":1}'), "the payload: claim 'a' occurs twice"),
        (_jwt(b"{}", b"hello"), "the payload: not JSON"),
        (_jwt(b"{}", b""), "detached"),
        (_jwt(b'{"cty":"JWT"}', b"e30.e30.c2ln"), "cty says so): a nested token"),
        (_jwt(b'{"cty":"application/jwt"}', b"e30.e30.c2ln"), "nested token"),
        (_jwt(b"{}", b"eyJhIjoxfQ.e30.c2ln"), "a nested one"),
        (b64u_encode(b'{"b64":false,"crit":["b64"]}') + ".$02.sig", "b64 is false"),
        ("e30.e30.c2ln=", "the signature is not base64url: base64url with padding"),
        ("é.e30.c2ln", "the header is not base64url"),
    ],
)
def test_what_is_no_jwt_is_refused_with_what_is_in_the_way(text, reason):
    with pytest.raises(EncodingFault) as caught:
        split(text)
    assert reason in str(caught.value)


def test_a_cty_beside_claims_is_only_data():
    assert split(_jwt(b'{"cty":"JWT"}', b'{"a":1}')).claims == {"a": 1}


def test_an_unsecured_token_is_taken_apart_for_display():
    vector = _vector("rfc7519-61-unsecured.json")
    parts = split(vector["jwt"])
    assert parts[:3] == (vector["header"], vector["claims"], b"")


def test_the_signing_input_is_the_tokens_own_text():
    spaced = _jwt(b'{ "alg" : "RS256" }', b'{"a": 1}')
    assert split(spaced).signing_input.decode() == spaced.rpartition(".")[0]


TOKEN = "eyJhIjoxfQ.e30.c2ln"


@pytest.mark.parametrize(
    "pasted",
    [
        TOKEN,
        f"{TOKEN}\r\n",
        f"\n  {TOKEN} \n\n",
        f"\ufeff{TOKEN}",
        f"\ufeff\n{TOKEN}\n",
        f"\u00a0{TOKEN}\u00a0",
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN}\n",
        f"Authorization: Bearer {TOKEN}",
        f"authorization:Bearer {TOKEN}\r\n",
        f'"{TOKEN}"',
        f"'{TOKEN}'\n",
        f'" {TOKEN} "',
        f"'Authorization: Bearer {TOKEN}'",
        f'Bearer "{TOKEN}"',
    ],
)
def test_what_stands_around_a_pasted_token_is_cut(pasted):
    assert trim(pasted) == TOKEN


@pytest.mark.parametrize(
    ("pasted", "reason"),
    [
        ("", "empty"),
        (" \r\n", "empty"),
        ("\ufeff", "empty"),
        ('""', "empty"),
        ("Bearer ", "opaque"),
        (f"{TOKEN}\n{TOKEN}\n", "2 tokens"),
        (f"Bearer {TOKEN} {TOKEN}", "2 tokens"),
        (f"Basic {TOKEN}", "'Basic' stands before the token"),
        (f"{TOKEN[:5]}\n{TOKEN[5:]}", "white space inside the token, after character 5"),
        (f"{TOKEN[:14]} {TOKEN[14:]}", "white space inside the token"),
        ('{"access_token": "x"}', "it is JSON"),
        (f'"{TOKEN}', "the header is not base64url"),
        (f"{TOKEN},", "the signature is not base64url"),
    ],
)
def test_what_is_not_one_token_is_refused_with_what_is_in_the_way(pasted, reason):
    with pytest.raises(EncodingFault) as caught:
        split(trim(pasted))
    assert reason in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_comes_apart_or_is_a_fault(text):
    with contextlib.suppress(EncodingFault):
        split(trim(text))
