"""HTTP dates (RFC 9110, section 5.6.7), read without `email`, whose import every cache hit would pay for."""

from __future__ import annotations

import datetime
import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = r"(?P<day>[0-9]{1,2})[ -](?P<month>[a-z]{3})[ -](?P<year>(?:[0-9]{2}){1,2})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    # Sun, 06 Nov 1994 08:49:37 GMT, and as RFC 850 had it: Sunday, 06-Nov-94 08:49:37 GMT
    rf"(?i)[a-z]+, *{_DATE} {_TIME} (?:GMT|UTC)",
    # Sun Nov  6 08:49:37 1994, as asctime has it
    rf"(?i)[a-z]+ (?P<month>[a-z]{{3}}) +(?P<day>[0-9]{{1,2}}) {_TIME} (?P<year>[0-9]{{4}})",
)


def parse_http_date(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date in any of its three forms, None where it is none."""
    found = next((match for form in _FORMS if (match := re.fullmatch(form, (text or "").strip()))), None)
    if found is None or found["month"].lower() not in _MONTHS:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:  # of RFC 850
        year += 1900 if year >= 70 else 2000
    month, second = _MONTHS.index(found["month"].lower()) + 1, min(int(found["second"]), 59)  # 60 is a leap second
    try:
        moment = datetime.datetime(
            year, month, int(found["day"]), int(found["hour"]), int(found["minute"]), second, tzinfo=datetime.UTC
        )
    except ValueError:
        return None
    return moment.timestamp()
