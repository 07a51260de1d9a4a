"""Times as people write them, and claims in the order and shape that the golden vector fixes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.claims import (
    LAST_SECOND,
    NOW,
    ClaimsTemplate,
    Computed,
    When,
    build,
    parse_duration,
    parse_when,
    rfc3339,
)
from hsmjwt.jose.encoding import EncodingFault

T0 = 1_395_327_936


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("3650d", 315_360_000),
        ("0", 0),
        ("0.5", 0.5),
        ("1.5m", 90),
        (str(LAST_SECOND), LAST_SECOND),
    ],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 90",
        "90 ",
        "-90",
        "+90",
        "5M",
        "1w",
        "1h30m",
        "m",
        "1e3",
        "٣",
        "inf",
        "nan",
        ".5",
        "5.",
        "@90",
        "0x10",
        "90\n",
    ],
)
def test_what_is_no_duration_is_refused_and_quoted(text):
    with pytest.raises(EncodingFault, match="is no duration") as caught:
        parse_duration(text)
    assert repr(text)[1:-1] in str(caught.value)


@pytest.mark.parametrize("text", [str(LAST_SECOND + 1), "9999999999999999d", "2932897d"])
def test_a_duration_beyond_the_year_9999_is_refused(text):
    with pytest.raises(EncodingFault, match="longer than any clock runs"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 17, "9" * 5000 + "d"])
def test_a_number_too_long_for_any_time_is_no_duration(text):
    with pytest.raises(EncodingFault, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("5m", T0 + 300),
        ("+5m", T0 + 300),
        ("-5m", T0 - 300),
        ("0", T0),
        ("1.9", T0 + 1),
        ("@0", 0),
        ("@1395327936", T0),
        ("@1395327936.75", T0),
        ("2014-03-20T15:05:36Z", T0),
        ("2014-03-20t15:05:36z", T0),
        ("2014-03-20 15:05:36Z", T0),
        ("2014-03-20T15:05:36.999Z", T0),
        ("2014-03-20T16:05:36+01:00", T0),
        ("2014-03-20T05:35:36-09:30", T0),
        ("2014-03-20T15:05:36-00:00", T0),
        ("2016-12-31T23:59:60Z", 1_483_228_800),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", LAST_SECOND),
    ],
)
def test_a_when_is_a_moment(text, moment):
    assert parse_when(text).at(T0) == moment


@given(st.integers(0, LAST_SECOND))
def test_a_moment_that_is_written_is_read_as_the_same(moment):
    assert parse_when(rfc3339(moment)).at(T0) == moment


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (T0 + 0.75, "2014-03-20T15:05:36Z"),
        (-62_135_596_800, "0001-01-01T00:00:00Z"),
        (LAST_SECOND, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_moment_is_written_in_utc(moment, text):
    assert rfc3339(moment) == text


@pytest.mark.parametrize("moment", [LAST_SECOND + 1, 1e30, -1e12, float("inf"), float("nan")])
def test_a_moment_that_no_calendar_holds_is_not_written(moment):
    with pytest.raises(ValueError, match=r"."):
        rfc3339(moment)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no time"),
        ("now", "is no time"),
        ("tomorrow", "is no time"),
        ("--5m", "is no time"),
        ("+-5m", "is no time"),
        ("+", "is no time"),
        ("1395327936Z", "is no time"),
        ("2031-11-02", "is no time"),
        ("2031-11-02T01:30Z", "is no time"),
        ("2031-11-02T01:30:00+0100", "is no time"),
        ("2031-11-02T01:30:00", "has no offset"),
        ("2031-02-29T00:00:00Z", "is no time"),
        ("2031-13-01T00:00:00Z", "is no time"),
        ("2031-11-02T24:00:00Z", "is no time"),
        ("2031-11-02T00:00:61Z", "is no time"),
        ("0000-01-01T00:00:00Z", "is no time"),
        ("2031-11-02T00:00:00+24:00", "offset"),
        ("2031-11-02T00:00:00+01:60", "offset"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("1970-01-01T00:00:00+00:01", "before 1970"),
        ("9999-12-31T23:59:59-00:01", "after 9999"),
        ("@", "no Unix time"),
        ("@-1", "no Unix time"),
        ("@1e9", "no Unix time"),
        ("@1395327936000", "not milliseconds"),
        ("@" + "9" * 5000, "no Unix time"),
        ("9999999999999999", "longer than any clock runs"),
        ("-9999999999999999d", "longer than any clock runs"),
    ],
)
def test_what_is_no_when_is_refused_with_the_reason(text, why):
    with pytest.raises(EncodingFault, match=why):
        parse_when(text)


def test_a_duration_counts_from_now_and_an_epoch_does_not():
    assert parse_when("90") == When(90, absolute=False)
    assert parse_when("@90") == When(90, absolute=True)


def test_claims_come_in_one_order_whatever_the_template_says():
    template = ClaimsTemplate(
        iss="i",
        sub="s",
        aud=["a", "b"],
        exp=When(1000, absolute=False),
        nbf=When(-5, absolute=False),
        jti="one",
        extra=(("zeta", None), ("alpha", {"deep": [1]})),
    )
    claims = build(template, now=T0, new_jti=lambda: pytest.fail("a literal jti needs no new one"))
    assert list(claims.items()) == [
        ("iss", "i"),
        ("sub", "s"),
        ("aud", ["a", "b"]),
        ("exp", T0 + 1000),
        ("iat", T0),
        ("nbf", T0 - 5),
        ("jti", "one"),
        ("zeta", None),
        ("alpha", {"deep": [1]}),
    ]


def test_optional_claims_are_absent_unless_asked_for():
    claims = build(ClaimsTemplate("i", "s", None, exp=NOW), now=T0, new_jti=str)
    assert list(claims) == ["iss", "sub", "exp", "iat"]


def test_each_assertion_gets_a_new_identifier_and_a_new_now():
    ids = itertools.count(1)
    template = ClaimsTemplate("i", "s", "a", exp=When(60, absolute=False), jti=Computed.NEW_ID)
    first, second = (build(template, now=T0 + turn, new_jti=lambda: f"id-{next(ids)}") for turn in range(2))
    assert (first["jti"], first["iat"], first["exp"]) == ("id-1", T0, T0 + 60)
    assert (second["jti"], second["iat"], second["exp"]) == ("id-2", T0 + 1, T0 + 61)


def test_literal_times_stand_as_they_are():
    template = ClaimsTemplate("i", "s", "a", exp=1.5e9, iat=12, nbf=When(7, absolute=True))
    claims = build(template, now=T0, new_jti=str)
    assert (claims["exp"], claims["iat"], claims["nbf"]) == (1.5e9, 12, 7)
