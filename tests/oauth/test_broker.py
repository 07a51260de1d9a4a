"""TokenBroker: what it asks of store, key and server, and in which order."""

from __future__ import annotations

import contextlib
import inspect
import random
import re
import time

import pytest
from servers.granting import MARK, claims_of, granted
from servers.posting import transport
from servers.scripted import Server, free_port, json_reply, reply, reset_after
from servers.signing import SoftKey, profile

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError, NetworkError, ServerError
from hsmjwt.oauth.assertion import Asserter, OpenKey
from hsmjwt.oauth.broker import TokenBroker
from hsmjwt.oauth.failure import ConnectionFault
from hsmjwt.store.memory import MemoryStore

BEGINS = 1_800_000_000.25
BUSY = reply(status=503, headers={"Retry-After": "0"})


class Made:
    """A broker with a software key and the real transport; everything it was asked is kept.

    It does not wait: `waits` is what it asked for, and its clock goes on by that. The clock begins at `begins`, or is
    the machine's.
    """

    def __init__(
        self, url: str, *, store=None, seconds: float | None = 20, patience=5.0, begins=None, rand=0.5, **flags
    ) -> None:
        self.key, self.notes, self.opened, self.transports = SoftKey(), [], 0, 0
        self.waits, self.begins = [], begins
        self.profile = profile(token_url=url, **flags)
        self.store = MemoryStore() if store is None else store
        self.patience = patience
        self.broker = TokenBroker(
            self.profile,
            asserter=Asserter(self.profile, self.open, self.clock),
            store=self.store,
            transport=self.transport,
            client_secret=lambda: None,
            deadline=Deadline(seconds),
            note=self.notes.append,
            sleep=self.waits.append,
            rand=lambda: rand,
            clock=self.clock,
        )
        self.token = self.broker.token

    def clock(self) -> float:
        return (time.time() if self.begins is None else self.begins) + sum(self.waits)

    def open(self) -> OpenKey:
        self.opened += 1
        return OpenKey(self.key, "pkcs11:object=k")

    def transport(self):
        self.transports += 1
        return transport(patience=self.patience)


def kept(*, ago: float, life: float) -> AccessToken:
    begun = time.time() - ago
    return AccessToken(value="kept", token_type="Bearer", fetched_at=begun, expires_at=begun + life)


def jtis(server: Server) -> list[str]:
    return [claims_of(request)["jti"] for request in server.requests]


def test_a_token_is_fetched_once_and_served_from_then_on():
    with Server(granted()) as server:
        made = Made(server.url())
        first, second = made.token(), made.token()
    assert (first.cached, second.cached) == (False, True)
    assert first.token == second.token
    assert (len(server.requests), made.opened, made.key.signed, made.transports) == (1, 1, 1, 1)


def test_a_kept_token_is_served_without_key_transport_or_secret():
    made = Made("http://127.0.0.1:1/token")
    made.store.put(made.broker.key, kept(ago=10, life=3600))
    served = made.token()
    assert (served.token.value, served.cached) == ("kept", True)
    assert (made.opened, made.transports) == (0, 0)


@pytest.mark.parametrize(
    ("ago", "life", "min_ttl", "served"),
    [
        (0, 3600, None, True),
        (3539, 3600, None, True),
        (3542, 3600, None, False),
        (89, 100, None, True),  # of 60 s a tenth of the life counts
        (91, 100, None, False),
        (3500, 3600, "0", True),
        (3235, 3600, "1d", True),
        (3245, 3600, "1d", False),
        (3601, 3600, "0", False),
        (-30, 3600, None, False),  # fetched in the future: the clock was set back
    ],
)
def test_a_token_is_served_until_shortly_before_its_end(ago, life, min_ttl, served):
    with Server(granted()) as server:
        made = Made(server.url(), min_ttl=min_ttl)
        made.store.put(made.broker.key, kept(ago=ago, life=life))
        assert made.token().cached is served
    assert len(server.requests) == (0 if served else 1)


def test_fresh_asks_although_a_token_is_kept_and_keeps_the_new_one():
    with Server(granted("one"), granted("two")) as server:
        made = Made(server.url())
        assert made.token().token.value == "one"
        assert made.token(fresh=True).token.value == "two"
        assert made.token() == made.token()
        assert made.token().token.value == "two"
    assert len(server.requests) == 2


def test_who_waited_takes_what_the_other_fetched():
    """The store is looked at again once the key is held."""

    class Late(MemoryStore):
        @contextlib.contextmanager
        def hold(self, key, deadline):
            with super().hold(key, deadline):
                self.put(key, kept(ago=0, life=3600))
                yield

    made = Made("http://127.0.0.1:1/token", store=Late())
    assert made.token().cached
    assert made.opened == 0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_three_times_and_each_time_anew(status):
    with Server(reply(status=status, headers={"Retry-After": "0"})) as server:
        made = Made(server.url())
        with pytest.raises(NetworkError, match=f"answered {status}") as caught:
            made.token()
    assert caught.value.hint == "3 requests were made"
    assert len(set(jtis(server))) == 3
    assert (len(server.requests), made.opened, made.key.signed) == (3, 1, 3)


def test_what_the_second_request_gives_is_kept():
    with Server(BUSY, granted()) as server:
        made = Made(server.url())
        assert made.token().token.value == MARK
        assert made.token().cached
    assert len(server.requests) == 2
    assert len(made.notes) == 2
    assert made.notes[0].startswith(f"request 1 failed (the server '127.0.0.1:{server.port}' answered 503")


@pytest.mark.parametrize(("rand", "waits"), [(0.0, [0.25, 0.5]), (0.5, [0.5, 1.0]), (0.75, [0.625, 1.25])])
def test_the_waits_are_half_a_second_and_a_second_half_of_it_more_or_less(rand, waits):
    made = Made(f"http://127.0.0.1:{free_port()}/token", rand=rand)
    with pytest.raises(ConnectionFault, match="connection refused"):
        made.token()
    assert made.waits == waits
    assert [note.rpartition("; ")[2] for note in made.notes] == [f"the next one in {wait:.1f} s" for wait in waits]
    assert made.key.signed == 3


def test_without_arguments_it_really_waits_at_random():
    defaults = inspect.signature(TokenBroker).parameters
    assert [defaults[name].default for name in ("sleep", "rand", "clock")] == [time.sleep, random.random, time.time]


def test_iat_and_exp_are_renewed_too():
    with Server(reply(status=503, headers={"Retry-After": "1"}), granted()) as server:
        made = Made(server.url(), begins=BEGINS)
        made.token()
    first, second = (claims_of(request) for request in server.requests)
    assert made.waits == [1.0]
    assert (first["iat"], second["iat"]) == (int(BEGINS), int(BEGINS) + 1)
    assert second["exp"] - second["iat"] == first["exp"] - first["iat"] == 300


def test_without_a_jti_the_next_second_is_waited_for():
    with Server(BUSY) as server:
        made = Made(server.url(), jti="none", begins=BEGINS)
        with pytest.raises(NetworkError):
            made.token()
    assert made.waits == [0.75, 1.0]
    assert [claims_of(request)["iat"] - int(BEGINS) for request in server.requests] == [0, 1, 2]
    assert len({request.form["assertion"] for request in server.requests}) == 3


@pytest.mark.parametrize(
    "flags",
    [
        {"jti": "one"},
        {"jti": "none", "now": "-5"},
        {"jti": "none", "now": "@1395327936"},
        {"jti": "none", "exp": f"@{int(time.time()) + 600}", "claims_file": b'{"iat": 1395327936}'},
    ],
    ids=["literal jti", "relative now", "fixed now", "nothing moves"],
)
def test_an_assertion_that_would_be_the_same_is_sent_once(flags):
    with Server(BUSY) as server, pytest.raises(NetworkError):
        Made(server.url(), **flags).token()
    assert len(server.requests) == 1


def test_another_now_with_a_jti_is_no_reason_to_give_up():
    with Server(BUSY, granted()) as server:
        Made(server.url(), now="@1395327936").token()
    assert len(set(jtis(server))) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(status=500), NetworkError),
        (reply(status=501), NetworkError),
        (json_reply({"error": "invalid_grant"}, status=400), ServerError),
        (json_reply({"error": "invalid_client"}, status=401), ServerError),
        (reply(status=403), ServerError),
        (reply(status=302, headers={"Location": "/other"}), ServerError),
        (reply(b"no JSON"), ServerError),
        (json_reply({"error": "temporarily_unavailable"}), ServerError),
    ],
    ids=["500", "501", "400", "401", "403", "302", "no JSON", "error with 200"],
)
def test_what_asking_again_would_not_mend_is_asked_once(answer, kind):
    with Server(answer) as server, pytest.raises(kind) as caught:
        Made(server.url()).token()
    assert type(caught.value).exit_code == kind.exit_code
    assert len(server.requests) == 1


def test_a_lost_connection_is_mended_by_another():
    with Server(reset_after(), granted()) as server:
        assert Made(server.url()).token().token.value == MARK
    assert len(server.requests) == 2


def test_a_server_that_is_silent_for_long_may_have_acted_and_is_not_asked_again():
    with Server(lambda line: line.wait(2)) as server, pytest.raises(NetworkError, match="silent for"):
        Made(server.url(), seconds=None, patience=0.3).token()
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["60", "Thu, 31 Dec 2037 23:59:59 GMT"], ids=["seconds", "date"])
def test_a_wait_that_ends_after_the_deadline_ends_it_at_once(after):
    with Server(reply(status=429, headers={"Retry-After": after})) as server:
        made = Made(server.url(), seconds=9.9)
        with pytest.raises(NetworkError, match="answered 429") as caught:
            made.token()
    assert made.waits == []
    assert re.fullmatch(r"the next request would come in [0-9]{2,} s, and --timeout leaves [0-9] s", caught.value.hint)
    assert len(server.requests) == 1


def test_retry_after_as_a_date_is_waited_for():
    dates = {"Date": "Tue, 24 Nov 2026 08:00:00 GMT", "Retry-After": "Tue, 24 Nov 2026 08:00:03 GMT"}
    with Server(reply(status=503, headers=dates), granted()) as server:
        made = Made(server.url())
        made.token()
    assert made.waits == [3.0]


def test_what_is_wrong_here_is_found_before_anything_is_signed():
    made = Made("https://as.example.test/token")

    def broken():
        return transport(ca_file="/nowhere/ca.pem")

    made.broker._open_transport = broken
    with pytest.raises(ConfigError, match=r"/nowhere/ca\.pem"):
        made.token()
    assert made.opened == 0


def test_a_failed_exchange_leaves_the_key_free_and_nothing_kept():
    with Server(reply(status=500), granted()) as server:
        made = Made(server.url())
        with pytest.raises(NetworkError):
            made.token()
        assert made.store.get(made.broker.key) is None
        assert not made.token().cached
    assert len(server.requests) == 2


def test_while_the_token_is_asked_the_deadline_is_the_tokens():
    """What runs out while the token signs is 11; while the server is asked, 9."""
    with Server(BUSY, granted()) as server:
        made = Made(server.url())
        errors = []
        made.key.sign = lambda message, alg, sign=made.key.sign: (
            errors.append(made.broker._deadline.error),
            sign(message, alg),
        )[1]
        made.token()
    assert errors == [BusyError, BusyError]
    assert made.broker._deadline.error is NetworkError


def test_the_scope_that_the_server_granted_is_what_the_store_is_told():
    told = []

    class Telling(MemoryStore):
        def put(self, key, token, *, profile=None, scope=None):
            told.append((profile, scope))
            super().put(key, token, profile=profile, scope=scope)

    with Server(granted(scope="r"), granted(scope=None), granted(scope=["odd"])) as server:
        for _ in range(3):
            Made(server.url(), store=Telling(), scope="r w").token()
    assert told == [(None, "r"), (None, "r w"), (None, "r w")]


def test_a_fixed_exp_that_passes_while_waiting_does_not_hide_what_the_server_said():
    with Server(reply(status=503, headers={"Retry-After": "3"})) as server:
        made = Made(server.url(), begins=1_800_000_000, exp="@1800000002")
        with pytest.raises(NetworkError, match="answered 503") as caught:
            made.token()
    assert "it could not be asked again: refused by the rule exp-not-later-than-now" in caught.value.hint
    assert len(server.requests) == 1
