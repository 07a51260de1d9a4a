"""Claims and header of a profile: each named once, checked where it was named, merged in a fixed order."""

from __future__ import annotations

import pytest

from hsmjwt.config import Settings, parse
from hsmjwt.errors import ConfigError, HsmjwtError, UsageError
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.oauth.profile import SigningFlags, resolve

K = {"key": "pkcs11:token=t;object=k"}
C = {"iss": "i", "sub": "s", "aud": ("a",)}
CONFIG = """
[keys.k]
uri = "pkcs11:token=t;object=k"
"""


def generic(*lines):
    text = CONFIG + '[profiles.p]\nkey = "k"\nissuer = "i"\n' + "\n".join(lines)
    return parse(text.encode(), "/etc/hsmjwt/c.toml")


def sign(config=None, argument=None, **flags):
    return resolve(config or Settings(), SigningFlags(**flags), argument, {}, exchanging=False)


def extras(profile):
    return dict(profile.claims.extra)


def refusal(call, *arguments, **flags):
    with pytest.raises(HsmjwtError) as caught:
        call(*arguments, **flags)
    return caught.value


@pytest.mark.parametrize(
    ("flags", "aud"),
    [
        ({"aud": ("a",)}, "a"),
        ({"aud": ("a", "b")}, ["a", "b"]),
        ({"aud": ("a,b",)}, "a,b"),
        ({"claim_json": ('aud=["a"]',)}, ["a"]),
        ({"claim_json": ('aud="a"',)}, "a"),
        ({"claim": ("aud=a",)}, "a"),
        ({"claims_file": b'{"aud": ["a"]}'}, ["a"]),
    ],
)
def test_an_audience_keeps_the_shape_in_which_it_was_given(flags, aud):
    assert sign(**K, iss="i", **flags).claims.aud == aud


def test_a_list_in_a_profile_stays_a_list():
    assert sign(generic('audience = ["a"]'), "p").claims.aud == ["a"]
    assert sign(generic('audience = "a"'), "p").claims.aud == "a"


@pytest.mark.parametrize("value", ['{"a":1}', "[1]", "[]", "1", "null", '""', '["a",""]', '["a",["b"]]', "true"])
def test_an_audience_that_is_no_text_is_refused(value):
    error = refusal(sign, **K, iss="i", claim_json=(f"aud={value}",))
    assert isinstance(error, UsageError)
    assert "'aud'" in error.message


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("aud", {"aud": ("a",), "claim_json": ('aud=["b"]',)}),
        ("aud", {"aud": ("a",), "claims_file": b'{"aud":"b"}'}),
        ("iss", {"claim": ("iss=j",)}),
        ("sub", {"sub": "s", "claims_file": b'{"sub":"t"}'}),
        ("exp", {"exp": "5m", "claim_json": ("exp=1800000300",)}),
        ("nbf", {"nbf": "0", "claims_file": b'{"nbf":1}'}),
        ("jti", {"jti": "none", "claim": ("jti=x",)}),
        ("x", {"claim": ("x=1", "x=2")}),
        ("x", {"claim": ("x=1",), "claim_json": ("x=1",)}),
        ("x", {"claim_json": ("x=1",), "claims_file": b'{"x":1}'}),
        ("iat", {"claim_json": ("iat=1",), "claims_file": b'{"iat":1}'}),
    ],
)
def test_a_claim_named_twice_among_flags_and_file_is_refused(name, flags):
    error = refusal(sign, **K, iss="i", **{"aud": ("z",)} | flags if name != "aud" else flags)
    assert isinstance(error, UsageError)
    assert f"the claim '{name}' is given twice" in error.message


def test_a_claim_flag_overrides_the_profile_and_keeps_its_place():
    config = generic('subject = "s"', 'audience = "a"', "claims = { one = 1, two = 2, three = 3 }")
    profile = sign(config, "p", claim=("two=TWO", "four=4"), claims_file=b'{"sub": "t", "five": 5}')
    assert list(extras(profile).items()) == [("one", 1), ("two", "TWO"), ("three", 3), ("four", "4"), ("five", 5)]
    assert profile.claims.sub == "t"


def test_claims_of_any_json_are_kept_to_the_digit():
    big = 12345678901234567890123
    profile = sign(**K, **C, claim_json=(f"x={big}", 'y={"a":[1.5,null]}', "z=null"), claim=("t=", "u=a=b"))
    assert extras(profile) == {"x": big, "y": {"a": [1.5, None]}, "z": None, "t": "", "u": "a=b"}


def test_a_claim_of_a_mebibyte_is_kept_whole():
    assert len(extras(sign(**K, **C, claim=("x=" + "y" * 1024 * 1024,)))["x"]) == 1024 * 1024


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ({"claim_json": ("x=1e400",)}, "claim 'x'"),
        ({"claim_json": ('x={"a":[-1e999]}',)}, "claim 'x.a[0]'"),
        ({"claims_file": b'{"x":1e400}'}, "claim 'x'"),
        ({"claims_file": b'{"x":NaN}'}, "claim 'x'"),
        ({"claims_file": b'{"x":1,"x":2}'}, "claim 'x' occurs twice"),
        ({"claims_file": b"[1]"}, "a list where a JSON object belongs"),
        ({"claims_file": b"iss=i"}, "not JSON"),
        ({"claims_file": b""}, "empty"),
        ({"claims_file": '{"x":1}'.encode("utf-16")}, "not UTF-8"),
        ({"claims_file": b'{"x":"\xff"}'}, "not UTF-8"),
        ({"claims_file": b'{"x":"\\ud800"}'}, "surrogate"),
        ({"claims_file": b'{"x":' + b"[" * 100_000}, "nested"),
        ({"claim_json": ('x={"a":1,"a":2}',)}, "occurs twice"),
        ({"claim_json": ("x=text",)}, "not JSON"),
        ({"claim_json": ("x=",)}, "empty"),
        ({"claim_json": ("x",)}, "is not NAME=JSON"),
        ({"claim_json": ("=1",)}, "is not NAME=JSON"),
        ({"claim": ("x",)}, "is not NAME=TEXT"),
        ({"claim": ("=x",)}, "is not NAME=TEXT"),
        ({"claim": ("x=\udcff",)}, "--claim is not UTF-8"),
        ({"claim": ("\udcff=x",)}, "--claim is not UTF-8"),
        ({"sub": "\udcff"}, "--sub is not UTF-8"),
        ({"sub": ""}, "--sub is empty"),
        ({"exp": "tomorrow"}, "--exp: 'tomorrow' is no time"),
        ({"exp": "2031-11-02T01:30:00"}, "has no offset"),
        ({"nbf": "5x"}, "--nbf: '5x' is no time"),
        ({"now": "noon"}, "--now: 'noon' is no time"),
        ({"claim": ("exp=1800000000",)}, "'exp' must be a number of seconds, not text"),
        ({"claim_json": ("exp=true",)}, "'exp' must be a number"),
        ({"claim_json": ("iat=null",)}, "'iat' must be a number"),
        ({"claims_file": b'{"nbf": "now"}'}, "'nbf' must be a number"),
        ({"claims_file": b'{"sub": 5}'}, "'sub' must be a text"),
        ({"claim_json": ("jti=1",)}, "'jti' must be a text"),
        ({"claim_json": ("nbf=[1]",)}, "'nbf' must be a number of seconds, not a list"),
        ({"claim_json": ("aud=[1]",)}, "none empty, not a list with something else"),
        ({"timeout": "0"}, "--timeout: must be longer than 0"),
        ({"timeout": "soon"}, "--timeout: 'soon' is no duration"),
        ({"min_ttl": "-1"}, "--min-ttl: '-1' is no duration"),
        ({"grant": "password"}, "--grant: unknown grant 'password'"),
        ({"alg": "none"}, "'none' is no signature algorithm"),
        ({"alg": "HS256"}, "'HS256' is no signature algorithm"),
        ({"alg": "ES256K"}, "ES256K is not supported by this version"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_exit_2(flags, shown):
    error = refusal(sign, **K, **{"iss": "i", "aud": ("a",)} | flags)
    assert isinstance(error, UsageError)
    assert shown in error.message


def test_a_claims_file_from_windows_is_read():
    profile = sign(**K, **C, claims_file=b'\xef\xbb\xbf{"purpose": "x"}\r\n')
    assert extras(profile) == {"purpose": "x"}


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (['claims = { iss = "j" }'], "the claim 'iss' is given twice"),
        (["claims = { exp = 'x' }"], "'exp' must be a number"),
        (["claims = { sub = 2031-01-01 }"], "'sub' must be a text that is not empty, not a date or time"),
        (["claims = { when = 2031-01-01T00:00:00Z }"], "claim 'when'"),
        (["claims = { x = { y = [inf] } }"], "claim 'x.y[0]'"),
        ([f"claims = {{ x = 0x{'f' * 400} }}"], "claim 'x'"),
        (["lifetime = '5x'"], "lifetime in [profiles.p]: '5x' is no duration"),
        (["lifetime = -5"], "lifetime in [profiles.p]: '-5' is no duration"),
        (["nbf = 'noon'"], "nbf in [profiles.p]"),
        (["timeout = 0"], "timeout in [profiles.p]: must be longer"),
        (["timeout = 1e17"], "timeout in [profiles.p]: '1e+17' is no duration"),
        (["grant = 'password'"], "grant in [profiles.p]: unknown grant"),
        (["token_url = 'http://as.example/t'"], "token_url in [profiles.p]"),
        (["typ = 'hsmjwt-x'"], "typ in [profiles.p]"),
        (["headers = { alg = 'none' }"], "alg in [profiles.p.headers]"),
        (["headers = { typ = 5 }"], "typ in [profiles.p.headers]"),
        (["kid = 'a'", "headers = { kid = 'b' }"], "the header field 'kid' is given twice"),
        (["form = { client_id = 'x' }"], "client_id in [profiles.p.form]"),
        (["form = { x = 5 }"], "x in [profiles.p.form]: must be text"),
        (["client_secret_source = 'S3cr3t'"], "client_secret_source in [profiles.p]"),
        (["proxy = 'ftp://u:S3cr3t@h'"], "proxy in [profiles.p]: "),
        (["proxy = 'http://u:S3cr3t@h:99999'"], "proxy in [profiles.p]"),
        (["proxy = 'http://u:S3cr3t@'"], "proxy in [profiles.p]"),
        (['ca_file = "a\\u0000b"'], "ca_file in [profiles.p]"),
    ],
)
def test_a_profile_that_cannot_be_meant_is_exit_3_and_names_the_line(lines, shown):
    config = generic('audience = "a"', *lines)
    line = CONFIG.count("\n") + 4 + len(lines)
    error = refusal(sign, config, "p")
    assert isinstance(error, ConfigError)
    assert error.message.startswith(f"config file '/etc/hsmjwt/c.toml', line {line}: ")
    assert shown in error.message
    assert "S3cr3t" not in f"{error.message} {error.hint}"


# Header


@pytest.mark.parametrize("name", ["alg", "b64", "crit", "jwk", "x5c", "x5t", "x5t#S256", "ALG", "x5t#s256"])
def test_a_header_field_that_a_verifier_acts_on_cannot_be_set(name):
    error = refusal(sign, **K, **C, header=(f"{name}=x",))
    assert isinstance(error, UsageError)
    assert f"{name!r} cannot be set" in error.message


@pytest.mark.parametrize("flags", [{"typ": "hsmjwt-transcript+jws"}, {"header": ("typ=application/HSMJWT-x",)}])
def test_our_own_types_cannot_be_asked_for(flags):
    error = refusal(sign, **K, **C, **flags)
    assert isinstance(error, UsageError)
    assert "reserved" in error.message


def test_header_fields_are_merged_and_typ_and_kid_may_be_among_them():
    config = generic('audience = "a"', 'headers = { cty = "x", kid = "1" }')
    assert sign(config, "p").header_with("RS256") == {"typ": "JWT", "alg": "RS256", "cty": "x", "kid": "1"}
    header = sign(config, "p", kid="2", header=("typ=at+jwt", "jku=https://x.example")).header_with("RS256")
    assert list(header.items()) == [
        ("typ", "at+jwt"),
        ("alg", "RS256"),
        ("cty", "x"),
        ("kid", "2"),
        ("jku", "https://x.example"),
    ]


@pytest.mark.parametrize(
    "flags", [{"typ": "a", "header": ("typ=b",)}, {"header": ("x=1", "x=2")}, {"header": ("x",)}, {"header": ("=x",)}]
)
def test_a_header_field_twice_or_without_a_name_is_refused(flags):
    assert isinstance(refusal(sign, **K, **C, **flags), UsageError)


@pytest.mark.parametrize(
    "name",
    ["TYP", "Typ", "tYp", "KID", "Kid", "\u212aid", "ALG", "Crit", "JWK", "X5C", "x5t#S256", "B64", "x5t#\u017f256"],
)
def test_another_spelling_of_a_header_field_that_is_looked_at_cannot_be_set(name):
    error = refusal(sign, **K, **C, header=(f"{name}=hsmjwt-ceremony",))
    assert isinstance(error, UsageError)
    assert "cannot be set" in error.message
    error = refusal(sign, generic('audience = "a"', f"headers = {{ '{name}' = 'x' }}"), "p")
    assert isinstance(error, ConfigError)
    assert "line" in error.message


def test_a_claim_that_is_a_list_where_none_belongs_is_plainly_one():
    for text in ("nbf=[1]", "nbf=[]", "jti=['a']".replace("'", '"')):
        error = refusal(sign, **K, iss="i", aud=("a",), claim_json=(text,))
        assert error.message.endswith(", not a list")


def test_an_algorithm_that_is_not_made_leads_to_the_one_that_is():
    for alg in ("HS256", "none", "ES256K", "RS265", "Ed448"):
        error = refusal(sign, **K, iss="i", aud=("a",), alg=alg)
        assert error.hint == f"this version signs with {', '.join(ALGORITHMS)}"
