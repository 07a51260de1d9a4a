"""Claims as a template, and the claims themselves once `now` is known (RFC 7519, section 4.1).

A template is what the caller asked for; only the instant of signing turns it into claims, so that a slow login or a
retry never signs an old `iat`. Times are written as people write them:

    DURATION  90, 90s, 5m, 1h, 1d         (1.5 and 1.5m too; lower case)
    WHEN      a DURATION from now, with + or - before it; @1395327936; 2014-03-20T15:05:36Z (RFC 3339)
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hsmjwt.jose.encoding import EncodingFault, quoted

LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, where RFC 3339 ends; also the longest duration
REGISTERED: Final = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti")  # in the order in which they are written

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,9}))?([smhd]?)")
_EPOCH = re.compile(r"@([0-9]{1,16})(?:\.[0-9]{1,9})?")
# RFC 3339, section 5.6; a blank for the T and a second 60 are allowed there too.
_DATE_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]{1,30})?"
    r"([Zz]|([+-])([0-9]{2}):([0-9]{2}))?"
)
_LEAP_SECOND = 60


class When(NamedTuple):
    """A moment in whole seconds: Unix time where `absolute`, else counted from the claims' own now."""

    seconds: int
    absolute: bool

    def at(self, now: int) -> int:
        """Return the moment as Unix time."""
        return self.seconds if self.absolute else now + self.seconds


class Computed(enum.Enum):
    """A claim's value that is made anew for each assertion."""

    NEW_ID = "auto"


NOW: Final = When(0, absolute=False)


class ClaimsTemplate(NamedTuple):
    """What will be claimed: None leaves a claim out, a When is put against now, any other value stands as it is.

    `extra` holds the claims that RFC 7519 does not register, in the order given.
    """

    iss: str
    sub: str
    aud: str | list[str] | None
    exp: When | int | float
    iat: When | int | float = NOW
    nbf: When | int | float | None = None
    jti: Computed | str | None = None
    extra: tuple[tuple[str, Any], ...] = ()


def build(template: ClaimsTemplate, *, now: int, new_jti: Callable[[], str]) -> dict[str, Any]:
    """Return the claims at `now` (Unix time in seconds), registered ones first and always in the same order.

    `new_jti` makes an identifier; it is called only where the template asks for one.
    """
    claims: dict[str, Any] = {}
    for name in REGISTERED:
        value = getattr(template, name)
        if isinstance(value, When):
            claims[name] = value.at(now)
        elif value is Computed.NEW_ID:
            claims[name] = new_jti()
        elif value is not None:
            claims[name] = value
    claims.update(template.extra)
    return claims


def parse_duration(text: str) -> float:
    """Return the seconds of a DURATION: `90`, `90s`, `5m`, `1h`, `1d`, 0 and fractions included.

    Raises EncodingFault for anything else, and for more than 9999 years.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        message = f"{quoted(text)} is no duration: write 90, 90s, 5m, 1h or 1d"
        raise EncodingFault(message)
    whole, fraction, unit = found.groups()
    seconds = (int(whole) + float(f"0.{fraction or 0}")) * _UNITS[unit]
    if seconds > LAST_SECOND:
        message = f"{quoted(text)} is longer than any clock runs"
        raise EncodingFault(message)
    return seconds


def parse_when(text: str) -> When:
    """Return the moment that a WHEN names, fractions of a second cut off.

    Raises EncodingFault for anything else: a time without an offset (it would mean another moment in another zone), a
    day that is none, and times before 1970 or after 9999.
    """
    if text.startswith("@"):
        return _epoch(text)
    sign, number = (text[0], text[1:]) if text[:1] in ("+", "-") else ("+", text)
    if _DURATION.fullmatch(number):
        seconds = int(parse_duration(number))
        return When(-seconds if sign == "-" else seconds, absolute=False)
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        message = (
            f"{quoted(text)} is no time: write a duration from now (5m, +1h, -90s), @UNIXTIME or an RFC 3339 time "
            "such as 2031-11-02T01:30:00Z"
        )
        raise EncodingFault(message)
    if found[7] is None:
        message = f"{quoted(text)} has no offset, and would mean another moment in another zone: end it in Z or +01:00"
        raise EncodingFault(message)
    return _date_time(found, text)


def rfc3339(seconds: float) -> str:
    """Return Unix time as RFC 3339 writes it: in UTC, whole seconds, ending in Z.

    Raises ValueError where no calendar holds it.
    """
    try:
        moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(seconds) from error
    return f"{moment.replace(tzinfo=None).isoformat()}Z"


def _epoch(text: str) -> When:
    found = _EPOCH.fullmatch(text)
    if found is None:
        message = f"{quoted(text)} is no Unix time: write @ and the seconds since 1970, such as @1395327936"
        raise EncodingFault(message)
    seconds = int(found[1])
    if seconds > LAST_SECOND:
        message = f"{quoted(text)} lies after the year 9999: Unix time is in seconds, not milliseconds"
        raise EncodingFault(message)
    return When(seconds, absolute=True)


def _date_time(found: re.Match[str], text: str) -> When:
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    leap = second == _LEAP_SECOND
    offset = 0
    if found[8]:
        hours, minutes = int(found[9]), int(found[10])
        if hours > 23 or minutes > 59:
            message = f"{quoted(text)} has an offset that is none"
            raise EncodingFault(message)
        offset = (hours * 60 + minutes) * 60 * (-1 if found[8] == "-" else 1)
    try:
        moment = datetime.datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=datetime.UTC)
    except ValueError as error:
        message = f"{quoted(text)} is no time: {error}"
        raise EncodingFault(message) from None
    seconds = int(moment.timestamp()) + leap - offset
    if not 0 <= seconds <= LAST_SECOND:
        message = f"{quoted(text)} lies before 1970 or after 9999"
        raise EncodingFault(message)
    return When(seconds, absolute=True)
