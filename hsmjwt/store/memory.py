"""Access tokens in this process alone: for `--no-cache`, and for a program that uses the library."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline


class MemoryStore:
    """Keep access tokens in memory; any number of threads may use it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tokens: dict[str, AccessToken] = {}
        self._flights: dict[str, tuple[threading.Lock, int]] = {}  # a key's lock, and how many hold or want it

    def get(self, key: str) -> AccessToken | None:
        """Return the token last put under the key, fresh or not."""
        with self._guard:
            return self._tokens.get(key)

    def put(self, key: str, token: AccessToken, *, profile: str | None = None, scope: str | None = None) -> None:
        """Keep a token; one of unknown life is not kept. The labels are for stores that can be listed."""
        del profile, scope
        if token.expires_at is None:
            return
        with self._guard:
            # what has ended by now would stay for ever, where each call has a key of its own
            for ended in [k for k, t in self._tokens.items() if (t.expires_at or 0) <= token.fetched_at]:
                del self._tokens[ended]
            self._tokens[key] = token

    @contextlib.contextmanager
    def hold(self, key: str, deadline: Deadline) -> Iterator[None]:
        """Let one thread at a time fetch the token of this key; not to be entered twice by one thread.

        Raises the deadline's error (BusyError) when the other is not done in time.
        """
        with self._guard:
            lock, wanted = self._flights.get(key, (threading.Lock(), 0))
            self._flights[key] = lock, wanted + 1
        try:
            before = deadline.stage, deadline.error
            deadline.enter("another thread that fetches the same access token")
            try:
                left = deadline.remaining()
                if not lock.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
                    raise deadline.exceeded()
            finally:
                deadline.enter(*before)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, wanted = self._flights.pop(key)
                if wanted > 1:
                    self._flights[key] = lock, wanted - 1
