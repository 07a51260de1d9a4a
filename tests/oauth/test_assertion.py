"""The one road of an assertion to its key: what is asked first, what is computed when."""

from __future__ import annotations

import json

import jwt
import msgspec
import pytest
from servers.signing import SoftKey, profile

from hsmjwt.errors import ConfigError, PolicyError, UsageError
from hsmjwt.oauth.assertion import Asserter, OpenKey, draft

NOW = 1_800_000_000.7


class Opening:
    """Opens a software key, and counts how often; the clock moves on by `takes` seconds meanwhile."""

    def __init__(self, takes: float = 0.0) -> None:
        self.key, self.takes, self.times, self.now = SoftKey(), takes, 0, NOW

    def __call__(self) -> OpenKey:
        self.times += 1
        self.now += self.takes
        return OpenKey(self.key, "pkcs11:token=t;object=k;type=private")

    def clock(self) -> float:
        return self.now


def signing(**flags):
    opening = Opening(flags.pop("takes", 0.0))
    return opening, Asserter(profile(exchanging=False, **{"aud": ("a",), **flags}), opening, opening.clock)


def test_header_and_claims_are_made_after_the_key_is_open():
    _opening, asserter = signing(takes=2.0)
    made = asserter.assertion()
    assert made.claims["iat"] == int(NOW) + 2
    assert made.claims["exp"] == int(NOW) + 302
    assert made.key.endswith("type=private")


def test_the_assertion_says_what_it_tells_and_its_signature_holds():
    opening, asserter = signing(kid="k-1")
    made = asserter.assertion()
    assert jwt.get_unverified_header(made.jwt) == made.header == {"typ": "JWT", "alg": "RS256", "kid": "k-1"}
    read = jwt.decode(made.jwt, opening.key.pem, algorithms=["RS256"], audience="a", options={"verify_iat": False})
    assert read == made.claims


def test_the_key_is_opened_once_and_every_assertion_is_new():
    opening, asserter = signing()
    first = asserter.assertion()
    opening.now += 1
    second = asserter.assertion()
    assert (opening.times, opening.key.signed) == (1, 2)
    assert second.claims["iat"] == first.claims["iat"] + 1
    assert second.claims["jti"] != first.claims["jti"]


def test_without_a_jti_one_second_has_one_assertion():
    opening, asserter = signing(jti="none")
    assert asserter.assertion().jwt == asserter.assertion().jwt
    opening.now += 1
    assert asserter.assertion().claims["iat"] == int(NOW) + 1


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ({"exp": "0"}, "exp-not-later-than-now"),
        ({"exp": "3700"}, "exp-too-late"),
        ({"nbf": "120"}, "nbf-in-the-future"),
        ({"now": "+120"}, "iat-in-the-future"),
    ],
)
def test_what_is_forbidden_is_refused_before_the_key_is_opened(flags, rule):
    opening, asserter = signing(**flags)
    with pytest.raises(PolicyError, match=rule):
        asserter.assertion()
    assert (opening.times, opening.key.signed) == (0, 0)


def test_text_that_is_none_is_refused_before_the_key_is_opened():
    opening, asserter = signing()
    asserter._profile = msgspec.structs.replace(asserter._profile, header={"typ": "JWT", "x": "\ud800"})
    with pytest.raises(UsageError, match="header parameter 'x'"):
        asserter.assertion()
    assert opening.times == 0


def test_a_login_that_outlasts_the_assertion_signs_nothing():
    opening, asserter = signing(exp=f"@{int(NOW) + 30}", takes=60.0)
    with pytest.raises(PolicyError, match="exp-not-later-than-now"):
        asserter.assertion()
    assert (opening.times, opening.key.signed) == (1, 0)


def test_a_clock_that_was_never_set_signs_nothing():
    opening, asserter = signing()
    opening.now = 1_000_000.0
    with pytest.raises(ConfigError, match="1970-01-12"):
        asserter.assertion()
    assert opening.times == 0


def test_a_draft_is_what_would_be_signed_and_touches_no_key():
    asked = profile(exchanging=False, aud=("a",), jti="one")
    header, claims = draft(asked, None, NOW)
    assert header == {"typ": "JWT", "alg": None}
    assert json.loads(json.dumps(claims)) == {
        "iss": "i",
        "sub": "i",
        "aud": "a",
        "exp": int(NOW) + 300,
        "iat": int(NOW),
        "jti": "one",
    }
