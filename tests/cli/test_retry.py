"""How often `hsmjwt token` asks, seen from the server; the rules one by one are in tests/oauth/test_broker.py."""

from __future__ import annotations

import json
import time

import pytest
from servers.granting import MARK, claims_of, flags, granted
from servers.scripted import Server, free_port, json_reply, reply, reset_after


def test_a_server_that_is_down_is_tried_three_times(quick):
    port = free_port()
    began = time.monotonic()
    done = quick("token", *flags(f"http://127.0.0.1:{port}/token"), "--verbose")
    assert time.monotonic() - began >= 0.75
    assert (done.code, done.out) == (9, "")
    assert f"error: the server '127.0.0.1:{port}' was not reached: connection refused" in done.err
    assert "hint: 3 requests were made" in done.err
    assert done.err.count("; the next one in ") == 2


def test_each_request_has_a_new_assertion_and_one_login_is_enough(quick, token):
    busy = reply(status=503, headers={"Retry-After": "0"})
    with Server(reset_after(), busy, granted()) as server:
        done = quick("token", *flags(server.url()), "--verbose", "--json")
    assert json.loads(done.out)["access_token"] == MARK
    assert done.err.count("the PIN comes from") == 1
    claims = [claims_of(request) for request in server.requests]
    assert len({each["jti"] for each in claims}) == 3
    assert all(each["exp"] - each["iat"] == 300 for each in claims)


def test_the_seeds_assertion_has_no_jti_and_waits_for_the_next_second(quick):
    with Server(reply(status=502, headers={"Retry-After": "0"}), granted()) as server:
        more = ("--client-id", "c", "--sub", "s", "--token-url", server.url())
        done = quick("token", "--provider", "adobe-analytics", *more)
    assert (done.code, done.out) == (0, f"{MARK}\n")
    first, second = server.requests
    assert first.form["assertion"] != second.form["assertion"]
    assert "jti" not in claims_of(second)
    assert claims_of(second)["iat"] > claims_of(first)["iat"]


@pytest.mark.parametrize(
    ("answer", "code", "times", "more"),
    [
        (reply(status=504, headers={"Retry-After": "0"}), 9, 3, ()),
        (reply(status=504, headers={"Retry-After": "0"}), 9, 1, ("--jti", "one")),
        (reply(status=429, headers={"Retry-After": "3600"}), 9, 1, ()),
        (reply(status=500), 9, 1, ()),
        (json_reply({"error": "invalid_request"}, status=400), 10, 1, ()),
    ],
    ids=["504", "504 and a literal jti", "429 for an hour", "500", "400"],
)
def test_how_often_is_asked_depends_on_the_answer(quick, answer, code, times, more):
    with Server(answer) as server:
        began = time.monotonic()
        done = quick("token", *flags(server.url(), *more))
        assert time.monotonic() - began < 15
    assert (done.code, done.out) == (code, "")
    assert len(server.requests) == times


def test_a_server_that_asks_for_too_long_a_wait_is_told_of(quick):
    with Server(json_reply({"error": "slow_down"}, status=429, headers={"Retry-After": "3600"})) as server:
        done = quick("token", *flags(server.url()), "--timeout", "20", "--json")
    lines = done.err.splitlines()
    assert lines[0] == f"hsmjwt: error: the server '127.0.0.1:{server.port}' answered 429 slow_down"
    assert lines[1].startswith("hsmjwt: hint: the next request would come in 3600 s, and --timeout leaves 1")
    told = json.loads(lines[-1])["error"]
    assert (told["code"], told["exit"], told["oauth_error"]) == ("network", 9, "slow_down")
