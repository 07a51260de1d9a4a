"""The verdict of `verify`: signature first, then claims, each reason in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hsmjwt import verify
from hsmjwt.jose.encoding import EncodingFault, b64u_encode
from hsmjwt.jose.judge import Verdict, judge, judge_other_key, judge_set, same_media_type
from hsmjwt.jose.jwk import to_jwk
from hsmjwt.jose.jwkset import load_set
from hsmjwt.jose.jws import Parts, split, trim
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
        ({"alg": "RS256", "crit": ["b64"], "b64": True}, "crit demands that 'b64' is understood, and hsmjwt has no"),
        ({"alg": "RS256", "crit": ["x\x1b"], "x\x1b": 1}, r"crit demands that 'x\x1b' is understood"),
        ({"alg": "RS256", "crit": ["alg"]}, "crit demands that 'alg'"),
        ({"alg": "RS256", "crit": ["x"]}, "crit names 'x', which the header does not have"),
        ({"alg": "RS256", "crit": ["crit"]}, "crit demands that 'crit'"),
        ({"alg": "RS256", "crit": []}, "crit is an empty list"),
        ({"alg": "RS256", "crit": None}, "crit is null, where a list of names belongs"),
        ({"alg": "RS256", "crit": "exp", "exp": 1}, "crit is text, where a list of names belongs"),
        ({"alg": "RS256", "crit": {"exp": 1}}, "crit is an object, where a list"),
        ({"alg": "RS256", "crit": False}, "crit is false, where a list"),
        ({"alg": "RS256", "crit": [1]}, "crit is a list with a number, where names belong"),
        ({"alg": "RS256", "crit": [["alg"]]}, "crit is a list with a list, where names belong"),
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
        ({"alg": "ES256"}, "ES256 takes EC keys, and this one is RSA"),
        ({"alg": "ES384"}, "ES384 takes EC keys, and this one is RSA"),
        ({"alg": "EdDSA"}, "EdDSA takes OKP keys, and this one is RSA"),
        ({"alg": "ES256K"}, "alg 'ES256K' does not fit"),
        ({"alg": "Ed448"}, "alg 'Ed448' does not fit"),
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
        ({"alg": "RS256", "crit": []}, "the header's crit is an empty list"),
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
        ("o\u212a", "ok", "typ is"),
        ("a;v=b", "application/A;v=b", None),
        ("a;v=B", "a;v=b", "typ is"),
        ('a;v="b/c"', 'application/a;v="b/c"', "typ is"),
        ("", "", None),
        ("", "application/", None),
        ("JWT ", "JWT", "typ is 'JWT '"),
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


def _judge_set(rows, header=None, *, good=None, claims=None, signature=b"good", **flags):
    """Judge a token that key `good` has signed by a set of `rows`; return the verdict and the key's place."""

    def check(key, alg, message, signature):
        return key == good and signature == b"good"

    def judge_one(key):
        return judge(parts, key, check=check, **{"now": NOW, **flags})

    parts = Parts({"alg": "RS256", **(header or {})}, claims or {}, signature, b"message")
    verdict, used = judge_set(parts, load_set(json.dumps({"keys": rows}).encode()), judge_one)
    return verdict, used and used.place


OTHER = RsaKey(n=1 << 2047 | 3, e=65537)
TWO = [{**to_jwk(OTHER), "kid": "b"}, {**to_jwk(KEY), "kid": "a"}]


def test_a_set_verifies_with_the_key_that_the_kid_names_and_with_no_other():
    assert _judge_set(TWO, {"kid": "a"}, good=KEY) == ((True, 0, None), "keys[1]")
    wrong = Verdict(valid=False, exit_code=7, reason="the signature does not verify with this key")
    assert _judge_set(TWO, {"kid": "b"}, good=KEY) == (wrong, "keys[0]")
    verdict, place = _judge_set(TWO, {"kid": "c"}, good=KEY)
    assert (verdict.exit_code, place) == (7, None)
    assert verdict.reason == "no key has the token's kid 'c': there are 'b', 'a'"


def test_without_a_kid_the_key_that_verifies_is_told():
    assert _judge_set(TWO, good=KEY) == ((True, 0, None), "keys[1]")
    assert _judge_set(TWO, good=OTHER) == ((True, 0, None), "keys[0]")
    none = Verdict(valid=False, exit_code=7, reason="the signature verifies with none of the 2 keys that fit")
    assert _judge_set(TWO) == (none, None)
    assert _judge_set(TWO, signature=b"")[0].reason == "there is no signature"


def test_claims_are_judged_with_the_key_that_verified():
    for header in ({}, {"kid": "a"}):
        verdict, place = _judge_set(TWO, header, good=KEY, claims={"exp": 1})
        assert (verdict.exit_code, verdict.reason, place) == (8, "it expired at 1970-01-01T00:00:01Z", "keys[1]")


def test_what_no_key_can_verify_is_said_before_keys_are_looked_for():
    for header, reason in (
        ({"alg": "none"}, "alg 'none': the token is not signed"),
        ({"alg": "HS256"}, "shared secret"),
        ({"crit": ["x"], "x": 1}, "crit demands"),
        ({"b64": False}, "b64"),
    ):
        verdict, place = _judge_set([], {"kid": "a", **header})
        assert (verdict.exit_code, place) == (7, None)
        assert reason in verdict.reason


def test_a_secret_in_a_set_makes_no_hmac_key():
    oct_key = {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}
    for alg in ("HS256", "RS256"):
        verdict, _ = _judge_set([oct_key], {"kid": "a", "alg": alg}, good=KEY)
        assert verdict.exit_code == 7
        assert "c2VjcmV0" not in verdict.reason


A2 = json.loads((VECTORS / "rfc7515-a2-rs256.json").read_text())
A2_SET = load_set(json.dumps({"keys": [{name: A2["jwk"][name] for name in ("kty", "n", "e")}]}).encode())


def _verifies(text):
    try:
        parts = split(trim(text))
    except EncodingFault:
        return False
    return judge_set(parts, A2_SET, lambda key: judge(parts, key, check=verify.valid, now=0))[0].valid


ODD = "AQgw09-_+/=.% \t\r\n\0\x1f\u00a0\u0391\uff21\u200b\ufeff\U0001f600\udcff"
EDITS = st.tuples(  # where, how many characters go, and what comes instead
    st.integers(0, len(A2["jwt"])), st.integers(0, 2), st.text(st.sampled_from(ODD) | st.characters(), max_size=3)
)


@settings(max_examples=500)
@given(st.lists(EDITS, min_size=1, max_size=3))
@example([(len(A2["jwt"]), 0, "=")])
@example([(len(A2["jwt"]), 0, ".")])
@example([(len(A2["jwt"]), 0, "\0")])
@example([(0, 0, ".")])
def test_a_token_has_one_spelling(edits):
    text = A2["jwt"]
    for at, gone, new in edits:
        text = text[:at] + new + text[at + gone :]
    assume(text.strip("\ufeff\"'` \t\r\n") != A2["jwt"])  # what a person may have pasted with it
    assume(text.strip().strip("\ufeff").strip() != A2["jwt"])
    assert not _verifies(text)


def test_each_character_of_a_token_counts():
    jwt = A2["jwt"]
    for at in range(len(jwt)):
        assert not _verifies(jwt[:at] + jwt[at + 1 :]), at
        assert not _verifies(jwt[:at] + ("A" if jwt[at] != "A" else "B") + jwt[at + 1 :]), at


@given(st.text(" \t\r\n"), st.text(" \t\r\n"))
def test_blanks_and_line_ends_around_a_token_do_not(before, after):
    assert _verifies(before + A2["jwt"] + after)
