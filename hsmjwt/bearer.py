"""AccessToken: what the authorization server handed out, and how long it may be served."""

from __future__ import annotations

from typing import Any

import msgspec


class AccessToken(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """An OAuth access token with its life.

    `fetched_at` and `expires_at` are Unix times in seconds; life counts from the moment the request was sent, so
    `expires_at` is None where the server gave no life. `members` holds the server's other members as received,
    `token_type` included, `access_token` and `expires_in` not.
    """

    value: str
    token_type: str
    fetched_at: float
    expires_at: float | None = None
    members: dict[str, Any] = msgspec.field(default_factory=dict)

    def serve_until(self, min_ttl: float) -> float | None:
        """Return the Unix time until which a cache may serve this token; None where its life is unknown.

        `min_ttl` seconds before the end it stops, but never earlier than a tenth of the token's life before it.
        """
        if self.expires_at is None:
            return None
        return self.expires_at - min(min_ttl, (self.expires_at - self.fetched_at) / 10)

    def fresh(self, now: float, min_ttl: float) -> bool:
        """Tell whether a cache may serve this token at `now`; one from the future (a clock set back) is not."""
        until = self.serve_until(min_ttl)
        return until is not None and self.fetched_at <= now < until

    def __repr__(self) -> str:
        """Show everything but the token."""
        return f"AccessToken(value='***', token_type={self.token_type!r}, expires_at={self.expires_at!r})"
