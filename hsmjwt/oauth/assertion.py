"""Builds and signs assertions: the one road of a token's JWT to the private key.

The order matters. A login may take a person's minute and a touch some seconds, so the key is opened first, and header
and claims are made for the instant at which it is used.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from hsmjwt.errors import UsageError
from hsmjwt.guard.policy import check_claims, check_clock, check_end
from hsmjwt.jose.algorithms import by_default, preferred
from hsmjwt.jose.claims import build
from hsmjwt.jose.encoding import EncodingFault
from hsmjwt.jose.jws import OpenKey, sign_jwt, signing_input
from hsmjwt.oauth.profile import Profile


class Draft(NamedTuple):
    """Header and claims of an assertion that is not signed; alg is None where the key decides."""

    header: dict[str, Any]
    claims: dict[str, Any]


class Assertion(NamedTuple):
    """A signed assertion with what it says, and the full URI of the key that signed it."""

    jwt: str
    header: dict[str, Any]
    claims: dict[str, Any]
    key: str


def draft(profile: Profile, alg: str | None, clock: float) -> Draft:
    """Return header and claims for `clock` (Unix time), after asking whether they may be signed.

    Raises PolicyError where they may not, ConfigError for a clock that was never set, and UsageError for what JSON
    cannot hold.
    """
    check_clock(clock)
    check_end(profile.bounds, clock)
    now = profile.claims_now(clock)
    header = profile.header_with(alg)
    claims = build(profile.claims, now=now, new_jti=lambda: str(uuid.uuid4()))
    check_claims(claims, clock=clock, claims_now=now, max_life=profile.max_life)
    try:
        signing_input(header, claims)
    except EncodingFault as error:
        raise UsageError(f"the assertion cannot be written: {error}") from None
    return Draft(header, claims)


class Asserter:
    """Signs one profile's assertions; the key is opened by the first one and kept."""

    def __init__(
        self, profile: Profile, open_key: Callable[[], OpenKey], clock: Callable[[], float] = time.time
    ) -> None:
        """Keep how to open the key, whose signer must verify what it signs; `clock` returns Unix time."""
        self._profile = profile
        self._open = open_key
        self._clock = clock
        self._key: OpenKey | None = None

    def assertion(self) -> Assertion:
        """Return a new assertion for this instant.

        What the profile forbids is refused before the token is touched. Raises what `draft` and the signer raise.
        """
        if self._key is None:
            draft(self._profile, self._profile.alg, self._clock())
            self._key = self._open()
        signer = self._key.signer
        alg = preferred(self._profile.algs, self._key.algs) or by_default(signer.public_key)
        header, claims = draft(self._profile, alg.name, self._clock())
        return Assertion(sign_jwt(header, claims, signer, alg), header, claims, self._key.uri)
