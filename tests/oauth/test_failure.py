from __future__ import annotations

import random
from email.utils import formatdate

import pytest
from servers.answers import NOW, TOKEN, answer, refused, token

from hsmjwt.errors import BusyError, NetworkError, PolicyError, ServerError
from hsmjwt.oauth.exchange import clock_difference
from hsmjwt.oauth.failure import (
    BusyAnswer,
    ConnectionFault,
    ProxyFault,
    ProxyUnreached,
    ReadTimeout,
    TlsFault,
    retry_wait,
)


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 507, 599])
def test_a_busy_or_broken_server_is_a_network_error_whatever_its_body_says(status):
    for body in (b"", b"<html>", {"error": "invalid_grant"}, token()):
        error = refused(body, status=status)
        assert isinstance(error, NetworkError)
        assert str(status) in error.message
        assert TOKEN not in error.message
    assert refused({"error": "temporarily_unavailable"}, status=status).oauth_error == "temporarily_unavailable"


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("9" * 400, 31557600.0),
    ],
)
def test_retry_after_is_a_number_of_seconds(field, seconds):
    error = refused(b"", status=503, Retry_After=field)
    assert isinstance(error, BusyAnswer)
    assert error.retry_after == seconds


def test_retry_after_is_a_date_by_the_servers_clock():
    def wait(until: float, **more: str) -> float | None:
        error = refused(b"", status=429, Retry_After=formatdate(until, usegmt=True), **more)
        assert isinstance(error, BusyAnswer)
        return error.retry_after

    assert wait(NOW + 12) == 10  # the answer came two seconds after the request was sent
    assert wait(NOW - 60) == 0
    assert wait(NOW + 3610, Date=formatdate(NOW + 3600, usegmt=True)) == 10


def test_three_requests_at_most_with_waits_around_half_a_second_and_a_second():
    fault = ConnectionFault("x")
    assert [retry_wait(fault, n, rand=lambda: 0.5) for n in (1, 2, 3, 4)] == [0.5, 1.0, None, None]
    assert [retry_wait(fault, n, rand=lambda: 0.0) for n in (1, 2)] == [0.25, 0.5]
    waits = [retry_wait(fault, 2, rand=random.Random(3).random) for _ in range(100)]
    assert all(wait is not None and 0.5 <= wait < 1.5 for wait in waits)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_what_it_asks_for(status):
    assert retry_wait(BusyAnswer("x", status=status), 1, rand=lambda: 0.5) == 0.5
    assert retry_wait(BusyAnswer("x", status=status, retry_after=20.0), 2, rand=lambda: 0.5) == 20.0
    assert retry_wait(BusyAnswer("x", status=status, retry_after=0.0), 1, rand=lambda: 0.5) == 0.0
    assert retry_wait(BusyAnswer("x", status=status, retry_after=1.0), 3, rand=lambda: 0.5) is None


@pytest.mark.parametrize(
    "fault",
    [
        TlsFault("x"),
        ReadTimeout("x"),
        ProxyFault("x"),
        NetworkError("x"),
        ServerError("x"),
        PolicyError("x"),
        BusyError("x"),
    ]
    + [BusyAnswer("x", status=status, retry_after=1.0) for status in (500, 501, 505)],
)
def test_what_may_have_been_processed_or_will_not_get_better_is_not_asked_again(fault):
    assert retry_wait(fault, 1, rand=lambda: 0.5) is None


def test_a_proxy_that_was_not_reached_is_asked_again():
    assert retry_wait(ProxyUnreached("x"), 1, rand=lambda: 0.5) == 0.5


def test_the_clock_difference_is_taken_at_the_middle_of_the_request():
    assert clock_difference(answer(b"", Date=formatdate(NOW + 43, usegmt=True))) == 42
    assert clock_difference(answer(b"", date=formatdate(NOW - 41, usegmt=True))) == -42
    assert clock_difference(answer(b"")) is None


@pytest.mark.parametrize("date", ["", "soon", "Tue, 99 Nov 2026 25:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "0"])
def test_a_date_that_is_none_tells_nothing(date):
    assert clock_difference(answer(b"", Date=date)) is None


@pytest.mark.parametrize(("ahead", "words"), [(43, "42 s behind"), (-41, "42 s ahead of"), (7, "6 s behind")])
@pytest.mark.parametrize("body", [{"error": "invalid_grant"}, {"error": "invalid_client"}, {"title": "no"}, b""])
def test_a_clock_that_differs_is_named_when_the_assertion_is_refused(ahead, words, body):
    error = refused(body, status=400, Date=formatdate(NOW + ahead, usegmt=True))
    assert error.hint is not None
    assert f"this clock is {words} the server's" in error.hint


def test_clocks_within_five_seconds_are_not_named():
    error = refused({"error": "invalid_grant"}, status=400, Date=formatdate(NOW + 6, usegmt=True))
    assert "clock" not in (error.hint or "")
