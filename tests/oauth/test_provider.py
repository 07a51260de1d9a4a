"""The built-in provider files."""

from __future__ import annotations

import pytest

from hsmjwt.errors import ConfigError
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.provider import Environment, Provider, load, names


@pytest.mark.parametrize("name", names())
def test_each_file_loads_and_holds_usable_values(name):
    provider = load(name)
    assert provider.name == name
    assert 0 < provider.lifetime <= (provider.max_lifetime or 3600)
    assert set(provider.algs) <= set(ALGORITHMS)
    for environment in provider.environments.values():
        assert parse_endpoint(environment.token_url).scheme == "https"
    assert all(provider.typ.values())


def test_adobe_is_the_seeds_flow():
    adobe = load("adobe-analytics")
    live = adobe.environments["production"]
    assert (live.token_url, live.audience) == ("https://api.omniture.com/token", "api.omniture.com")
    assert (adobe.grants, adobe.algs, adobe.lifetime, adobe.jti) == (("jwt-bearer",), ("RS256",), 1000, "none")
    assert adobe.audience == "default"  # the golden vector's is another one
    assert "2021-08-18" in adobe.retired
    assert "2026-08-31" in adobe.retired
    assert adobe.hosts() == {"api.omniture.com"}


def test_generic_takes_both_grants_and_knows_no_server():
    generic = load("generic")
    assert generic.grants == ("jwt-bearer", "client-assertion")
    assert generic.typ["client-assertion"] == "client-authentication+jwt"
    assert (generic.lifetime, generic.jti, generic.audience) == (300, "auto", "token-url")
    assert (generic.retired, generic.hosts()) == (None, set())


@pytest.mark.parametrize(
    "name", ["../generic", "generic.toml", "/etc/passwd", "", ".", "Generic", "gen eric", "x" * 5000, "a\0b", "\udcff"]
)
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError, match="unknown provider"):
        load(name)


def test_an_unknown_provider_comes_with_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown provider 'adobe-analytic'") as caught:
        load("adobe-analytic")
    assert caught.value.hint == "did you mean 'adobe-analytics'?"
    with pytest.raises(ConfigError) as caught:
        load("zzz")
    assert caught.value.hint == "the providers are adobe-analytics, generic"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"typ": {"client-assertion": "JWT"}}, "each of the grants"),
        ({"audience": "fixed"}, "needs an environment"),
        (
            {"audience": "default", "environments": {"production": Environment(token_url="https://x.example/t")}},
            "has no audience",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_no_provider(change, why):
    good = {
        "name": "p",
        "title": "P",
        "grants": ("jwt-bearer",),
        "issuer": "named",
        "subject": "issuer",
        "audience": "token-url",
        "lifetime": 60,
        "jti": "auto",
        "typ": {"jwt-bearer": "JWT"},
    }
    Provider(**good)
    with pytest.raises(ValueError, match=why):
        Provider(**{**good, **change})
