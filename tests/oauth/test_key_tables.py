"""What key tables say of a profile's key, as far as it can be told without a token."""

from __future__ import annotations

import pytest
from servers.signing import SoftKey

from hsmjwt.config import Settings, parse
from hsmjwt.errors import HsmjwtError, KeyUnfitError, PolicyError, UsageError
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.jws import OpenKey
from hsmjwt.jose.keys import EcKey
from hsmjwt.keychoice import choose_key
from hsmjwt.oauth import rules
from hsmjwt.oauth.assertion import Asserter, draft
from hsmjwt.oauth.origins import settings_of
from hsmjwt.oauth.profile import SigningFlags, resolve
from hsmjwt.oauth.provider import Provider

NOW = 1_800_000_000.0
TWO = '[keys.k]\nuri = "pkcs11:token=t;object=k"\nalg = ["PS256", "RS256"]\n'
SECOND = '[keys.second]\nuri = "pkcs11:object=%6B;token=t;type=private"\n'
ONE = TWO.replace('["PS256", "RS256"]', '"RS256"')
PROFILE = '[profiles.p]\nkey = "k"\nissuer = "i"\naudience = "a"\n'
BY_SECOND = PROFILE.replace('"k"', '"second"')


def sign(text, argument="p", environ=None, **flags):
    settings = parse(text.encode(), "/etc/hsmjwt/c.toml") if text else Settings()
    return resolve(settings, SigningFlags(**flags), argument, environ or {}, exchanging=False)


def refusal(*arguments, **flags):
    with pytest.raises(HsmjwtError) as caught:
        sign(*arguments, **flags)
    return caught.value


def test_a_table_with_two_algorithms_leaves_the_choice_to_the_key():
    profile = sign(TWO + PROFILE)
    assert (profile.alg, profile.algs, profile.unresolved) == (None, ("PS256", "RS256"), ("alg",))
    assert sign(TWO + PROFILE, alg="RS256").alg == "RS256"


def test_a_third_algorithm_is_refused():
    error = refusal(TWO + PROFILE, alg="RS512")
    assert isinstance(error, PolicyError)
    assert error.message.startswith("refused by the rule keys.k.alg: ")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (ONE + SECOND + BY_SECOND, {"alg": "PS256"}),  # a profile over a second table, whose URI is written otherwise
        (ONE + SECOND + BY_SECOND, {"alg": "PS256", "key": "pkcs11:token=t;object=k?pin-source=env:X"}),
        (ONE, {"argument": None, "alg": "PS256", "key": "pkcs11:object=k;token=t", "iss": "i", "aud": ("a",)}),
        (
            ONE,
            {
                "argument": None,
                "alg": "PS256",
                "iss": "i",
                "aud": ("a",),
                "environ": {"HSMJWT_KEY": "pkcs11:token=t;object=k"},
            },
        ),
        (ONE + SECOND + 'alg = ["PS256", "RS256"]\n' + BY_SECOND, {"alg": "PS256"}),
    ],
)
def test_a_second_way_to_the_key_is_bound_by_the_tables_of_the_first(text, arguments):
    error = refusal(text, **arguments)
    assert isinstance(error, PolicyError)
    assert error.message.startswith("refused by the rule keys.k.alg: PS256 is asked for")


def test_the_algorithm_of_another_table_with_the_same_uri_is_taken():
    assert sign(ONE + SECOND + BY_SECOND).alg == "RS256"
    assert sign(TWO + SECOND + 'alg = "RS256"\n' + PROFILE).alg == "RS256"


def test_tables_that_bind_one_key_to_different_algorithms_sign_nothing():
    text = ONE + SECOND + 'alg = "PS256"\n' + PROFILE
    for flags in ({}, {"alg": "PS256"}, {"alg": "RS256"}, {"key": "keys.second"}):
        assert isinstance(refusal(text, **flags), PolicyError)
    assert "[keys.k] to RS256, [keys.second] to PS256" in refusal(text).message


def test_a_flag_that_is_no_algorithm_is_told_before_any_rule():
    assert isinstance(refusal(ONE + PROFILE, alg="RS265"), UsageError)


def asked(text, provider, **flags):
    settings = parse((text + PROFILE).encode(), "/etc/hsmjwt/c.toml")
    table = settings.profiles["p"]
    return rules.Asked(SigningFlags(**flags), table, settings.source, provider), choose_key(settings, {}, table="k")


def strict(*algs):
    return Provider(
        name="strict",
        title="Strict",
        grants=("jwt-bearer",),
        algs=algs,
        issuer="named",
        subject="issuer",
        audience="token-url",
        lifetime=300,
        jti="auto",
        typ={"jwt-bearer": "JWT"},
    )


@pytest.mark.parametrize(
    ("text", "algs", "flag", "chosen"),
    [
        (TWO, (), None, ("PS256", "RS256")),
        (TWO, ("RS256", "ES256"), None, ("RS256",)),
        (TWO, ("RS256", "PS256"), None, ("PS256", "RS256")),
        (TWO, ("RS256",), "RS256", ("RS256",)),
        (SECOND.replace("second", "k"), ("ES256", "RS256"), None, ("ES256", "RS256")),
        (SECOND.replace("second", "k"), (), None, None),
    ],
)
def test_a_provider_leaves_those_that_it_takes(text, algs, flag, chosen):
    named = rules.chosen_algs(*asked(text, strict(*algs), alg=flag))
    assert (None if named is None else named.value) == chosen


def test_a_provider_that_takes_none_of_a_tables_refuses_by_its_own_rule():
    with pytest.raises(PolicyError, match=r"strict\.alg: alg in \[keys\.k\] is PS256 or RS256, and the provider takes"):
        rules.chosen_algs(*asked(TWO, strict("ES256")))


def test_nothing_is_drafted_after_the_end_of_the_keys_use():
    profile = sign(ONE + "not_after = 2027-01-15T08:00:00Z\n" + PROFILE)
    draft(profile, "RS256", NOW)
    with pytest.raises(PolicyError, match=r"keys\.k\.not_after"):
        draft(profile, "RS256", NOW + 1)
    by_second = sign(ONE + SECOND + "not_after = 2027-01-15T08:00:00Z\n" + PROFILE)
    with pytest.raises(PolicyError, match=r"keys\.second\.not_after"):
        draft(by_second, "RS256", NOW + 1)


class Choosing:
    """An open key that can do some algorithms, and notes the one that it is asked for."""

    def __init__(self, *algs, public_key=None):
        self.public_key = public_key or SoftKey().public_key
        self.open = OpenKey(self, "pkcs11:object=k", tuple(ALGORITHMS[name] for name in algs))

    def sign(self, _message, alg):
        if alg.kty != self.public_key.kty:
            raise KeyUnfitError("of another type")
        return b"signed"


@pytest.mark.parametrize(
    ("text", "able", "taken"),
    [
        (TWO, ("RS256", "PS256"), "PS256"),
        (TWO, ("RS384", "RS256"), "RS256"),
        (ONE, ("PS256",), "RS256"),  # which the signer refuses
        (SECOND.replace("second", "k"), ("PS384", "RS256"), "PS384"),
        (SECOND.replace("second", "k"), (), "RS256"),  # where nobody can tell: by the key's type
    ],
)
def test_the_first_algorithm_that_the_key_can_do_is_taken(text, able, taken):
    key = Choosing(*able)
    made = Asserter(sign(text + PROFILE), lambda: key.open, lambda: NOW).assertion()
    assert made.header["alg"] == taken


def test_a_key_that_can_do_none_of_them_is_unfit():
    key = Choosing("ES256", public_key=EcKey("P-256", 1, 2))
    with pytest.raises(KeyUnfitError):
        Asserter(sign(TWO + PROFILE), lambda: key.open, lambda: NOW).assertion()


def test_the_list_of_settings_shows_what_the_table_says_and_who_says_so():
    text = (
        TWO
        + 'certificate = "k.pem"\nrequire = "imported"\nnot_after = 2031-11-02\nmax_age = "1d"\nprotected = true\n'
        + PROFILE
    )
    rows = {row.name: row[1:] for row in settings_of(sign(text), {})}
    assert rows["alg"] == (["PS256", "RS256"], "key table", "[keys.k] alg")
    assert rows["certificate"] == ("/etc/hsmjwt/k.pem", "key table", "[keys.k] certificate")
    assert rows["not_after"] == ("2031-11-02T23:59:59Z", "key table", "[keys.k] not_after")
    assert rows["max_age"] == ("86400s", "key table", "[keys.k] max_age")
    assert rows["protected"] == (True, "key table", "[keys.k] protected")
    for name, value in (("thumbprint", None), ("public_key", None), ("unverified", False)):
        assert rows[name] == (value, "default", "default")
