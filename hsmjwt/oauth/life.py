"""How long an access token lives and when to ask again, as servers write it: numbers, numbers as text, dates."""

from __future__ import annotations

import re

from hsmjwt.oauth.http_date import parse_http_date

__all__ = ["LONGEST_LIFE", "life_in", "life_until", "retry_after"]

LONGEST_LIFE = 10 * 365.25 * 86400  # seconds; more than ten years is a date, or milliseconds, and no life

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]+)?")
_DELAY = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_A_YEAR = 365.25 * 86400


def life_in(value: object) -> float | None:
    """Return an `expires_in` (RFC 6749, section 5.1) in seconds, 0 included; None for what is no life."""
    life = _seconds(value)
    return None if life is None or life >= LONGEST_LIFE else life


def life_until(value: object, *, sent_at: float, date: str | None) -> float | None:
    """Return the life that an `expires` gives, a Unix time by the server's clock (Adobe's other grants); None if none.

    The member is no RFC's, and some servers mean something else by it: what is no time to come is not read. `date` is
    the answer's Date, without which the clock is ours.
    """
    until = _seconds(value)
    served = parse_http_date(date)
    life = None if until is None else until - (sent_at if served is None else served)
    return life if life is not None and 0 < life < LONGEST_LIFE else None


def retry_after(text: str | None, *, received_at: float, date: str | None) -> float | None:
    """Return what Retry-After asks for in seconds, given as a number or as a date (RFC 9110, section 10.2.3)."""
    text = (text or "").strip()
    if _DELAY.fullmatch(text):
        return min(float(text), _A_YEAR)
    until = parse_http_date(text)
    if until is None:
        return None
    served = parse_http_date(date)
    return min(max(0.0, until - (received_at if served is None else served)), _A_YEAR)


def _seconds(value: object) -> float | None:
    """Return a number that is not negative, also one written as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if value >= 0 else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return None
