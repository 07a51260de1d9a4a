"""A new profile as text: TOML whatever the values are, and its comments tell what the provider's file says."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt import config
from hsmjwt.oauth import provider as providers
from hsmjwt.oauth.profile import SigningFlags, resolve
from hsmjwt.oauth.provider import Environment, Provider
from hsmjwt.profile_text import NewProfile, key_name, missing, quoted

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
COMMENTED = re.compile(r"^# (?=\w+ = )", re.MULTILINE)
STRICT = Provider(
    name="strict",
    title="A strict server",
    grants=("client-assertion", "jwt-bearer"),
    issuer="named",
    subject="issuer",
    audience="fixed",
    lifetime=30,
    max_lifetime=60,
    jti="auto",
    typ={"jwt-bearer": "JWT", "client-assertion": "client-authentication+jwt"},
    environments={
        "production": Environment(token_url="https://as.example/t", audience="https://as.example"),
        "test": Environment(token_url="https://test.example/t", audience="https://test.example"),
    },
)
NAMES = providers.names()


def new(provider="generic", name="p", table=None, **values):
    known = STRICT if provider == "strict" else providers.load(provider)
    return NewProfile(name=name, provider=known, values=values, key=table)


@given(TEXTS)
def test_any_text_is_quoted_so_that_toml_reads_it_back(text):
    assert tomllib.loads(f"x = {quoted(text)}") == {"x": text}
    assert quoted(text).isprintable()


@given(TEXTS)
def test_any_name_is_a_key_that_toml_reads_back(name):
    assert tomllib.loads(f"[profiles.{key_name(name)}]\nx = 1\n") == {"profiles": {name: {"x": 1}}}


def test_a_plain_name_stays_bare():
    assert [key_name(name) for name in ("adobe-2_x", "a.b", "", "ö", 'a"]\nx = "')] == [
        "adobe-2_x",
        '"a.b"',
        '""',
        '"ö"',
        '"a\\"]\\nx = \\""',
    ]


def test_what_does_not_print_is_seen_in_the_file():
    assert quoted("a\x00b\x7f\u202e\ufeff\n\U000e0001") == r'"a\u0000b\u007f\u202e\ufeff\n\U000e0001"'


@given(st.dictionaries(st.sampled_from(["subject", "client_id", "kid", "audience"]), TEXTS), TEXTS)
def test_the_whole_text_is_toml_that_says_what_was_given(values, name):
    key = {"uri": "pkcs11:object=k", "pin_source": name}
    document = tomllib.loads(new("adobe-analytics", name, key, **values).text())
    assert document["profiles"] == {name: {"provider": "adobe-analytics", **values}}
    assert document["keys"] == {name: key}


@pytest.mark.parametrize("provider", [*NAMES, "strict"])
def test_each_commented_line_is_a_key_that_a_config_may_have(provider):
    text = COMMENTED.sub("", new(provider, table={"uri": "pkcs11:object=k"}).text()).replace('key = "…"', 'key = "p"')
    settings = config.parse(text.encode(), "c.toml")
    assert settings.keys["p"].alg == "RS256"
    assert settings.profiles["p"].lifetime


@pytest.mark.parametrize("provider", NAMES)
def test_a_commented_default_is_the_value_that_counts_without_it(provider):
    """Resolved once without the line and once with it, whatever is missing filled in."""
    text = new(provider, table={"uri": "pkcs11:object=k"}).text()
    fill = {"client_id": "c", "issuer": "i", "subject": "s", "token_url": "https://as.example/t", "key": "p"}
    for key, value in fill.items():
        text = re.sub(rf'^# {key} = ".*"  # needed.*$', f'{key} = "{value}"', text, flags=re.MULTILINE)
    defaults = re.findall(r"^# \w+ = .*  # the default.*$", text, re.MULTILINE)
    assert len(defaults) >= 3

    def made(config_text):
        settings = config.parse(config_text.encode(), "c.toml")
        return resolve(settings, SigningFlags(), "p", {}, exchanging=True).cache_key_material()

    for line in defaults:
        assert made(text.replace(line, line[2:])) == made(text)


@pytest.mark.parametrize(
    ("provider", "values", "expected"),
    [
        ("generic", {}, ["issuer", "token_url", "key"]),
        ("generic", {"issuer": "i", "audience": "a", "key": "k"}, []),
        ("generic", {"grant": "client-assertion"}, ["client_id", "token_url", "key"]),
        ("generic", {"grant": "client-assertion", "issuer": "i"}, ["token_url", "key"]),
        ("adobe-analytics", {}, ["client_id", "subject", "key"]),
        ("adobe-analytics", {"client_id": "c", "subject": "s"}, ["key"]),
        ("strict", {}, ["client_id", "key"]),
        ("strict", {"grant": "jwt-bearer"}, ["issuer", "key"]),
    ],
)
def test_what_only_the_user_knows_is_missing_until_it_is_given(provider, values, expected):
    profile = new(provider, **values)
    assert list(missing(profile.provider, values)) == expected
    needed = re.findall(r"^# (\w+) = .*  # needed: ", profile.text(), re.MULTILINE)
    assert sorted(needed) == sorted(expected)


def test_a_chosen_environment_gives_the_defaults_and_a_rule_is_no_line_to_change():
    text = new("strict", environment="test").text()
    assert 'environment = "test"' in text
    assert '# token_url = "https://test.example/t"  # the default' in text
    assert "https://as.example" not in text
    assert "audience" not in text
    assert '# lifetime = "30s"  # the default; 60s at most' in text
    assert '# grant = "client-assertion"  # the default; or jwt-bearer' in text
    assert '# typ = "client-authentication+jwt"  # the default' in text
    assert "# environment" in new("strict").text()


def test_a_retired_provider_says_so_in_the_file():
    assert "# Adobe retired this grant on 2021-08-18" in new("adobe-analytics").text()
