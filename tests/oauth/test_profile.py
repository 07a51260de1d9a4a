"""Which value wins: flag, profile, key table, environment, the provider's default, ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hsmjwt.config import Settings, parse
from hsmjwt.errors import ConfigError, HsmjwtError, UsageError
from hsmjwt.jose.claims import build
from hsmjwt.jose.jws import signing_input
from hsmjwt.oauth.profile import SigningFlags, resolve

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "adobe-golden.json").read_text(encoding="utf-8"))
NOW = 1_800_000_000
KEY = "pkcs11:token=t;object=k"
K = {"key": KEY}
C = {"iss": "i", "sub": "s", "aud": ("a",)}
HERE = "http://127.0.0.1:8080/token"

CONFIG = """
[keys.k]
uri = "pkcs11:token=t;object=k"
module = "/lib/m.so"
alg = "RS256"
[keys.other]
uri = "pkcs11:object=other"
"""
ADOBE = (
    CONFIG
    + """
[profiles.p]
provider = "adobe-analytics"
key = "k"
client_id = "TestClient"
subject = "001D49185195123B0A490D06@AdobeOrg"
"""
)


def settings(text):
    return parse(text.encode(), "/etc/hsmjwt/c.toml")


def generic(*lines):
    return settings(CONFIG + '[profiles.p]\nkey = "k"\nissuer = "i"\n' + "\n".join(lines))


def sign(config=None, argument=None, environ=None, **flags):
    return resolve(config or Settings(), SigningFlags(**flags), argument, environ or {}, exchanging=False)


def token(config=None, argument=None, environ=None, **flags):
    return resolve(config or Settings(), SigningFlags(**flags), argument, environ or {}, exchanging=True)


def claims(profile, now=NOW):
    return build(profile.claims, now=profile.claims_now(now), new_jti=lambda: "new")


def refusal(call, *arguments, **flags):
    with pytest.raises(HsmjwtError) as caught:
        call(*arguments, **flags)
    return caught.value


# The seed's flow


@pytest.mark.parametrize("call", [sign, token])
def test_the_golden_vector_comes_out_of_flags_and_of_a_profile(call):
    aud = ("api.vm221.dev.ut1.omniture.com",)
    by_flags = call(
        provider="adobe-analytics",
        **K,
        **({"iss": "TestClient"} if call is sign else {"client_id": "TestClient"}),
        sub="001D49185195123B0A490D06@AdobeOrg",
        aud=aud,
        now="@1395327936",
    )
    by_profile = call(settings(ADOBE), "p", aud=aud, now="@1395327936")
    for profile in (by_flags, by_profile):
        made = signing_input(profile.header_with(profile.alg), claims(profile))
        assert made.decode() == GOLDEN["signing_input"]
        assert profile.client_id == "TestClient"
        assert (profile.alg, profile.unresolved, profile.grant) == ("RS256", (), "jwt-bearer")


def test_adobes_defaults_are_its_own_and_give_way():
    profile = token(settings(ADOBE), "p")
    assert claims(profile) == {
        "iss": "TestClient",
        "sub": "001D49185195123B0A490D06@AdobeOrg",
        "aud": "api.omniture.com",
        "exp": NOW + 1000,
        "iat": NOW,
    }
    assert profile.token_url == "https://api.omniture.com/token"
    assert (profile.jti_mode, profile.max_life) == ("none", 3600)
    profile = token(settings(ADOBE), "p", jti="auto", nbf="-5", exp="60", aud=("b",), iss="other")
    made = claims(profile)
    assert list(made) == ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]
    assert (made["iss"], made["aud"], made["exp"], made["nbf"]) == ("other", "b", NOW + 60, NOW - 5)
    assert profile.client_id == "TestClient"


def test_the_warning_that_adobe_retired_it_is_for_the_real_server_alone():
    assert "2026-08-31" in sign(settings(ADOBE), "p").retired
    assert token(settings(ADOBE + f'token_url = "{HERE}"'), "p").retired is None
    assert token(settings(ADOBE + 'token_url = "http://[::1]:1/t"'), "p").retired is None
    assert token(**K, **C, token_url="https://x.example/t").retired is None


# Generic


def test_generic_from_flags_alone():
    profile = token(**K, iss="i", token_url=HERE)
    assert claims(profile) == {"iss": "i", "sub": "i", "aud": HERE, "exp": NOW + 300, "iat": NOW, "jti": "new"}
    assert profile.header_with("RS256") == {"typ": "JWT", "alg": "RS256"}
    assert (profile.name, profile.provider, profile.client_id, profile.form) == (None, "generic", None, {})
    assert (profile.alg, profile.unresolved) == (None, ("alg",))
    assert (profile.timeout, profile.min_ttl, profile.max_life) == (30.0, 60.0, 3600)


def test_a_client_assertion_is_by_the_client_about_itself():
    profile = token(**K, client_id="c", token_url=HERE, grant="client-assertion")
    made = claims(profile)
    assert (made["iss"], made["sub"], made["aud"]) == ("c", "c", HERE)
    assert profile.header["typ"] == "client-authentication+jwt"
    profile = token(**K, **C, client_id="c", token_url=HERE, grant="client-assertion", typ="JWT")
    assert (claims(profile)["iss"], profile.client_id, profile.header["typ"]) == ("i", "c", "JWT")


@pytest.mark.parametrize(
    ("call", "flags", "missing"),
    [
        (token, {}, "--key, --iss and --token-url are missing"),
        (sign, {}, "--key, --iss and --aud are missing"),
        (token, {"key": KEY, "iss": "i"}, "--token-url is missing"),
        (token, {"iss": "i", "token_url": HERE}, "--key is missing"),
        (token, {"key": KEY, "token_url": HERE}, "--iss is missing"),
        (token, {"key": KEY, "token_url": HERE, "client_id": "c"}, "--iss is missing"),
        (sign, {"key": KEY, "iss": "i"}, "--aud is missing"),
        (sign, {"provider": "adobe-analytics"}, "--key, --iss and --sub are missing"),
        (token, {"provider": "adobe-analytics", "key": KEY}, "--client-id and --sub are missing"),
    ],
)
def test_what_flags_alone_do_not_say_is_named(call, flags, missing):
    error = refusal(call, **flags)
    assert isinstance(error, UsageError)
    assert error.message == f"no profile is used, and {missing}"
    assert error.hint


def test_what_a_profile_does_not_say_is_named_with_its_key():
    error = refusal(token, settings("[profiles.p]\n"), "p")
    assert isinstance(error, UsageError)
    assert "--key, --iss and --token-url are missing" in error.message
    assert error.hint == "in [profiles.p] that is key, issuer, token_url"
    assert sign(generic(f'token_url = "{HERE}"'), "p").claims.aud == HERE


# Which profile


WITH_DEFAULT = settings(
    'default_profile = "b"\n'
    + CONFIG
    + f'[profiles.a]\nkey = "k"\nissuer = "a"\ntoken_url = "{HERE}"\n[profiles.b]\nkey = "k"\nissuer = "b"\n'
    + f'token_url = "{HERE}"\n'
)


@pytest.mark.parametrize(
    ("argument", "environ", "flags", "name"),
    [
        ("a", {"HSMJWT_PROFILE": "b"}, {}, "a"),
        (None, {"HSMJWT_PROFILE": "a"}, {}, "a"),
        (None, {"HSMJWT_PROFILE": ""}, {}, "b"),
        (None, {}, {}, "b"),
        (None, {}, {"sub": "s", "scope": "x"}, "b"),
        ("a", {}, {"iss": "i"}, "a"),
        ("a", {}, {"token_url": HERE}, "a"),
        (None, {"HSMJWT_PROFILE": "a"}, {"iss": "i", "key": KEY, "token_url": HERE}, None),
        (None, {}, {"iss": "i", "key": KEY, "token_url": HERE}, None),
    ],
)
def test_the_profile_is_argument_then_variable_then_default_and_none_beside_flags_that_say_it_all(
    argument, environ, flags, name
):
    assert token(WITH_DEFAULT, argument, environ, **flags).name == name


@pytest.mark.parametrize("flags", [{"iss": "i"}, {"provider": "generic"}, {"token_url": HERE}])
def test_with_flags_that_mean_no_profile_what_is_missing_is_not_taken_from_one(flags):
    error = refusal(token, WITH_DEFAULT, None, {"HSMJWT_PROFILE": "a"}, **flags)
    assert isinstance(error, UsageError)
    assert "--key" in error.message
    assert "'a', 'b'" in error.hint


@pytest.mark.parametrize(
    ("config", "argument", "environ"),
    [(WITH_DEFAULT, "c", {}), (WITH_DEFAULT, None, {"HSMJWT_PROFILE": "c"}), (None, "adobe", {}), (None, "", {})],
)
def test_an_unknown_profile_is_a_fault_of_the_config(config, argument, environ):
    assert isinstance(refusal(token, config, argument, environ), ConfigError)


def test_an_unknown_provider_is_exit_3_wherever_it_is_named():
    error = refusal(token, **K, provider="adobe", iss="i")
    assert isinstance(error, ConfigError)
    assert error.hint == "did you mean 'adobe-analytics'?"
    error = refusal(token, settings('[profiles.p]\nprovider = "genric"'), "p")
    assert isinstance(error, ConfigError)
    assert error.message.startswith("config file '/etc/hsmjwt/c.toml', line 2: ")
    assert error.hint == "did you mean 'generic'?"


# Flag over profile over environment


def test_a_flag_overrides_the_profile_and_the_environment_never_does():
    config = generic(
        'subject = "s"', 'audience = ["x"]', 'scope = ["one", "two"]', 'kid = "1"', "timeout = 5", "min_ttl = 7"
    )
    environ = {"HSMJWT_KEY": "pkcs11:object=variable", "HSMJWT_MODULE": "/lib/variable.so"}
    profile = sign(config, "p", environ)
    assert (profile.key_uri.object, profile.module, profile.module_by) == ("k", "/lib/m.so", "[keys.k]")
    assert (profile.claims.sub, profile.claims.aud, profile.scope) == ("s", ["x"], "one two")
    assert (profile.header, profile.timeout, profile.min_ttl) == ({"typ": "JWT", "kid": "1"}, 5.0, 7.0)
    profile = sign(
        config,
        "p",
        environ,
        key="pkcs11:object=flag",
        module="/lib/flag.so",
        sub="t",
        aud=("y",),
        scope="three",
        kid="2",
        timeout="9s",
        min_ttl="0",
        provider="generic",
        iss="j",
    )
    assert (profile.key_uri.object, profile.module) == ("flag", "/lib/flag.so")
    assert (profile.claims.iss, profile.claims.sub, profile.claims.aud, profile.scope) == ("j", "t", "y", "three")
    assert (profile.header["kid"], profile.timeout, profile.min_ttl) == ("2", 9.0, 0.0)


def test_every_key_of_a_profile_has_its_effect():
    profile = token(
        generic(
            'provider = "generic"',
            'client_id = "c"',
            'subject = "s"',
            'audience = "a"',
            'scope = "x"',
            'token_url = "https://as.example/t"',
            'grant = "client-assertion"',
            'lifetime = "2m"',
            'nbf = "-10s"',
            'jti = "one"',
            'typ = "x+jwt"',
            'kid = "k1"',
            "claims = { z = 1, a = [true] }",
            'headers = { cty = "x" }',
            'form = { resource = "https://r.example" }',
            'client_secret_source = "env:SECRET"',
            'timeout = "1m"',
            'min_ttl = "2m"',
            'ca_file = "ca.pem"',
            'proxy = "http://u:p@proxy.example:3128"',
        ),
        "p",
    )
    assert list(claims(profile).items()) == [
        ("iss", "i"),
        ("sub", "s"),
        ("aud", "a"),
        ("exp", NOW + 120),
        ("iat", NOW),
        ("nbf", NOW - 10),
        ("jti", "one"),
        ("z", 1),
        ("a", [True]),
    ]
    assert profile.header_with("RS256") == {"typ": "x+jwt", "alg": "RS256", "kid": "k1", "cty": "x"}
    assert list(profile.header_with("RS256")) == ["typ", "alg", "kid", "cty"]
    assert (profile.grant, profile.client_id, profile.token_url) == ("client-assertion", "c", "https://as.example/t")
    assert (profile.scope, profile.form) == ("x", {"resource": "https://r.example"})
    assert (profile.client_secret.noted, profile.ca_file) == ("env:SECRET", "/etc/hsmjwt/ca.pem")
    assert (profile.proxy, profile.timeout, profile.min_ttl) == ("http://u:p@proxy.example:3128", 60.0, 120.0)
    assert profile.jti_mode == "literal"


def test_an_environment_is_the_providers_own():
    assert token(settings(ADOBE + 'environment = "production"'), "p").claims.aud == "api.omniture.com"
    error = refusal(token, settings(ADOBE + 'environment = "test"'), "p")
    assert isinstance(error, ConfigError)
    assert "has no environment 'test'" in error.message
    assert "production" in error.hint
    assert isinstance(refusal(sign, generic('environment = "test"', 'audience = "a"'), "p"), ConfigError)


def test_a_ca_file_flag_is_taken_as_it_stands():
    assert sign(generic('audience = "a"', 'ca_file = "/abs/ca.pem"'), "p").ca_file == "/abs/ca.pem"
    assert sign(generic('audience = "a"', 'ca_file = "/abs/ca.pem"'), "p", ca_file="mine.pem").ca_file == "mine.pem"


def test_an_empty_proxy_means_none_and_one_that_is_not_supported_does_not_keep_from_signing():
    assert sign(generic('audience = "a"', 'proxy = ""'), "p").proxy == ""
    assert sign(generic('audience = "a"', 'proxy = "proxy.example:3128"'), "p").proxy == "proxy.example:3128"
    assert sign(generic('audience = "a"', 'proxy = "socks5://h"'), "p").proxy == "socks5://h"


def test_a_pin_value_is_warned_about():
    profile = sign(key="pkcs11:object=k?pin-value=S3cr3t", **C)
    assert profile.warnings
    assert "S3cr3t" not in repr(profile)
    assert sign(**K, **C).warnings == ()
