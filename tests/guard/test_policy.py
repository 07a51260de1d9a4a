"""The rules that an assertion must pass before the key is used."""

from __future__ import annotations

import pytest

from hsmjwt.errors import ConfigError, PolicyError
from hsmjwt.guard.policy import check_claims, check_clock, is_reserved_typ

CLOCK = 1_800_000_000.5
NOW = int(CLOCK)
PAST = 1_395_327_936


def check(claims, *, claims_now=NOW, max_life=3600):
    check_claims(claims, clock=CLOCK, claims_now=claims_now, max_life=max_life)


@pytest.mark.parametrize(
    ("claims", "claims_now"),
    [
        ({"exp": NOW + 300, "iat": NOW}, NOW),
        ({"exp": NOW + 1, "iat": NOW}, NOW),
        ({"exp": NOW + 3600, "iat": NOW + 60, "nbf": NOW + 60}, NOW),
        ({"exp": float(NOW + 60), "iat": NOW - 5000.25}, NOW),
        ({"exp": PAST + 1000, "iat": PAST}, PAST),  # the golden vector lies in the past
        ({"exp": NOW + 300}, NOW),
    ],
)
def test_claims_within_the_rules_pass(claims, claims_now):
    check(claims, claims_now=claims_now)


@pytest.mark.parametrize(
    ("claims", "claims_now", "rule"),
    [
        ({"exp": NOW + 300, "iat": NOW + 61}, NOW, "iat-in-the-future"),
        ({"exp": NOW + 300, "iat": NOW, "nbf": NOW + 61}, NOW, "nbf-in-the-future"),
        ({"exp": NOW + 3602, "iat": NOW}, NOW, "exp-too-late"),
        ({"exp": NOW + 315_360_000, "iat": NOW}, NOW, "exp-too-late"),
        ({"exp": 10**300, "iat": NOW}, NOW, "exp-too-late"),
        ({"exp": 1e300, "iat": NOW}, NOW, "exp-too-late"),
        ({"exp": NOW, "iat": NOW}, NOW, "exp-not-later-than-now"),
        ({"exp": NOW - 1, "iat": NOW - 10}, NOW, "exp-not-later-than-now"),
        ({"exp": -5, "iat": -10}, NOW, "exp-not-later-than-now"),
        ({"exp": PAST, "iat": PAST}, PAST, "exp-not-later-than-now"),
        ({"exp": NOW + 10, "iat": NOW + 20}, NOW, "exp-not-later-than-iat"),
        ({"exp": NOW + 10, "iat": NOW + 10}, NOW, "exp-not-later-than-iat"),
        ({"iat": NOW}, NOW, "exp-missing"),
        ({"exp": str(NOW + 300)}, NOW, "exp-is-no-number"),
        ({"exp": NOW + 300, "iat": True}, NOW, "iat-is-no-number"),
        ({"exp": NOW + 300, "nbf": [NOW]}, NOW, "nbf-is-no-number"),
    ],
)
def test_a_broken_rule_is_named(claims, claims_now, rule):
    with pytest.raises(PolicyError, match=rf"^refused by the rule {rule}: "):
        check(claims, claims_now=claims_now)


def test_a_shorter_life_is_kept_where_provider_or_key_ask_for_it():
    check({"exp": NOW + 120, "iat": NOW}, max_life=120)
    with pytest.raises(PolicyError, match=r"exp-too-late.* 120 s"):
        check({"exp": NOW + 122, "iat": NOW}, max_life=120)


def test_a_now_in_the_past_does_not_lengthen_the_life():
    with pytest.raises(PolicyError, match="exp-too-late"):
        check({"exp": NOW + 4000, "iat": PAST}, claims_now=PAST)


@pytest.mark.parametrize("clock", [0.0, 1_577_836_799.9, -1.0])
def test_a_clock_that_was_never_set_is_a_fault_of_the_machine(clock):
    with pytest.raises(ConfigError, match="clock") as caught:
        check_clock(clock)
    assert caught.value.hint


def test_a_clock_of_2020_will_do():
    check_clock(1_577_836_800.0)


@pytest.mark.parametrize(
    "typ",
    [
        *("hsmjwt-transcript+jws", "HSMJWT-x", "hsmjwt-", "application/hsmjwt-x", "Application/HsmJwt-X", " hsmjwt-x"),
        *("application/ hsmjwt-x", "application/application/hsmjwt-x", "x/hsmjwt-x", "application/hsmjwt-x;a/b"),
    ],
)
def test_our_own_types_are_reserved_in_any_spelling(typ):
    assert is_reserved_typ(typ)


@pytest.mark.parametrize("typ", ["JWT", "hsmjwt", "x-hsmjwt-y", "client-authentication+jwt", ""])
def test_other_types_are_free(typ):
    assert not is_reserved_typ(typ)
