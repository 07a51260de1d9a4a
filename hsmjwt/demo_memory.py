"""What the demo's server remembers, assertions that were used and access tokens, and how it says no."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Callable
from typing import Any, Literal

Clock = Callable[[], float]  # Unix time in seconds
_KEPT = 100_000  # used assertions, and access tokens, remembered at once


class Refusal(Exception):
    """An error answer of RFC 6749, section 5.2; the description is ASCII of ours and quotes nothing that was sent."""

    def __init__(self, error: str, description: str, code: int = 400) -> None:
        """Keep what the answer says."""
        super().__init__(description)
        self.error, self.description, self.code = error, description, code


class Memory:
    """Values by key, each kept until its moment and never more than `most`; for use from several threads."""

    def __init__(self, now: Clock, most: int = _KEPT) -> None:
        """Start empty; `now` is the clock that moments are compared with."""
        self._now, self._most, self._lock = now, most, threading.Lock()
        self._values: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self._order: list[tuple[float, bytes]] = []

    def put(self, key: str, value: dict[str, Any], until: float) -> Literal["kept", "replayed", "expired"]:
        """Keep a value unless its key is known. The clock is read under the lock: what was pruned is over for all."""
        digest = hashlib.sha256(key.encode()).digest()
        with self._lock:
            now = self._now()
            while self._order and self._order[0][0] <= now:
                del self._values[heapq.heappop(self._order)[1]]
            if until <= now:
                return "expired"
            if digest in self._values:
                return "replayed"
            if len(self._values) >= self._most:  # forgetting would let an assertion in twice
                raise Refusal("temporarily_unavailable", "too many requests to remember", 503)
            self._values[digest] = (until, value)
            heapq.heappush(self._order, (until, digest))
            return "kept"

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value of a key whose moment has not come."""
        with self._lock:
            until, value = self._values.get(hashlib.sha256(key.encode()).digest(), (0.0, None))
            return value if until > self._now() else None
