"""TokenBroker: an access token from the store, or a new one, fetched by one process at a time."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.errors import NetworkError, PolicyError
from hsmjwt.jose.claims import When
from hsmjwt.oauth.assertion import Asserter
from hsmjwt.oauth.exchange import Answer, TokenRequest, build_request, read_answer
from hsmjwt.oauth.failure import retry_wait
from hsmjwt.oauth.profile import Profile


class TokenStore(Protocol):
    """Where access tokens are kept, by a key of 64 hexadecimal digits."""

    def get(self, key: str) -> AccessToken | None:
        """Return what lies there, fresh or not."""

    def put(self, key: str, token: AccessToken, *, profile: str | None = None, scope: str | None = None) -> None:
        """Keep a token; one of unknown life is not kept."""

    def hold(self, key: str, deadline: Deadline) -> AbstractContextManager[None]:
        """Let one holder at a time into the block."""


class Poster(Protocol):
    """What carries a request to the server."""

    def prepare(self, url: str) -> None:
        """Find faults of the local set-up before anything is signed."""

    def post(self, request: TokenRequest, deadline: Deadline) -> Answer:
        """Return the server's answer."""


class Served(NamedTuple):
    """An access token, and whether it came from the store."""

    token: AccessToken
    cached: bool


class TokenBroker:
    """Hands out one profile's access token."""

    def __init__(
        self,
        profile: Profile,
        *,
        asserter: Asserter,
        store: TokenStore,
        transport: Callable[[], Poster],
        client_secret: Callable[[], str | None],
        deadline: Deadline,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the parts; `transport` and `client_secret` are called when an exchange needs them, and once.

        `sleep` waits for some seconds between two requests, `rand` gives numbers from 0 up to 1 to vary them by, and
        `clock` returns Unix time.
        """
        self._profile = profile
        self._asserter = asserter
        self._store = store
        self._open_transport = transport
        self._read_secret = client_secret
        self._deadline = deadline
        self._note = note
        self._sleep = sleep
        self._rand = rand
        self._clock = clock

    @property
    def key(self) -> str:
        """Return the store's key for this profile's token."""
        return hashlib.sha256(self._profile.cache_key_material().encode()).hexdigest()

    def token(self, *, fresh: bool = False) -> Served:
        """Return an access token that has more life than the profile's min_ttl, a new one where `fresh` is asked for.

        Raises what the token and the server give, BusyError where another process fetches it and is not done in time.
        """
        cached = None if fresh else self._kept()
        if cached is not None:
            return Served(cached, cached=True)
        with self._store.hold(self.key, self._deadline):
            cached = None if fresh else self._kept()
            if cached is not None:
                return Served(cached, cached=True)
            token = self._exchange()
            scope = token.members.get("scope")
            shown = scope if isinstance(scope, str) else self._profile.scope
            self._store.put(self.key, token, profile=self._profile.name, scope=shown)
            return Served(token, cached=False)

    def _kept(self) -> AccessToken | None:
        token = self._store.get(self.key)
        if token is None or not token.fresh(self._clock(), self._profile.min_ttl):
            return None
        self._note("the access token comes from the cache")
        return token

    def _exchange(self) -> AccessToken:
        """Ask the server, again where that is safe: each request carries a new assertion."""
        url = self._profile.token_url
        if url is None:
            raise AssertionError("a profile that exchanges has a token URL")
        transport = self._open_transport()
        transport.prepare(url)
        secret = self._read_secret()
        attempt, before = 0, None
        while True:
            attempt += 1
            self._deadline.enter("the token")
            try:
                assertion = self._asserter.assertion()
            except PolicyError as refusal:
                if before is None:
                    raise
                before.hint = f"it could not be asked again: {refusal.message}"  # a fixed exp that has passed meanwhile
                raise before from None
            request = build_request(
                grant=self._profile.grant,
                url=url,
                jwt=assertion.jwt,
                client_id=self._profile.client_id,
                scope=self._profile.scope,
                client_secret=secret,
                form=self._profile.form,
            )
            signed_at = self._clock()
            try:
                return read_answer(transport.post(request, self._deadline), request=request)
            except NetworkError as failure:
                wait = self._wait(failure, attempt, signed_at)
                if wait is None:
                    raise
                before = failure
                self._note(f"request {attempt} failed ({failure.message}); the next one in {wait:.1f} s")
                self._sleep(wait)

    def _wait(self, failure: NetworkError, attempt: int, signed_at: float) -> float | None:
        """Return how long to wait before the next request; None where there is none, and the hint then says why."""
        wait = retry_wait(failure, attempt, rand=self._rand) if self._renews() else None
        if wait is None:
            if failure.hint is None and attempt > 1:
                failure.hint = f"{attempt} requests were made"
            return None
        if self._profile.jti_mode == "none":  # the same second would sign the same bytes, which is a replay
            wait = max(wait, int(signed_at) + 1 - self._clock())
        left = self._deadline.remaining()
        if left is not None and wait >= left:
            failure.hint = f"the next request would come in {math.ceil(wait)} s, and --timeout leaves {int(left)} s"
            return None
        return max(0.0, wait)

    def _renews(self) -> bool:
        """Tell whether another assertion would differ from the last one by more than its time of day."""
        if self._profile.jti_mode == "literal":
            return False
        if self._profile.jti_mode == "auto":
            return True
        claims = self._profile.claims
        moving = any(isinstance(value, When) and not value.absolute for value in (claims.iat, claims.exp, claims.nbf))
        return self._profile.now is None and moving
