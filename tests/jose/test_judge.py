"""The verdict of `verify`: signature first, then claims, each reason in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.encoding import b64u_encode
from hsmjwt.jose.judge import judge, judge_other_key, same_media_type
from hsmjwt.jose.jws import Parts, split
from hsmjwt.jose.keys import RsaKey

VECTORS = Path(__file__).parent.parent / "vectors"
KEY = RsaKey(n=1 << 2047 | 1, e=65537)
NOW = 1_700_000_000


def _good(key, alg, message, signature):
    assert (key, alg.name, message) == (KEY, "RS256", b"message")
    return signature == b"good"


def _judge(claims=None, header=None, *, signature=b"good", **flags):
    parts = Parts({"alg": "RS256"} if header is None else header, claims or {}, signature, b"message")
    return judge(parts, KEY, check=_good, **{"now": NOW, **flags})


def test_a_good_signature_and_no_claims_are_valid():
    assert _judge() == (True, 0, None)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "RS256", "crit": ["b64"], "b64": True}, "crit"),
        ({"alg": "RS256", "crit": []}, "crit"),
        ({"alg": "RS256", "crit": ["alg"]}, "crit"),
        ({"alg": "RS256", "b64": False}, "b64"),
        ({"alg": "RS256", "b64": "false"}, "b64"),
        ({"alg": "RS256", "b64": None}, "b64"),
        ({}, "names no alg"),
        ({"alg": None}, "alg is null, not text"),
        ({"alg": ["RS256"]}, "alg is a list, not text"),
        ({"alg": "none"}, "alg 'none': the token is not signed"),
        ({"alg": "None"}, "not signed"),
        ({"alg": "HS256"}, "shared secret"),
        ({"alg": "hs512"}, "shared secret"),
        ({"alg": "ES256"}, "alg 'ES256' does not fit"),
        ({"alg": "rs256"}, "alg 'rs256' does not fit"),
        ({"alg": "RS256 "}, "does not fit"),
        ({"alg": "\x1b[31m"}, r"alg '\x1b[31m'"),
    ],
)
def test_a_header_that_is_not_understood_is_a_bad_signature(header, reason):
    verdict = _judge(header=header)
    assert (verdict.valid, verdict.exit_code) == (False, 7)
    assert reason in verdict.reason


def test_a_wrong_signature_is_told_before_the_claims():
    assert _judge({"exp": 1}, signature=b"bad") == (False, 7, "the signature does not verify with this key")
    assert _judge({"exp": 1}, signature=b"") == (False, 7, "there is no signature")


def test_an_unsecured_token_never_verifies():
    parts = split(json.loads((VECTORS / "rfc7519-61-unsecured.json").read_text())["jwt"])
    assert judge(parts, KEY, check=lambda *_: True, now=0).exit_code == 7


def test_a_short_key_proves_nothing():
    parts = Parts({"alg": "RS256"}, {}, b"good", b"message")
    verdict = judge(parts, RsaKey(n=1 << 1023 | 1, e=3), check=lambda *_: True, now=NOW)
    assert (verdict.valid, verdict.exit_code) == (False, 7)
    assert verdict.reason == "RS256 takes keys of 2048 bits or more (RFC 7518, 3.3), and this one has 1024"


def test_a_key_of_another_type_fits_no_token():
    for header, reason in (
        ({"alg": "RS256"}, "alg RS256 does not fit a key of type EC"),
        ({"alg": "none"}, "alg 'none': the token is not signed"),
        ({"alg": "RS256", "crit": ["x"]}, "the header's crit demands extensions that hsmjwt does not have"),
    ):
        assert judge_other_key(Parts(header, {}, b"good", b"message"), "EC") == (False, 7, reason)


@pytest.mark.parametrize(
    ("claims", "flags", "reason"),
    [
        ({"exp": NOW + 1}, {}, None),
        ({"exp": NOW}, {}, "it expired at 2023-11-14T22:13:20Z"),
        ({"exp": NOW}, {"leeway": 1}, None),
        ({"exp": NOW - 5}, {"leeway": 5}, "expired"),
        ({"exp": NOW + 0.5}, {}, None),
        ({"exp": NOW + 0.5}, {"now": NOW + 0.6}, "expired"),
        ({"exp": 1.683061093e9}, {}, "it expired at 2023-05-02T20:58:13Z"),
        ({"exp": -1}, {}, "it expired before 1970"),
        ({"exp": -1e300}, {}, "before 1970"),
        ({"exp": 0}, {}, "at 1970-01-01T00:00:00Z"),
        ({"exp": 1683061093000}, {}, "exp lies after the year 9999 (milliseconds"),
        ({"exp": 1e26}, {}, "year 9999"),
        ({"exp": 10**50}, {}, "year 9999"),
        ({"exp": 10**400}, {}, "year 9999"),
        ({"exp": float("nan")}, {}, "exp lies after"),
        ({"exp": float("inf")}, {}, "exp lies after"),
        ({"exp": 253402300799}, {}, None),
        ({"exp": str(NOW + 60)}, {}, "exp is text, not a number of seconds"),
        ({"exp": None}, {}, "exp is null"),
        ({"exp": True}, {}, "exp is true"),
        ({"exp": [NOW + 60]}, {}, "exp is a list"),
        ({"exp": {}}, {}, "exp is an object"),
        ({"exp": None}, {"check_time": False}, None),
        ({"exp": 1}, {"check_time": False}, None),
        ({"nbf": NOW}, {}, None),
        ({"nbf": NOW + 1}, {}, "it becomes valid at 2023-11-14T22:13:21Z"),
        ({"nbf": NOW + 1}, {"leeway": 1}, None),
        ({"nbf": NOW + 1}, {"check_time": False}, None),
        ({"nbf": "now"}, {}, "nbf is text"),
        ({"nbf": -5}, {}, None),
        ({"nbf": 10**13}, {}, "nbf lies after"),
    ],
)
def test_times_are_compared_and_odd_ones_refused(claims, flags, reason):
    verdict = _judge(claims, **flags)
    assert verdict.exit_code == (0 if reason is None else 8)
    assert verdict.valid == (reason is None)
    assert (reason is None and verdict.reason is None) or reason in verdict.reason


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({}))
def test_no_value_of_a_time_raises(value):
    for name in ("exp", "nbf", "iat"):
        assert _judge({name: value}).exit_code in (0, 8)


@pytest.mark.parametrize(
    ("claims", "flags", "reason"),
    [
        ({"aud": "a"}, {"aud": "a"}, None),
        ({"aud": ["b", "a"]}, {"aud": "a"}, None),
        ({"aud": ["b", "a"]}, {"aud": ["a", "b"]}, None),
        ({"aud": ["b", "a"]}, {"aud": ["a", "c"]}, "aud is a list without 'c'"),
        ({"aud": "a"}, {}, None),
        ({}, {"aud": "a"}, "there is no aud, where 'a' is wanted"),
        ({"aud": "a/"}, {"aud": "a"}, "aud is 'a/', not 'a'"),
        ({"aud": "ab"}, {"aud": "a"}, "aud is 'ab'"),
        ({"aud": "A"}, {"aud": "a"}, "aud is 'A'"),
        ({"aud": []}, {"aud": "a"}, "aud is a list without 'a'"),
        ({"aud": ["a", 1]}, {"aud": "a"}, "aud is a list of more than text"),
        ({"aud": 1}, {"aud": "1"}, "aud is a number"),
        ({"aud": {"a": 1}}, {"aud": "a"}, "aud is an object"),
        ({"aud": None}, {"aud": "a"}, "aud is null"),
        ({"iss": "i"}, {"iss": "i"}, None),
        ({"iss": "i"}, {}, None),
        ({}, {"iss": "i"}, "there is no iss, where 'i' is wanted"),
        ({"iss": "https://i/"}, {"iss": "https://i"}, "iss is 'https://i/', not 'https://i'"),
        ({"iss": ["i"]}, {"iss": "i"}, "iss is a list, not text"),
        ({"iss": ""}, {"iss": ""}, None),
        ({}, {"iss": ""}, "there is no iss"),
    ],
)
def test_audience_and_issuer_are_compared_where_they_are_asked_for(claims, flags, reason):
    verdict = _judge(claims, **flags)
    assert verdict.exit_code == (0 if reason is None else 8)
    assert (reason is None and verdict.reason is None) or reason in verdict.reason


@pytest.mark.parametrize(
    ("typ", "wanted", "reason"),
    [
        ("JWT", "JWT", None),
        ("jwt", "JWT", None),
        ("application/jwt", "JWT", None),
        ("JWT", "application/jwt", None),
        ("at+jwt", "JWT", "typ is 'at+jwt', not 'JWT'"),
        ("text/jwt", "jwt", "typ is 'text/jwt'"),
        ("application/a/b", "a/b", "typ is"),
        (1, "1", "typ is a number, not text"),
        (None, "JWT", "typ is null"),
    ],
)
def test_typ_is_compared_as_a_media_type(typ, wanted, reason):
    verdict = _judge(header={"alg": "RS256", "typ": typ}, typ=wanted)
    assert verdict.exit_code == (0 if reason is None else 8)
    assert (reason is None and verdict.reason is None) or reason in verdict.reason


def test_a_typ_that_is_asked_for_and_absent_is_refused():
    assert _judge(typ="JWT").reason == "there is no typ, where 'JWT' is wanted"
    assert _judge(typ=None).valid


def test_all_claims_that_do_not_hold_are_named_at_once():
    verdict = _judge({"exp": 1, "nbf": NOW + 9, "iss": "x", "aud": "y"}, typ="t", iss="i", aud="a")
    assert verdict.exit_code == 8
    assert [reason.split()[0] for reason in verdict.reason.split("; ")] == ["there", "iss", "aud", "it", "it"]


def test_a_reason_is_one_line_without_control_characters():
    verdict = _judge({"iss": "a\nb\x1b", "aud": "\u202e"}, iss="i", aud="\x07")
    assert verdict.reason.isprintable()


def test_media_types_differ_by_more_than_case_and_prefix():
    assert same_media_type("Client-Authentication+JWT", "application/client-authentication+jwt")
    assert not same_media_type("client-authentication+jwt", "jwt")


def test_the_header_cannot_bring_its_own_key():
    header = {"alg": "RS256", "jwk": {"kty": "RSA"}, "jku": "https://attacker.example", "x5u": "https://a.example"}
    assert _judge(header=header).valid
    assert not _judge(header=header, signature=b64u_encode(b"x").encode()).valid
