"""A static issuer: which URLs can be one, and what its discovery document says."""

from __future__ import annotations

import pytest

from hsmjwt.errors import UsageError
from hsmjwt.oauth.issuer import check_issuer, configuration, jwks_uri


@pytest.mark.parametrize(
    ("issuer", "keys"),
    [
        ("https://id.example.test", "https://id.example.test/jwks.json"),
        ("https://id.example.test/", "https://id.example.test/jwks.json"),
        ("https://id.example.test/tenant", "https://id.example.test/tenant/jwks.json"),
        ("https://id.example.test/tenant/", "https://id.example.test/tenant/jwks.json"),
        ("https://id.example.test:8443/a%2Fb", "https://id.example.test:8443/a%2Fb/jwks.json"),
        ("https://ID.example.test/T", "https://ID.example.test/T/jwks.json"),
        ("https://[2001:db8::1]/x", "https://[2001:db8::1]/x/jwks.json"),
        ("https://id.example.test/a.b/..c;v=1", "https://id.example.test/a.b/..c;v=1/jwks.json"),
    ],
)
def test_an_issuer_stays_as_it_is_given_and_its_keys_lie_below_it(issuer, keys):
    document = configuration(check_issuer(issuer), ["RS256"])
    assert document["issuer"] == issuer
    assert document["jwks_uri"] == jwks_uri(issuer) == keys
    assert "//" not in keys.removeprefix("https://")


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        ("", "is empty"),
        ("id.example.test", "does not begin with https"),
        ("http://id.example.test", "does not begin with https"),
        ("http://localhost", "does not begin with https"),
        ("http://user:secret@localhost", "does not begin with https"),
        ("HTTPS://id.example.test", "lower case"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user:secret@id.example.test", "user name"),
        ("https://id.example.test/?a=b", "query"),
        ("https://id.example.test?", "query"),
        ("https://id.example.test/#x", "fragment"),
        ("https://id.example.test/#", "fragment"),
        ("https://id.example.test:0", "port"),
        ("https://id.example.test//", "empty or a dotted part"),
        ("https://id.example.test/a//b", "empty or a dotted part"),
        ("https://id.example.test/a/../b", "empty or a dotted part"),
        ("https://id.example.test/a/%2e%2E/b", "empty or a dotted part"),
        ("https://id.example.test/.%2E", "empty or a dotted part"),
        ("https://id.example.test/{tenantid}/v2.0", "holds the character '{'"),
        ("https://id.example.test/<tenant>", "holds the character '<'"),
        ("https://id.example.test/[x]", r"holds the character '\['"),
        ("https://id.example.test/t/.well-known/openid-configuration", "address of a discovery document"),
        ("https://id.example.test/.well-known/openid-configuration", "address of a discovery document"),
        ("https://id.example.test/a%2", "two hexadecimal digits"),
        ("https://id.example.test/a b", "blank"),
        ("https://id.example.test\\x", "backslash"),
        ("https://bücher.example", "ü"),
    ],
)
def test_what_two_programs_could_read_differently_is_no_issuer(issuer, words):
    with pytest.raises(UsageError, match=words) as caught:
        check_issuer(issuer)
    assert "secret" not in str(caught.value)


def test_the_document_has_every_member_that_discovery_requires():
    """OpenID Connect Discovery 1.0, section 3; no token endpoint, since the implicit flow has none."""
    document = configuration("https://id.example.test/", ["RS256", "ES256", "RS256"])
    assert document["response_types_supported"] == ["id_token"]
    assert document["subject_types_supported"] == ["public"]
    assert document["id_token_signing_alg_values_supported"] == ["ES256", "RS256"]
    assert document["authorization_endpoint"].startswith("https://id.example.test/")
    assert "token_endpoint" not in document
    assert {"iss", "sub", "aud"} <= set(document["claims_supported"])
