"""Who named each setting: the list that `profile show` prints is what `resolve` decided, for every key and flag."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.config import ProfileTable, Settings, parse
from hsmjwt.oauth.origins import settings_of
from hsmjwt.oauth.profile import SigningFlags, resolve

CONFIG = """
default_profile = "d"
[keys.k]
uri = "pkcs11:token=t;object=k?pin-source=/run/pin"
module = "/lib/m.so"
alg = "RS256"
[keys."odd key"]
uri = "pkcs11:object=o"
pin_source = "command:pass show --with 31415926"
[profiles.p]
provider = "adobe-analytics"
key = "k"
client_id = "cid"
subject = "s@AdobeOrg"
[profiles.d]
key = "odd key"
issuer = "i"
token_url = "https://as.example/token"
"""


def settings(text=CONFIG):
    return parse(text.encode(), "/etc/hsmjwt/c.toml")


def rows(argument=None, environ=None, config=None, **flags):
    profile = resolve(config or settings(), SigningFlags(**flags), argument, environ or {}, exchanging=None)
    return {row.name: (row.value, row.origin, row.by) for row in settings_of(profile, environ or {})}


def test_each_level_is_told_by_its_own_name():
    told = rows("p", {"HSMJWT_PIN_SOURCE": "env:X", "HSMJWT_MODULE": "/lib/other.so"}, aud=("other",), kid="k1")
    assert told["profile"] == ("p", "flag", "PROFILE")
    assert told["audience"] == ("other", "flag", "--aud")
    assert told["kid"] == ("k1", "flag", "--kid")
    assert told["provider"] == ("adobe-analytics", "profile", "[profiles.p] provider")
    assert told["client_id"] == ("cid", "profile", "[profiles.p] client_id")
    assert told["key"] == ("k", "profile", "[profiles.p] key")
    assert told["uri"] == ("pkcs11:token=t;object=k?pin-source=/run/pin", "key table", "[keys.k] uri")
    assert told["module"] == ("/lib/m.so", "key table", "[keys.k] module")
    assert told["pin_source"] == ("file:/run/pin", "key table", "[keys.k] uri")
    assert told["alg"] == ("RS256", "key table", "[keys.k] alg")
    assert told["token_url"] == ("https://api.omniture.com/token", "provider", "provider adobe-analytics")
    assert told["environment"] == ("production", "provider", "provider adobe-analytics")
    assert told["lifetime"] == ("1000s", "provider", "provider adobe-analytics")
    assert told["jti"] == ("none", "provider", "provider adobe-analytics")
    assert told["timeout"] == ("30s", "default", "default")
    assert told["max_lifetime"] == ("3600s", "default", "default")
    assert told["scope"] == (None, "default", "default")


def test_what_comes_of_another_value_is_told_by_who_named_that():
    told = rows("p")
    assert told["issuer"] == ("cid", "profile", "[profiles.p] client_id")
    told = rows(iss="x", token_url="https://as.example/t", key="pkcs11:object=f?pin-value=31415926")
    assert told["subject"] == ("x", "flag", "--iss")
    assert told["audience"] == ("https://as.example/t", "flag", "--token-url")
    assert told["profile"] == (None, "default", "default")
    assert told["provider"] == ("generic", "default", "default")
    assert told["uri"] == ("pkcs11:object=f?pin-value=***", "flag", "--key")
    assert told["pin_source"] == ("pin-value", "flag", "--key")
    assert told["typ"] == ("JWT", "provider", "provider generic")


def test_the_environment_is_told_by_the_variable():
    environ = {"HSMJWT_KEY": "pkcs11:object=e", "HSMJWT_MODULE": "/lib/e.so", "HSMJWT_PIN": "31415926"}
    told = rows(None, environ, config=Settings(), iss="x", aud=("a",))
    assert told["uri"] == ("pkcs11:object=e", "environment", "HSMJWT_KEY")
    assert told["module"] == ("/lib/e.so", "environment", "HSMJWT_MODULE")
    assert told["pin_source"] == ("env:HSMJWT_PIN", "environment", "HSMJWT_PIN")
    told = rows(None, {"HSMJWT_PROFILE": "p", "HSMJWT_PIN_SOURCE": "none"})
    assert told["profile"] == ("p", "environment", "HSMJWT_PROFILE")
    assert told["pin_source"][2] == "[keys.k] uri"
    assert rows(None, {"HSMJWT_PIN_SOURCE": "none"}, config=Settings(), iss="x", aud=("a",), key="pkcs11:")[
        "pin_source"
    ] == ("none", "environment", "HSMJWT_PIN_SOURCE")


def test_the_default_profile_and_an_odd_key_table_are_named_as_the_config_names_them():
    told = rows()
    assert told["profile"] == ("d", "default", "default_profile")
    assert told["uri"] == ("pkcs11:object=o", "key table", "[keys.'odd key'] uri")
    assert told["pin_source"] == ("command", "key table", "[keys.'odd key'] pin_source")
    assert told["audience"] == ("https://as.example/token", "profile", "[profiles.d] token_url")


def test_a_key_table_that_a_flag_names_is_told_so_and_the_same_one_is_the_profiles():
    told = rows("p", key="keys.odd key")
    assert told["key"] == ("odd key", "flag", "--key")
    assert told["uri"][2] == "[keys.'odd key'] uri"
    assert rows("p", key="pkcs11:object=f")["key"] == ("k", "profile", "[profiles.p] key")


# A value for each key of a profile's table, and how the list shows it.
KEYS = {
    "provider": ("generic", "generic"),
    "client_id": ("c", "c"),
    "subject": ("s", "s"),
    "issuer": ("i", "i"),
    "audience": (["a", "b"], ["a", "b"]),
    "scope": (["r", "w"], "r w"),
    "token_url": ("https://as.example/x", "https://as.example/x"),
    "grant": ("client-assertion", "client-assertion"),
    "lifetime": ("2m", "120s"),
    "nbf": ("-1.5m", "-90s"),
    "jti": ("j", "j"),
    "typ": ("T", "T"),
    "kid": ("k", "k"),
    "client_secret_source": ("env:S", "env:S"),
    "timeout": ("1.5s", "1.5s"),
    "min_ttl": ("0", "0s"),
    "ca_file": ("ca.pem", "/etc/hsmjwt/ca.pem"),
    "proxy": ("http://user:s3cret@proxy.example:3128", "http://***@proxy.example:3128"),
}
TABLES = {"claims": {"x y": {"z": [1, None]}}, "headers": {"x": "y"}, "form": {"resource": "r", "password": "s3cret"}}


def test_every_key_of_a_profile_is_told_by_the_profile():
    assert {*KEYS, *TABLES, "name", "key", "environment"} == set(ProfileTable.__struct_fields__)
    values = {key: value for key, (value, _) in KEYS.items()}
    table = ProfileTable(name="p", key="k", **values, **TABLES)
    whole = settings()
    config = Settings(path=whole.path, keys=whole.keys, profiles={"p": table}, source=whole.source)
    told = rows("p", config=config)
    for key, (_, shown) in KEYS.items():
        assert told[key] == (shown, "profile", f"[profiles.p] {key}")
    assert told["claims.x y"] == ({"z": [1, None]}, "profile", "[profiles.p.claims] 'x y'")
    assert told["headers.x"] == ("y", "profile", "[profiles.p.headers] x")
    assert told["form.resource"] == ("r", "profile", "[profiles.p.form] resource")
    assert told["form.password"] == ("***", "profile", "[profiles.p.form] password")
    assert "s3cret" not in json.dumps(told)


# A value for each flag, the setting that it is, and how the list shows it.
FLAGS = {
    "provider": ("generic", "provider", "generic"),
    "key": ("pkcs11:object=f", "uri", "pkcs11:object=f"),
    "module": ("/lib/f.so", "module", "/lib/f.so"),
    "pin_source": ("fd:3", "pin_source", "fd:3"),
    "alg": ("RS256", "alg", "RS256"),
    "iss": ("i", "issuer", "i"),
    "sub": ("s", "subject", "s"),
    "aud": (("a",), "audience", "a"),
    "scope": ("r", "scope", "r"),
    "exp": ("@1795000000", "lifetime", "@1795000000"),
    "nbf": ("+5", "nbf", "5s"),
    "now": ("1970-01-01T00:00:09Z", "now", "@9"),
    "jti": ("none", "jti", "none"),
    "typ": ("T", "typ", "T"),
    "kid": ("k", "kid", "k"),
    "claim": (("x=1",), "claims.x", "1"),
    "claim_json": (("y=1",), "claims.y", 1),
    "header": (("h=1",), "headers.h", "1"),
    "grant": ("client-assertion", "grant", "client-assertion"),
    "token_url": ("https://as.example/f", "token_url", "https://as.example/f"),
    "client_id": ("c", "client_id", "c"),
    "min_ttl": ("5", "min_ttl", "5s"),
    "timeout": ("5m", "timeout", "300s"),
    "ca_file": ("ca.pem", "ca_file", "ca.pem"),
}


def test_every_flag_is_told_by_the_flag():
    own = {"claims_file", "claims_file_name", "order"}
    assert set(FLAGS) | own == set(SigningFlags.__struct_fields__)
    given = {name: value for name, (value, _, _) in FLAGS.items()}
    told = rows(**given, claims_file=b'{"f": [true], "iat": 7}', claims_file_name="c.json")
    for name, (_, setting, shown) in FLAGS.items():
        assert told[setting] == (shown, "flag", "--" + name.replace("_", "-"))
    assert told["claims.f"] == ([True], "flag", "claims file 'c.json'")
    assert told["claims.iat"] == ("@7", "flag", "claims file 'c.json'")


def test_the_order_of_the_list_does_not_depend_on_who_named_what():
    assert list(rows("p")) == list(rows("d")) == list(rows(iss="x", aud=("a",), key="pkcs11:", kid="k", timeout="1"))


@given(
    st.fixed_dictionaries(
        {},  # grant, provider and token_url may break a rule of the profile's provider
        optional={name: st.just(FLAGS[name][0]) for name in {*FLAGS} - {"grant", "provider", "token_url"}},
    ),
    st.sampled_from(["p", "d"]),
)
def test_a_value_is_a_flags_exactly_where_the_flag_was_given(given_flags, argument):
    """Over all subsets: no other origin may claim a flag, and no flag what it did not name."""
    told = rows(argument, **given_flags)
    by_flag = {by for _, origin, by in told.values() if origin == "flag"} - {"PROFILE"}
    assert by_flag == {"--" + name.replace("_", "-") for name in given_flags}


def test_the_proxy_is_the_one_that_a_request_would_take():
    environ = {"https_proxy": "http://u:s3cret@proxy.example", "NO_PROXY": "api.omniture.com"}
    assert rows("d", environ)["proxy"] == ("http://***@proxy.example:80", "environment", "https_proxy")
    assert rows("p", environ)["proxy"] == (None, "default", "default")
    assert rows("d", {"ALL_PROXY": "socks5://u:s3cret@proxy.example"})["proxy"] == (
        "(the proxy in ALL_PROXY is a SOCKS proxy, which is not supported)",
        "environment",
        "environment",
    )
    none = settings(CONFIG + 'proxy = ""\n')
    assert rows("d", environ, config=none)["proxy"] == ("", "profile", "[profiles.d] proxy")
    signing = settings('[profiles.s]\nissuer = "i"\naudience = "a"\n')
    assert rows("s", {**environ, "HSMJWT_KEY": "pkcs11:"}, config=signing)["proxy"] == (None, "default", "default")


def test_a_profile_that_only_signs_is_resolved_without_a_token_url():
    config = settings('[profiles.s]\nissuer = "i"\naudience = "a"\n')
    told = rows("s", {"HSMJWT_KEY": "pkcs11:object=k"}, config=config)
    assert told["token_url"] == (None, "default", "default")
    assert told["audience"] == ("a", "profile", "[profiles.s] audience")
