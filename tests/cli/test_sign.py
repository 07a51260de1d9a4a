"""`hsmjwt sign` on a real token: what is signed, what decides it, and what only would be signed."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import jwt
import pytest
from cli.checks import refused

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "adobe-golden.json").read_text())
ADOBE = ("--sub", "001D49185195123B0A490D06@AdobeOrg", "--aud", "api.vm221.dev.ut1.omniture.com")
SIGN = ("sign", "--iss", "i", "--aud", "a")
CONFIG = """
[keys.k]
uri = "pkcs11:token=t1;object=k1"
alg = "RS256"

[profiles.adobe]
provider = "adobe-analytics"
key = "k"
client_id = "TestClient"
subject = "001D49185195123B0A490D06@AdobeOrg"
audience = "api.vm221.dev.ut1.omniture.com"

[profiles.own]
key = "k"
issuer = "i"
audience = ["a"]
lifetime = 90
nbf = "-30s"
jti = "none"
typ = "at+jwt"
kid = "k-7"
claims = { n = 1, nested = { list = [true, 2.5, "x"] } }
headers = { "x-env" = "test" }
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return str(file)


def parts(ran) -> tuple[dict, dict]:
    assert ran.code == 0, ran.err
    header, claims, _ = (base64.urlsafe_b64decode(part + "==") for part in ran.out.strip().split("."))
    return json.loads(header), json.loads(claims)


def claims_of(ran) -> dict:
    return parts(ran)[1]


def test_the_golden_vector_comes_out_byte_for_byte_from_flags(hsmjwt):
    done = hsmjwt("sign", "--provider", "adobe-analytics", "--iss", "TestClient", *ADOBE, "--now", "@1395327936")
    assert done.code == 0, done.err
    assert done.out.rpartition(".")[0] == GOLDEN["signing_input"]
    assert done.err == ""


def test_the_golden_vector_comes_out_byte_for_byte_from_a_profile(quick, config):
    for environ in ({}, {"HSMJWT_PROFILE": "adobe"}):
        done = quick("sign", *([] if environ else ["adobe"]), "--config", config, "--now", "@1395327936", **environ)
        assert done.out.rpartition(".")[0] == GOLDEN["signing_input"], done.err


def test_pyjwt_verifies_what_the_token_signed(quick, token):
    pem = quick("key", "export", token.uri, HSMJWT_KEY=None).out
    done = quick(*SIGN)
    claims = jwt.decode(done.out.strip(), pem, algorithms=["RS256"], audience="a")
    assert claims["iss"] == claims["sub"] == "i"


def test_generic_gives_five_minutes_and_a_new_identifier_each_time(quick):
    before = int(time.time())
    header, claims = parts(quick(*SIGN))
    assert header == {"typ": "JWT", "alg": "RS256"}
    assert list(claims) == ["iss", "sub", "aud", "exp", "iat", "jti"]
    assert claims["exp"] - claims["iat"] == 300
    assert before <= claims["iat"] <= int(time.time())
    other = claims_of(quick(*SIGN))["jti"]
    assert claims["jti"] != other
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", other)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--exp", "60"), {"exp": 60}),
        (("--exp", "+1h"), {"exp": 3600}),
        (("--exp", "1.5m"), {"exp": 90}),
        (("--nbf", "0"), {"nbf": 0}),
        (("--nbf", "-90s"), {"nbf": -90}),
        (("--now", "-10m", "--exp", "5m"), {"iat": -600, "exp": -300}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_times_are_counted_from_now(quick, flags, wanted):
    before = int(time.time())
    claims = claims_of(quick(*SIGN, *flags))
    for name, seconds in wanted.items():
        assert before + seconds <= claims[name] <= before + seconds + 3


@pytest.mark.parametrize(
    ("flags", "jti"), [(("--jti", "none"), None), (("--jti", "7"), "7"), (("--claim", "jti=7"), "7")]
)
def test_an_identifier_may_be_given_or_left_out(quick, flags, jti):
    assert claims_of(quick(*SIGN, *flags)).get("jti") == jti


@pytest.mark.parametrize(
    ("flags", "aud"),
    [
        (("--aud", "a"), "a"),
        (("--aud", "a", "--aud", "b"), ["a", "b"]),
        (("--claim-json", 'aud=["a"]'), ["a"]),
        (("--aud", "a,b"), "a,b"),
        (("--claim", "aud=a"), "a"),
    ],
    ids=["one", "two", "list", "comma", "claim"],
)
def test_the_audience_keeps_the_shape_that_it_is_given_in(quick, flags, aud):
    assert claims_of(quick("sign", "--iss", "i", *flags))["aud"] == aud


@pytest.mark.parametrize("value", ['{"a":1}', "[1]", "[]", '""', "7", "null", '["a", null]'])
def test_an_audience_that_is_none_is_refused(quick, value):
    refused(quick("sign", "--iss", "i", "--claim-json", f"aud={value}"), 2, "'aud' must be a text or a list of texts")


def test_a_profile_says_all_that_a_flag_can(quick, config):
    header, claims = parts(quick("sign", "own", "--config", config, "--now", "@1395327936"))
    assert header == {"typ": "at+jwt", "alg": "RS256", "kid": "k-7", "x-env": "test"}
    registered = {"iss": "i", "sub": "i", "aud": ["a"], "exp": 1395328026, "iat": 1395327936, "nbf": 1395327906}
    assert claims == registered | {"n": 1, "nested": {"list": [True, 2.5, "x"]}}
    assert list(claims) == [*registered, "n", "nested"]


def test_a_flag_overrides_a_profile(quick, config):
    flags = ("--sub", "s", "--aud", "b", "--exp", "60", "--jti", "7", "--kid", "k-8", "--claim-json", "n=2")
    header, claims = parts(quick("sign", "own", "--config", config, *flags, "--header", "x-env=prod"))
    assert (header["kid"], header["x-env"]) == ("k-8", "prod")
    assert (claims["sub"], claims["aud"], claims["jti"], claims["n"]) == ("s", "b", "7", 2)
    assert claims["exp"] - claims["iat"] == 60


def test_numbers_keep_their_digits_and_texts_their_letters(quick):
    flags = ("--claim-json", "x=12345678901234567890123", "--claim-json", "y=1.10", "--claim-json", "z=1e3")
    done = quick(*SIGN, *flags, "--claim", "t=æ€😀\u2028=b", "--claim", "empty=")
    payload = base64.urlsafe_b64decode(done.out.split(".")[1] + "==").decode()
    assert '"x":12345678901234567890123,' in payload
    assert json.loads(payload)["y"] == 1.1
    assert json.loads(payload)["z"] == 1000
    assert '"t":"æ€😀\u2028=b","empty":""}' in payload


def test_further_claims_are_written_in_the_order_given(quick, tmp_path):
    (tmp_path / "c.json").write_text('{"d": 1, "c": 2}')
    flags = ("--claim-json", "z=1", "--claim", "y=2", "--claims-file", "c.json", "--claim-json=x=3", "--claim", "b=4")
    assert list(claims_of(quick(*SIGN, *flags)))[6:] == ["z", "y", "d", "c", "x", "b"]


def test_claims_come_from_a_file_and_from_stdin_with_or_without_a_bom(quick, tmp_path):
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"purpose": "x"}\r\n')
    (tmp_path / "plain.json").write_text(json.dumps({"b": 1, "a": {"c": None}, "exp": int(time.time()) + 60}))
    from_bom = quick(*SIGN, "--claims-file", "bom.json")
    assert list(claims_of(from_bom))[-1] == "purpose"
    assert list(claims_of(quick(*SIGN, "--claims-file", "plain.json")))[-2:] == ["b", "a"]
    from_stdin = quick(*SIGN, "--claims-file", "-", "--claim", "y=2", stdin=b'{"x-from": "stdin"}')
    assert list(claims_of(from_stdin))[-2:] == ["x-from", "y"]


def test_a_config_from_a_windows_editor_is_read(quick, tmp_path):
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf" + CONFIG.replace("\n", "\r\n").encode())
    assert claims_of(quick("sign", "own", "--config", "c.toml"))["iss"] == "i"


def test_a_config_is_found_where_the_environment_says_and_where_it_always_lies(quick, token, config):
    assert claims_of(quick("sign", "own", HSMJWT_CONFIG=config))["iss"] == "i"
    folder = token.folder / "home" / ".config" / "hsmjwt"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('default_profile = "own"\n' + CONFIG.replace('"i"', '"home"'))
    assert claims_of(quick("sign"))["iss"] == "home"
    assert claims_of(quick("sign", "own", HSMJWT_CONFIG=config))["iss"] == "i"
    assert claims_of(quick("sign", "own", "--config", config, HSMJWT_CONFIG="/nowhere"))["iss"] == "i"


def test_flags_alone_take_nothing_from_a_profile(quick, config):
    done = quick("sign", "--iss", "j", "--aud", "b", "--config", config, HSMJWT_PROFILE="own")
    header, claims = parts(done)
    assert header == {"typ": "JWT", "alg": "RS256"}
    assert set(claims) == {"iss", "sub", "aud", "exp", "iat", "jti"}
    assert "n" in claims_of(quick("sign", "own", "--iss", "j", "--config", config))


def test_an_audience_is_the_flags_then_the_profiles_then_the_providers(quick, config, tmp_path):
    (tmp_path / "bare.toml").write_text(CONFIG.replace('audience = "api.vm221.dev.ut1.omniture.com"\n', ""))
    assert claims_of(quick("sign", "adobe", "--config", "bare.toml"))["aud"] == "api.omniture.com"
    assert claims_of(quick("sign", "adobe", "--config", config))["aud"] == "api.vm221.dev.ut1.omniture.com"
    assert claims_of(quick("sign", "adobe", "--config", config, "--aud", "x"))["aud"] == "x"


def test_a_profile_is_the_argument_then_the_environments_then_the_default(quick, config, tmp_path):
    (tmp_path / "c.toml").write_text('default_profile = "own"\n' + CONFIG)
    for args, environ, issuer in (
        ((), {}, "i"),
        ((), {"HSMJWT_PROFILE": ""}, "i"),
        ((), {"HSMJWT_PROFILE": "adobe"}, "TestClient"),
        (("own",), {"HSMJWT_PROFILE": "adobe"}, "i"),
        (("--provider", "generic", "--iss", "x", "--aud", "a"), {"HSMJWT_PROFILE": "adobe"}, "x"),
    ):
        assert claims_of(quick("sign", *args, "--config", "c.toml", **environ))["iss"] == issuer


KEYS = """
[keys.k]
uri = "pkcs11:token=t1;object=k2"
[keys.bare]
uri = "pkcs11:token=t1;object=k2"
module = "{module}"
pin_source = "file:{pin}"
[profiles.p]
key = "k"
issuer = "i"
audience = "a"
[profiles.bare]
key = "bare"
issuer = "i"
audience = "a"
[profiles.none]
issuer = "i"
audience = "a"
"""


def test_the_key_is_the_flags_then_the_tables_then_the_environments(quick, token, tmp_path):
    token.make_key("k2")
    (tmp_path / "c.toml").write_text(KEYS.format(module=token.module, pin=token.pin_file))

    def used(*args, **environ):
        done = quick("sign", "--config", "c.toml", "--json", *args, **environ)
        assert done.code == 0, done.err
        return re.search("object=(k.)", json.loads(done.out)["key"])[1]

    assert used("p") == "k2"  # HSMJWT_KEY names k1, and never swaps a key
    assert used("p", "--key", token.uri) == "k1"
    assert used("none") == "k1"
    assert used("none", "--key", "pkcs11:token=t1;object=k2") == "k2"
    assert used("bare", HSMJWT_MODULE="/nowhere.so", HSMJWT_PIN_SOURCE="file:/nowhere", HSMJWT_KEY="junk") == "k2"
    assert used("bare", HSMJWT_MODULE=None, HSMJWT_PIN_SOURCE=None, HSMJWT_KEY=None) == "k2"
    refused(quick("sign", "bare", "--config", "c.toml", "--module", "/nowhere.so"), 4, "(--module)")
    refused(quick("sign", "bare", "--config", "c.toml", "--pin-source", "file:/nowhere"), 3, "'/nowhere'")
    refused(quick("sign", "none", "--config", "c.toml", HSMJWT_KEY=None), 2, "--key is missing", hint="[profiles.none]")


@pytest.mark.parametrize(
    ("args", "environ", "origin"),
    [
        (("--pin-source", "env:A"), {"A": "31415926", "HSMJWT_PIN_SOURCE": "env:B"}, "env:A"),
        (("--key", "pkcs11:token=t1;object=k1?pin-source=env:A"), {"A": "31415926", "HSMJWT_PIN": "1"}, "env:A"),
        (("--key", "pkcs11:token=t1;object=k1?pin-value=31415926"), {"HSMJWT_PIN": "1"}, "pin-value"),
        ((), {"HSMJWT_PIN_SOURCE": "env:A", "A": "31415926", "HSMJWT_PIN": "1"}, "env:A"),
        ((), {"HSMJWT_PIN_SOURCE": None, "HSMJWT_PIN": "31415926"}, "env:HSMJWT_PIN"),
        (("--pin-source", "command:printf '31415926\\n'"), {}, "command"),
    ],
    ids=["flag", "URI", "pin-value", "HSMJWT_PIN_SOURCE", "HSMJWT_PIN", "command"],
)
def test_the_pin_comes_from_the_most_specific_source(quick, args, environ, origin):
    done = quick(*SIGN, *args, "--verbose", **environ)
    assert done.code == 0, done.err
    assert f"hsmjwt: the PIN comes from {origin}\n" in done.err
    assert "31415926" not in done.err


def test_json_tells_what_was_signed_and_with_what(quick):
    done = quick(*SIGN, "--jti", "7", "--json")
    told = json.loads(done.out)
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in told["jwt"].split(".")[:2])
    assert list(told) == ["jwt", "header", "claims", "key"]
    assert (told["header"], told["claims"]) == (header, claims)
    assert re.fullmatch(r"pkcs11:token=t1;serial=\w+;object=k1;id=%01;type=private", told["key"])
    assert done.out.count("\n") == 1


@pytest.mark.parametrize("command", ["sign", "token"])
def test_a_dry_run_loads_no_module_and_reads_no_pin(quick, command):
    flags = ("--module", "/nowhere.so", "--pin-source", "file:/nowhere", "--token-url", "https://as.example/token")
    done = quick(command, "--iss", "i", *(flags if command == "token" else (*flags[:4], "--aud", "a")), "--dry-run")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["header"] == {"typ": "JWT", "alg": None}
    assert told["unresolved"] == ["alg"]
    assert (command == "token") is ("request" in told)
    if command == "token":
        assert told["request"]["form"]["assertion"] == "***"


def test_a_dry_run_refuses_what_a_run_would_refuse(quick):
    refused(quick(*SIGN, "--exp", "2h", "--dry-run"), 8, "exp-too-late")
    refused(quick(*SIGN, "--claim", "iss=x", "--dry-run"), 2, "'iss' is given twice")


def test_a_pin_source_that_takes_two_seconds_shows_in_iat(quick):
    before = int(time.time())
    claims = claims_of(quick(*SIGN, "--pin-source", "command:sh -c 'sleep 2; echo 31415926'"))
    assert claims["iat"] >= before + 2
