"""The name that was meant."""

from __future__ import annotations

import pytest

from hsmjwt.nearest import did_you_mean, nearest

KNOWN = ["client_id", "client_secret_source", "subject", "issuer", "audience", "token_url", "typ", "kid"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("clientid", "client_id"),
        ("client-id", "client_id"),
        ("CLIENT_ID", "client_id"),
        ("cleint_id", "client_id"),
        ("sbuject", "subject"),
        ("tokenurl", "token_url"),
        ("type", "typ"),
        ("kdi", "kid"),
        ("aud", "audience"),
        ("iss", "issuer"),
        ("client_secret", "client_secret_source"),
        ("banana", None),
        ("", None),
        ("x", None),
        ("x" * 10_000, None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(name, meant):
    assert nearest(name, KNOWN) == meant


def test_without_a_near_name_all_are_listed_and_control_characters_are_escaped():
    assert did_you_mean("zzz", ["b", "a"], noun="profiles") == "the profiles are a, b"
    assert did_you_mean("zzz", ["\x1b[31m"], noun="profiles") == "the profiles are \\x1b[31m"
    assert did_you_mean("zzz", [], noun="profiles") == "there are no profiles at all"
    assert did_you_mean("qqq", [f"p{n:03}" for n in range(1000)], noun="profiles").endswith("p019 …")
