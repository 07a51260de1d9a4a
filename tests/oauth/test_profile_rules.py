"""What a profile may not be: against a rule, sent to a stranger, in the future; and what its cache key is made of."""

from __future__ import annotations

import json
import re

import pytest

from hsmjwt.config import Settings, parse
from hsmjwt.errors import ConfigError, HsmjwtError, PolicyError, UsageError
from hsmjwt.guard.policy import check_claims
from hsmjwt.jose.claims import When, build
from hsmjwt.oauth import rules
from hsmjwt.oauth.named import Named, flag
from hsmjwt.oauth.profile import SigningFlags, resolve
from hsmjwt.oauth.provider import Environment, Provider

NOW = 1_800_000_000
KEY = "pkcs11:token=t;object=k"
K = {"key": KEY}
C = {"iss": "i", "sub": "s", "aud": ("a",)}
HERE = "http://127.0.0.1:8080/token"
CONFIG = """
[keys.k]
uri = "pkcs11:token=t;object=k"
alg = "RS256"
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


def sign(config=None, argument=None, **flags):
    return resolve(config or Settings(), SigningFlags(**flags), argument, {}, exchanging=False)


def token(config=None, argument=None, **flags):
    return resolve(config or Settings(), SigningFlags(**flags), argument, {}, exchanging=True)


def claims(profile, now=NOW):
    return build(profile.claims, now=profile.claims_now(now), new_jti=lambda: "new")


def refusal(call, *arguments, **flags):
    with pytest.raises(HsmjwtError) as caught:
        call(*arguments, **flags)
    return caught.value


@pytest.mark.parametrize(
    ("call", "config", "flags", "rule"),
    [
        (token, ADOBE, {"grant": "client-assertion"}, "adobe-analytics.grant"),
        (token, ADOBE + 'grant = "client-assertion"\n', {}, "adobe-analytics.grant"),
        (sign, ADOBE, {"alg": "RS512"}, "keys.k.alg"),
        (sign, ADOBE.replace('alg = "RS256"', ""), {"alg": "PS256"}, "adobe-analytics.alg"),
        (sign, ADOBE.replace('alg = "RS256"', 'alg = "ES256"'), {}, "adobe-analytics.alg"),
        (
            sign,
            ADOBE.replace("adobe-analytics", "generic") + 'audience = "a"\nissuer = "i"',
            {"alg": "ES256"},
            "keys.k.alg",
        ),
        (token, ADOBE, {"token_url": "https://evil.example/t"}, "token-url-of-a-stranger"),
    ],
)
def test_an_override_of_what_is_fixed_names_the_rule(call, config, flags, rule):
    error = refusal(call, settings(config), "p", **flags)
    assert isinstance(error, PolicyError)
    assert error.message.startswith(f"refused by the rule {rule}: ")


def test_naming_what_is_fixed_anyway_is_no_override():
    assert token(settings(ADOBE), "p", grant="jwt-bearer", alg="RS256").alg == "RS256"


def test_a_key_tables_algorithm_that_this_version_lacks_is_exit_3():
    text = '[keys.k]\nuri = "pkcs11:"\nalg = "{}"\n[profiles.p]\nkey = "k"\nissuer = "i"\naudience = "a"\n'
    for alg, why in (("ML-DSA-65", "not supported"), ("RS265", "no signature algorithm")):
        error = refusal(sign, settings(text.format(alg)), "p")
        assert isinstance(error, ConfigError)
        assert error.message.startswith("config file '/etc/hsmjwt/c.toml', line 3: ")
        assert why in error.message


def test_a_fixed_audience_is_a_rule_and_the_same_one_is_no_override():
    environment = Environment(token_url="https://as.example/t", audience="https://as.example")
    provider = Provider(
        name="strict",
        title="Strict",
        grants=("jwt-bearer",),
        issuer="named",
        subject="issuer",
        audience="fixed",
        lifetime=60,
        jti="auto",
        typ={"jwt-bearer": "JWT"},
        environments={"production": environment},
    )
    asked = rules.Asked(SigningFlags(), None, Settings().source, provider)
    assert rules.chosen_audience(asked, None, environment, None).value == "https://as.example"
    same = Named("https://as.example", flag("--aud"))
    assert rules.chosen_audience(asked, same, environment, None) == same
    with pytest.raises(PolicyError, match=r"^refused by the rule strict\.audience: --aud"):
        rules.chosen_audience(asked, Named("https://other.example", flag("--aud")), environment, None)


STRANGER = "https://evil.example/t"


@pytest.mark.parametrize(
    ("lines", "flags", "allowed"),
    [
        # the audience is the profile's
        (['audience = "a"'], {"token_url": STRANGER}, False),
        (['claims = { aud = "a" }'], {"token_url": STRANGER}, False),
        (['audience = "a"'], {"token_url": HERE}, True),
        (['audience = "a"'], {"token_url": "http://localhost/t"}, True),
        (['audience = "a"'], {"token_url": "http://[::1]/t"}, True),
        (
            ['audience = "a"', 'token_url = "https://as.example/t"'],
            {"token_url": "https://AS.example:8443/other"},
            True,
        ),
        (['audience = "a"', 'token_url = "https://as.example/t"'], {"token_url": "https://as.example./t"}, True),
        (['audience = "a"', 'token_url = "https://as.example/t"'], {"token_url": "https://as.example.evil/t"}, False),
        (['audience = "a"', 'token_url = "https://as.example/t"'], {"token_url": "https://x.as.example/t"}, False),
        # the audience is the flag's, or follows the token URL
        (['audience = "a"'], {"token_url": STRANGER, "aud": ("b",)}, True),
        (['audience = "a"'], {"token_url": STRANGER, "claim": ("aud=b",)}, True),
        (['token_url = "https://as.example/t"'], {"token_url": STRANGER}, True),
        # a client secret goes along
        (['client_secret_source = "env:S"'], {"token_url": STRANGER}, False),
        (['client_secret_source = "env:S"'], {"token_url": STRANGER, "aud": ("b",)}, False),
        (['client_secret_source = "env:S"'], {"token_url": HERE}, True),
        # a form field is a secret by its name
        (['form = { password = "hunter2" }'], {"token_url": STRANGER, "aud": ("b",)}, False),
        (['form = { x = "1", refresh_token = "hunter2" }'], {"token_url": STRANGER}, False),
        (['form = { api_key = "hunter2" }'], {"token_url": HERE}, True),
        (['form = { password = "" }'], {"token_url": STRANGER}, True),
        (['form = { requested_token_type = "x", resource = "y" }'], {"token_url": STRANGER}, True),
        (
            ['form = { password = "hunter2" }', 'token_url = "https://as.example/t"'],
            {"token_url": "https://as.example/u"},
            True,
        ),
        # the audience is the provider's
        (['provider = "adobe-analytics"', 'subject = "s"'], {"token_url": STRANGER}, False),
        (['provider = "adobe-analytics"', 'subject = "s"'], {"token_url": "https://api.omniture.com/x"}, True),
        (['provider = "adobe-analytics"', 'subject = "s"'], {"token_url": HERE}, True),
        (['provider = "adobe-analytics"', 'subject = "s"'], {"token_url": STRANGER, "aud": ("b",)}, True),
    ],
)
def test_a_token_url_flag_hands_no_usable_assertion_to_a_stranger(lines, flags, allowed):
    if allowed:
        assert token(generic(*lines), "p", **flags).token_url == flags["token_url"]
    else:
        error = refusal(token, generic(*lines), "p", **flags)
        assert isinstance(error, PolicyError)
        assert "token-url-of-a-stranger" in error.message
        assert "hunter2" not in f"{error.message} {error.hint}"


def test_a_providers_audience_without_any_profile_is_kept_from_strangers_too():
    error = refusal(token, **K, provider="adobe-analytics", client_id="c", sub="s", token_url=STRANGER)
    assert isinstance(error, PolicyError)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.example.test/t",
        "http://localhost.example.test/t",
        "http://127.0.0.1@example.test/t",
        "http://localhost:80@example.test/t",
        "http://example.test#@127.0.0.1/t",
        "http://example.test\\@127.0.0.1/t",
        "http://0.0.0.0/t",
        "ftp://127.0.0.1/t",
        "https://",
    ],
)
def test_a_token_url_that_only_looks_safe_is_exit_2_as_a_flag_and_3_in_the_config(url):
    assert isinstance(refusal(token, **K, **C, token_url=url), UsageError)
    error = refusal(token, generic(f"token_url = {json.dumps(url)}"), "p")
    assert isinstance(error, ConfigError)
    assert "line" in error.message


# Now


def test_now_replaces_the_clock_for_the_claims_and_exp_counts_from_it():
    profile = sign(**K, **C, now="2014-03-20T15:05:36Z")
    assert profile.claims_now(NOW) == 1_395_327_936
    assert claims(profile)["exp"] == 1_395_327_936 + 300


def test_a_now_that_is_a_duration_goes_with_the_clock():
    profile = sign(**K, **C, now="-5m")
    assert profile.now == When(-300, absolute=False)
    assert [profile.claims_now(NOW + turn + 0.9) for turn in (0, 1)] == [NOW - 300, NOW - 299]


@pytest.mark.parametrize(
    ("flags", "good"),
    [
        ({"exp": "1h"}, True),
        ({"now": "@1395327936", "exp": "10m"}, True),
        ({"exp": "0"}, False),
        ({"exp": "-5m"}, False),
        ({"exp": "3650d"}, False),
        ({"now": "2m"}, False),
        ({"nbf": "2m"}, False),
        ({"claims_file": json.dumps({"iat": NOW + 50, "exp": NOW + 40}).encode()}, False),
        ({"claim_json": (f"exp={NOW + 86400}",)}, False),
        ({"claim_json": (f"iat={NOW + 3600}",)}, False),
    ],
)
def test_times_that_no_policy_allows_come_to_the_policys_notice(flags, good):
    profile = sign(**K, **C, **flags)

    def judge():
        check_claims(claims(profile), clock=NOW, claims_now=profile.claims_now(NOW), max_life=profile.max_life)

    if good:
        judge()
    else:
        with pytest.raises(PolicyError):
            judge()


# The cache key


BASE = {**K, **C, "token_url": HERE, "client_id": "c"}


@pytest.mark.parametrize(
    "change",
    [
        {"key": "pkcs11:token=t;object=other"},
        {"module": "/lib/other.so"},
        {"alg": "RS256"},
        {"iss": "j"},
        {"sub": "t"},
        {"aud": ("b",)},
        {"aud": ("a", "b")},
        {"scope": "x"},
        {"exp": "60"},
        {"exp": "@1800000060"},
        {"nbf": "0"},
        {"now": "@1395327936"},
        {"now": "-1s"},
        {"jti": "none"},
        {"jti": "auto2"},
        {"typ": "x"},
        {"kid": "1"},
        {"claim": ("x=1",)},
        {"claim_json": ("x=1",)},
        {"claims_file": b'{"x": {"y": 1}}'},
        {"claims_file": b'{"x": {"y": 2}}'},
        {"header": ("x=1",)},
        {"grant": "client-assertion"},
        {"token_url": "http://127.0.0.1:8081/token"},
        {"client_id": "d"},
    ],
    ids=str,
)
def test_whatever_shapes_the_token_changes_the_cache_key(change):
    assert token(**BASE).cache_key_material() != token(**{**BASE, **change}).cache_key_material()


def test_a_literal_identifier_that_reads_like_a_computed_one_has_another_cache_key():
    literal = token(**BASE, claim=("jti=auto",))
    assert literal.cache_key_material() != token(**BASE, jti="auto").cache_key_material()


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": "5s"},
        {"min_ttl": "5s"},
        {"ca_file": "/x"},
        {"pin_source": "env:X"},
        {"key": KEY + "?pin-source=/x"},
        {"key": KEY + "?pin-value=S3cr3t"},
    ],
    ids=str,
)
def test_secrets_and_time_limits_are_no_part_of_the_cache_key(change):
    assert token(**BASE).cache_key_material() == token(**{**BASE, **change}).cache_key_material()


def test_form_fields_are_part_of_the_cache_key_and_the_client_secret_is_not():
    plain = token(generic(f'token_url = "{HERE}"'), "p")
    form = token(generic(f'token_url = "{HERE}"', 'form = { x = "1" }'), "p")
    secret = token(generic(f'token_url = "{HERE}"', 'client_secret_source = "command:print S3cr3t"'), "p")
    assert plain.cache_key_material() != form.cache_key_material()
    assert plain.cache_key_material() == secret.cache_key_material()


def test_the_cache_key_is_made_of_any_module_path_and_deep_claims():
    deep = "x=" + "[" * 30 + "]" * 30
    profile = token(**BASE, module="/lib/\udcff.so", claim_json=(deep,))
    assert re.fullmatch(r"[ -~]+", profile.cache_key_material())


TABLES = """
[keys.other]
uri = "pkcs11:object=other"
module = "/lib/other.so"
pin_source = "env:OTHER"
alg = "RS256"
[keys.ec]
uri = "pkcs11:object=ec"
alg = "ES256"
"""


def test_a_key_flag_names_a_key_table_for_what_signs_and_what_exchanges():
    config = settings(ADOBE + TABLES)
    for call in (sign, token):
        profile = call(config, "p", key="keys.other")
        assert (profile.key_uri.object, profile.module, profile.alg) == ("other", "/lib/other.so", "RS256")
        assert profile.pin_source.noted == "env:OTHER"
        assert call(config, **C, token_url=HERE, key="keys.other").key_uri.object == "other"
    error = refusal(sign, config, "p", key="keys.ec")
    assert isinstance(error, PolicyError)
    error = refusal(sign, config, **C, key="keys.ec", alg="RS256")
    assert error.message.startswith("refused by the rule keys.ec.alg: ")
    assert isinstance(refusal(sign, config, **C, key="keys.nobody"), ConfigError)


BAD_SCOPES = ['a"b', "a\\b", "a\tb", "a\nb", "é", "a  b", " a", "a ", "\x7f"]


@pytest.mark.parametrize("scope", BAD_SCOPES)
def test_a_scope_that_no_server_could_read_is_refused(scope):
    error = refusal(sign, **K, **C, scope=scope)
    assert isinstance(error, UsageError)
    assert error.message.startswith("--scope: ")
    assert "is no scope" in error.message
    error = refusal(sign, generic('audience = "a"', f"scope = {json.dumps(scope)}"), "p")
    assert isinstance(error, ConfigError)
    assert error.message.startswith("config file '/etc/hsmjwt/c.toml', line 9: scope in [profiles.p]: ")


def test_a_scope_is_any_of_the_characters_of_rfc_6749():
    every = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')
    assert sign(**K, **C, scope=f"{every} https://a.example/.default").scope == f"{every} https://a.example/.default"


def test_a_client_secret_from_nowhere_is_refused():
    error = refusal(sign, generic('audience = "a"', 'client_secret_source = "none"'), "p")
    assert isinstance(error, ConfigError)
    assert error.message.startswith("config file '/etc/hsmjwt/c.toml', line 9: client_secret_source in [profiles.p]: ")
    assert "leave the key out" in error.hint
    kept = sign(generic('audience = "a"', 'client_secret_source = "prompt"'), "p")
    assert kept.client_secret.kind == "prompt"
