"""Key sets as they are read, and the key of one that a token asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, b64u_encode
from hsmjwt.jose.jwk import thumbprint, to_jwk
from hsmjwt.jose.jwkset import SecretFault, choose, load_set
from hsmjwt.jose.keys import EcKey, OkpKey, RsaKey

A1 = json.loads((Path(__file__).parent.parent / "vectors" / "rfc7638-rsa-thumbprint.json").read_text())
RS256, ES256 = ALGORITHMS["RS256"], ALGORITHMS["ES256"]
RSA = RsaKey(n=1 << 2047 | 1, e=65537)
OTHER = RsaKey(n=1 << 2047 | 3, e=65537)
EC = EcKey(  # RFC 7517, appendix A.1
    "P-256",
    x=0x30A0424CD21C2944838A2D75C92B37E76EA20D9F00893A3B4EEE8A3C0AAFEC3E,
    y=0xE04B65E92456D9888B52B379BDFBD51EE869EF1F0FC65B6659695B6CCE081723,
)
ED = OkpKey("Ed25519", bytes(range(32)))  # of the right length; nothing here asks whether it is a point
P521 = {  # RFC 7515, appendix A.4
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}


def jwk(key=RSA, **members):
    return {**to_jwk(key), **members}


def without(name, key=RSA):
    return {member: value for member, value in jwk(key).items() if member != name}


def loaded(*keys, **more):
    return load_set(json.dumps({"keys": list(keys), **more}).encode())


def chosen(keys, header=None, alg=RS256):
    """Return the places of the keys that may have signed, or the reason why there are none."""
    found = choose(keys, header or {}, alg)
    return found if isinstance(found, str) else [one.place for one in found]


def test_the_keys_of_a_set_come_out_in_its_order():
    keys = loaded(jwk(RSA, kid="a", use="sig", alg="RS256", x5t="?"), jwk(EC, key_ops=["verify", "sign"]), issuer="i")
    assert keys.keys == ((RSA, "a", "RS256", "keys[0]"), (EC, None, None, "keys[1]"))
    assert (keys.passed_over, keys.lone) == ((), False)
    assert [one.name for one in keys.keys] == ["kid 'a'", f"thumbprint {thumbprint(EC)}"]


def test_keys_of_every_type_are_read():
    keys = loaded(P521, jwk(ED, kid="e", alg="EdDSA"), jwk(EC), jwk(RSA))
    assert [(one.key.kty, one.key.bits) for one in keys.keys] == [("EC", 521), ("OKP", 256), ("EC", 256), ("RSA", 2048)]
    assert keys.keys[1].key == ED
    assert to_jwk(keys.keys[0].key) == P521
    for name, places in (("ES512", ["keys[0]"]), ("EdDSA", ["keys[1]"]), ("PS384", ["keys[3]"])):
        assert chosen(keys, alg=ALGORITHMS[name]) == places
    assert chosen(keys, alg=ALGORITHMS["ES384"]) == "none of the 4 keys fits alg ES384"
    reason = chosen(keys, {"kid": "e"}, ALGORITHMS["Ed25519"])
    assert reason.endswith("it is for alg 'EdDSA', and the header says Ed25519")
    assert chosen(loaded(jwk(ED)), alg=ALGORITHMS["Ed25519"]) == ["keys[0]"]


def test_a_lone_key_is_a_set_of_one():
    keys = load_set(json.dumps(A1["jwk"]).encode())
    assert [thumbprint(one.key) for one in keys.keys] == [A1["thumbprint"]]
    assert keys.lone


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[]", "a list where a JSON object belongs"),
        (b'"keys"', "text where"),
        (b"{}", "neither keys"),
        (b'{"a":{"keys":[]}}', "neither keys"),
        (b'{"jwks_uri":"https://as.example/jwks"}', "its jwks_uri says where the keys are"),
        (b'{"keys":{}}', "keys is an object, where a list"),
        (b'{"keys":null}', "keys is null"),
        (b'{"keys":[],"keys":[]}', "member 'keys' occurs twice"),
        (b'{"keys":[{"kid":"a","kid":"b"}]}', "member 'keys[0].kid' occurs twice"),
        (b'{"keys":[]}}', "not JSON"),
        (b'{"keys":[],}', "not JSON"),
        (b'{"keys":[NaN]}', "member 'keys[0]' is NaN"),
        (b'{"kty":"RSA","keys":[]}', "both kty and keys"),
        (b"\n-----BEGIN PUBLIC KEY-----\n", "it is PEM"),
        (b'{"keys":' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b'{"kty":"RSA"}', "the key has no n"),
        (b'{"kty":"RSA","n":"AQ==","e":"AQAB"}', "its n is not base64url"),
        (b'{"kty":"oct","k":"AQ"}', "shared secret"),
        (b'{"kty":7}', "its kty is a number, not text"),
    ],
)
def test_what_is_no_key_set_is_refused(text, reason):
    with pytest.raises(EncodingFault, match=re.escape(reason)):
        load_set(text)


SECRETS = [("RSA", name) for name in ("d", "p", "q", "dp", "dq", "qi", "oth")]
SECRETS += [("EC", "d"), ("OKP", "d"), ("oct", "d"), ("AKP", "priv"), ("unheard-of", "d"), (None, "d")]


@pytest.mark.parametrize(("kty", "name"), SECRETS)
def test_a_private_key_among_public_ones_is_refused_and_not_shown(kty, name):
    private = {"kty": kty, "use": "enc", name: "c2VjcmV0"}
    for place, text in (("keys[2]", json.dumps({"keys": [7, jwk(), private]})), ("it", json.dumps(private))):
        with pytest.raises(SecretFault) as caught:
            load_set(text.encode())
        assert str(caught.value).startswith(f"{place} is a private key (it has the member {name}), where")
        assert "c2VjcmV0" not in str(caught.value)


ZERO = b64u_encode(b"\0" + RSA.n.to_bytes(256, "big"))
DAMAGED = {
    "a number": (7, "keys[0] is a number, where an object belongs"),
    "a list": ([], "keys[0] is a list"),
    "nothing in it": ({}, "keys[0] has no kty"),
    "kty": (jwk(kty=["RSA"]), "keys[0].kty is a list, not text"),
    "no n": (without("n"), "keys[0] has no n"),
    "no e": (without("e"), "keys[0] has no e"),
    "null": (jwk(n=None), "keys[0].n is null, not text"),
    "n as a number": (jwk(n=RSA.n >> 1100), "keys[0].n is a number, not text"),
    "padding": (jwk(e="AQAB="), "keys[0].e is not base64url: base64url with padding"),
    "alphabet": (jwk(e="+/+/"), "keys[0].e is not base64url: '+'"),
    "line end": (jwk(e="AQ\nAB"), "keys[0].e is not base64url: white space"),
    "unused bits": (jwk(e="AR"), "keys[0].e is not base64url: base64url with unused bits"),
    "empty": (jwk(e=""), "keys[0].e is empty"),
    "zero byte": (jwk(n=ZERO), "keys[0].n begins with a zero byte"),
    "even": (jwk(RsaKey(RSA.n + 1, 3)), "keys[0] has an n and an e that are no RSA key"),
    "e of 1": (jwk(RsaKey(RSA.n, 1)), "no RSA key"),
    "e of 0": (jwk(e="AA"), "no RSA key"),
    "e of n": (jwk(RsaKey(RSA.n, RSA.n)), "no RSA key"),
    "e even": (jwk(RsaKey(RSA.n, 65538)), "no RSA key"),
    "too large": (jwk(RsaKey(1 << 16384 | 1, 3)), "keys[0].n has 16385 bits, and 16384 are the limit"),
    "kid": (jwk(kid=7), "keys[0].kid is a number, not text"),
    "alg": (jwk(alg=None), "keys[0].alg is null, not text"),
    "use": (jwk(use=["sig"]), "keys[0].use is a list, not text"),
    "key_ops": (jwk(key_ops="verify"), "keys[0].key_ops is no list of texts"),
    "key_ops of more": (jwk(key_ops=["verify", 1]), "keys[0].key_ops is no list of texts"),
    "key_ops twice": (jwk(key_ops=["verify", "verify"]), "keys[0].key_ops names an operation twice"),
    "no crv": (without("crv", EC), "keys[0] has no crv"),
    "no y": (without("y", EC), "keys[0] has no y"),
    "x cut": (jwk(EC, x=to_jwk(EC)["x"][:-3]), "keys[0].x has not the 32 bytes"),
    "x with a zero byte": (jwk(EC, x=b64u_encode(b"\0" + EC.coordinates[0])), "keys[0].x has not the 32 bytes"),
    "off the curve": (jwk(EC, y=to_jwk(EC)["x"]), "keys[0] is no key: the point is not on the curve P-256"),
    "P-521 without its zero": (
        {**P521, "y": b64u_encode(b64u_decode(P521["y"])[1:])},
        "keys[0].y has not the 66 bytes that P-521 asks for",
    ),
    "P-256's on P-521": (jwk(EC, crv="P-521"), "keys[0].x has not the 66 bytes"),
    "no x of an OKP": (without("x", ED), "keys[0] has no x"),
    "no crv of an OKP": (without("crv", ED), "keys[0] has no crv"),
    "OKP cut": (
        jwk(ED, x=b64u_encode(ED.x[1:])),
        "keys[0] is no key: an Ed25519 key has 32 bytes, and this one has 31",
    ),
    "OKP in DER": (jwk(ED, x=b64u_encode(b"\x04\x20" + ED.x)), "and this one has 34"),
    "OKP padded": (jwk(ED, x=to_jwk(ED)["x"] + "="), "keys[0].x is not base64url: base64url with padding"),
    "oct": ({"kty": "oct", "k": "c2VjcmV0"}, "keys[0] is a shared secret (kty oct)"),
}


@pytest.mark.parametrize(("key", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_key_is_passed_over_and_named(key, reason):
    keys = loaded(key, jwk(OTHER, kid="b"))
    assert [one.place for one in keys.keys] == ["keys[1]"]
    (over,) = keys.passed_over
    assert over.faulty
    assert reason in over.reason
    assert "c2VjcmV0" not in over.reason
    assert chosen(keys) == ["keys[1]"]


FOREIGN = {
    "kty": ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}, "keys[0] is of the type 'AKP', which this version"),
    "case": (jwk(kty="rsa"), "keys[0] is of the type 'rsa'"),
    "crv": (jwk(EC, crv="secp256k1"), "keys[0] is on the curve 'secp256k1', which this version"),
    "crv of an OKP": (jwk(ED, crv="Ed448"), "keys[0] is on the curve 'Ed448', which this version"),
    "X25519": (jwk(ED, crv="X25519"), "keys[0] is on the curve 'X25519'"),
    "use": (jwk(use="enc"), "keys[0] is for the use 'enc', not for signatures"),
    "use case": (jwk(use="SIG"), "keys[0] is for the use 'SIG'"),
    "key_ops": (jwk(key_ops=["encrypt"]), "keys[0] is not for verifying"),
    "no key_ops": (jwk(key_ops=[]), "keys[0] is not for verifying"),
    "key_ops and use": (jwk(use="sig", key_ops=["sign"]), "keys[0] is not for verifying"),
}


@pytest.mark.parametrize(("key", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_a_key_for_somebody_else_is_passed_over_without_blame(key, reason):
    keys = loaded({**key, "kid": "x"}, jwk(OTHER))
    (over,) = keys.passed_over
    assert not over.faulty
    assert over.reason.startswith(reason)
    assert chosen(keys) == ["keys[1]"]
    assert chosen(keys, {"kid": "x"}).startswith(f"no key of the kid 'x' can be used: {reason}")
    lone = load_set(json.dumps(key).encode())
    assert chosen(lone).startswith("no key can be used: the key is ")


def test_the_kid_names_the_key_exactly():
    keys = loaded(jwk(RSA, kid="a"), jwk(OTHER, kid="A"), jwk(EC, kid="e"))
    assert chosen(keys, {"kid": "a"}) == ["keys[0]"]
    assert chosen(keys, {"kid": "A"}) == ["keys[1]"]
    assert chosen(keys, {"kid": "e"}, ES256) == ["keys[2]"]
    for kid in ("", " a", "a ", "a\0", "\uff41"):
        assert "no key has the token's kid" in chosen(keys, {"kid": kid})


def test_a_kid_that_no_key_has_is_answered_with_those_that_are_there():
    keys = loaded(jwk(RSA, kid="a"), jwk(OTHER, kid="b\n"), jwk(use="enc", kid="c"), jwk(EC))
    assert chosen(keys, {"kid": "x"}) == "no key has the token's kid 'x': there are 'a', 'b\\n', 'c'"
    assert chosen(loaded(jwk()), {"kid": "x"}) == "no key has the token's kid 'x', or any"
    assert chosen(loaded(jwk(kid="a")), {"kid": "x"}) == "no key has the token's kid 'x': there is 'a'"
    many = chosen(loaded(*(jwk(kid=f"{'k' * 200}{number}") for number in range(100))), {"kid": "\x1b" * 500})
    assert many.endswith(" and 92 more")
    assert len(many) < 1500
    assert many.isprintable()


def test_a_kid_that_is_no_text_names_no_key():
    for kid, what in ((7, "a number"), (None, "null"), (["a"], "a list"), (True, "true")):
        assert chosen(loaded(jwk(kid="a")), {"kid": kid}) == f"the header's kid is {what}, not text"


def test_without_a_kid_each_key_that_fits_may_be_the_one():
    keys = loaded(jwk(RSA, kid="a"), jwk(EC), jwk(OTHER), jwk(RSA, kid="again"), jwk(RsaKey(1 << 1023 | 1, 3)))
    assert chosen(keys) == ["keys[0]", "keys[2]"]
    assert chosen(keys, alg=ES256) == ["keys[1]"]
    assert chosen(loaded(jwk(EC), jwk(RsaKey(1 << 1023 | 1, 3)))) == "none of the 2 keys fits alg RS256"
    assert chosen(loaded(jwk(EC, kid="e"))) == (
        "the key with the kid 'e' does not fit: RS256 takes RSA keys, and this one is EC"
    )


def test_two_keys_of_one_name_are_ambiguous_unless_their_types_tell_them_apart():
    keys = loaded(jwk(RSA, kid="a"), jwk(EC, kid="a"), jwk(OTHER, kid="a"), jwk(RSA, kid="b"), jwk(RSA, kid="b"))
    reason = chosen(keys, {"kid": "a"})
    assert reason == "the kid 'a' is ambiguous: keys[0] and keys[2] are different keys of that name"
    assert chosen(keys, {"kid": "a"}, ES256) == ["keys[1]"]
    assert chosen(keys, {"kid": "b"}) == ["keys[3]"]  # the same key twice
    for other in ({"use": "enc"}, {"alg": "PS256"}, {"n": 7}):
        assert chosen(loaded(jwk(OTHER, kid="a", **other), jwk(RSA, kid="a")), {"kid": "a"}) == ["keys[1]"]
    more = loaded(*(jwk(RsaKey(RSA.n + 2 * number, 3), kid="a") for number in range(50)))
    assert chosen(more, {"kid": "a"}).endswith("keys[0] and keys[1] and 48 more are different keys of that name")


def test_the_alg_of_a_key_must_be_that_of_the_token():
    assert chosen(loaded(jwk(alg="RS256"))) == ["keys[0]"]
    reason = chosen(loaded(jwk(alg="RS512", kid="a")), {"kid": "a"})
    assert reason == "the key with the kid 'a' does not fit: it is for alg 'RS512', and the header says RS256"
    assert chosen(loaded(jwk(alg="rs256"), jwk(OTHER, alg="RSA-OAEP"))) == "none of the 2 keys fits alg RS256"


def test_a_lone_key_without_a_kid_goes_by_any_name_and_one_with_a_kid_by_its_own():
    for key, places in ((jwk(), ["the key"]), (jwk(kid="a"), ["the key"])):
        assert chosen(load_set(json.dumps(key).encode()), {"kid": "a"}) == places
        assert chosen(load_set(json.dumps(key).encode())) == places
    named = load_set(json.dumps(jwk(kid="a")).encode())
    assert chosen(named, {"kid": "b"}) == "no key has the token's kid 'b': there is 'a'"
    assert "or any" in chosen(loaded(jwk()), {"kid": "a"})  # in a set it is one of several


def test_an_empty_set_verifies_nothing():
    assert chosen(loaded()) == chosen(loaded(), {"kid": "a"}) == "the set has no keys"


MEMBERS = ("kty", "n", "e", "crv", "x", "y", "kid", "use", "alg", "key_ops", "k")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    # what JOSE's own words do in other places, too
    | st.sampled_from(
        ["", "RSA", "EC", "OKP", "P-256", "P-521", "Ed25519", "sig", "verify", "RS256", "AQAB", "AQ", "AA", "="]
    )
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(JSON | st.dictionaries(st.sampled_from(MEMBERS), JSON), max_size=4), st.dictionaries(st.just("kid"), JSON)
)
def test_whatever_a_set_holds_it_is_read_and_every_key_is_used_or_passed_over(rows, header):
    keys = loaded(*rows)
    assert len(keys.keys) + len(keys.passed_over) == len(rows)
    for alg in ALGORITHMS.values():
        found = choose(keys, header, alg)
        assert not isinstance(found, str) or found.isprintable()


@given(st.sampled_from([RSA, EC, ED]), st.data())
def test_a_number_written_otherwise_is_another_key_or_none(key, data):
    whole = jwk(key)
    name = data.draw(st.sampled_from([name for name in whole if name not in ("kty", "crv")]))
    text = whole[name]
    at = data.draw(st.integers(0, len(text)))
    character = data.draw(st.sampled_from("AQw_-+/= .\n\0\u00e9\uff21"))
    mutant = text[:at] + character + text[at + data.draw(st.integers(0, 1)) :]
    keys = loaded({**whole, name: mutant})
    if mutant != text:
        assert [one.key for one in keys.keys if one.key == key] == []
