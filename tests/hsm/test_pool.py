"""Threads that sign: a session for each up to eight, one login and one search for all, and each loses its own."""

import json
import threading

import pytest

from hsmjwt.errors import BusyError, DeviceError, TokenError
from hsmjwt.hsm.pool import Place, Pool

ROADS = [None, "proxy"]  # the module itself, and python-pkcs11 by way of p11-kit

START = """
import collections, json, os, sys, threading, time, patched
from hsmjwt.jose.algorithms import by_default
from hsmjwt.verify import Verified

calls, failures, hooks = collections.Counter(), [], {}

def watch(*names):
    # Count the calls of functions, and go by way of hooks: NAME -> function of the real one and the arguments.
    for name in names:
        def make(before, name=name):
            def call(*args):
                calls[name] += 1
                return hooks[name](before, *args) if name in hooks else before(*args)
            return call
        patched.replace(name, make)

def together(amount, work):
    def run(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(repr(error))
    threads = [threading.Thread(target=run, args=(number,)) for number in range(amount)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(30)

def tell(*values):
    print(json.dumps([*values, failures]))
    sys.stdout.flush()
    os._exit(0)

watch("open", "close", "login", "findinit", "signinit", "sign")
os.environ["HSMJWT_MODULE"] = os.environ.get("ROAD", os.environ["HSMJWT_MODULE"])  # p11-kit calls what was patched
first = patched.signer()
signer, alg = Verified(first), by_default(first.public_key)
"""

# So many threads are inside C_SignInit at once, each on the session that it was given; further ones pass.
MEET = """
sessions, gate, left = set(), threading.Barrier(int(sys.argv[1])), iter(range(int(sys.argv[1])))
def meet(before, session, *args):
    sessions.add(session)
    if next(left, None) is not None:
        gate.wait(20)
    return before(session, *args)
hooks["signinit"] = meet
"""


@pytest.fixture
def threads(patched, request):
    """Run code after START; return what it told."""

    def run(code, *args, faults="-", road=None, **environ):
        if road is not None:
            environ["ROAD"], faults = request.getfixturevalue(road)
        done = patched(faults, "-c", START + code, *args, **environ)
        assert (done.code, done.err) == (0, ""), done
        return json.loads(done.out)

    return run


@pytest.mark.parametrize("road", ROADS)
def test_threads_have_a_session_each_and_the_ninth_shares_one(threads, road):
    code = (
        MEET
        + """
together(9, lambda number: signer.sign(b"%d" % number, alg))
tell(len(sessions), calls["open"], calls["login"], calls["findinit"], calls["close"])
"""
    )
    assert threads(code, "8", road=road) == [8, 8, 1, 1, 0, []]


def test_one_thread_uses_one_session(threads):
    code = """
for number in range(5): signer.sign(b"%d" % number, alg)
together(1, lambda number: signer.sign(b"in another thread", alg))
tell(calls["open"], calls["login"], calls["findinit"])
"""
    assert threads(code) == [1, 1, 1, []]


def test_who_looks_at_objects_meanwhile_does_so_in_a_session_of_their_own(threads):
    code = """
look = first._module.session(first._slot)
tell(look.handle == first._pool.place().session.handle, look is first._module.session(first._slot), calls["open"])
"""
    assert threads(code) == [False, True, 2, []]


SHARED = """
import json, os, sys, patched
from hsmjwt.hsm.uri import KeyUri
module, login = patched.opened()
slot = module.find_token(KeyUri())
take = {
    "log_in": lambda: module.log_in(slot, login),
    "login": lambda: module.login(slot, login),
    "session": lambda: module.session(slot),
    "pool": lambda: module.pool(slot).place().session,
}
taken = {name: take[name]() for name in sys.argv[1].split()}
signs = taken.pop("pool")
print(json.dumps([signs.handle in {each.handle for each in taken.values() if each is not None}]))
"""


@pytest.mark.parametrize(
    ("order", "opened"),
    [
        ("log_in pool", 1),
        ("login pool", 2),
        ("login session pool", 2),
        ("session login pool", 2),
        ("session log_in pool", 2),
        ("log_in session pool", 2),
        ("log_in pool session", 2),
        ("login pool session", 2),
        ("pool session log_in", 3),
    ],
)
def test_a_session_that_is_looked_with_never_signs_in_whatever_order_they_are_taken(patched, calls, order, opened):
    done = patched(f"open@{calls.file}", "-c", SHARED, order)
    assert (done.code, done.out, done.err) == (0, "[false]\n", "")
    assert len(calls()) == opened


def test_threads_that_come_and_go_open_no_more_sessions_than_sign_at_a_time(threads):
    code = """
for number in range(30): together(2, lambda number: signer.sign(b"%d" % number, alg))
tell(calls["open"] <= 2, calls["findinit"])
"""
    assert threads(code) == [True, 1, []]


@pytest.mark.parametrize("faults", ["init=0xA*1", "already"])
def test_a_module_that_is_not_shared_has_one_session_and_one_thread_in_it(threads, faults):
    code = """
inside, seen = [0], set()
def alone(before, *args):
    inside[0] += 1
    seen.add(inside[0])
    time.sleep(0.01)  # without the GIL
    result = before(*args)
    inside[0] -= 1
    return result
hooks["signinit"] = hooks["sign"] = alone
together(8, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(3)])
tell(calls["open"], sorted(seen))
"""
    assert threads(code, faults=faults) == [1, [1], []]


@pytest.mark.parametrize("code", ["0xb1", "0x201"])
def test_where_the_token_has_no_further_session_those_that_are_open_are_shared(threads, code):
    few = (
        MEET
        + """
hooks["open"] = lambda before, *args: before(*args) if calls["open"] <= 3 else int(sys.argv[2], 0)
together(8, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
tell(len(sessions), calls["open"])
"""
    )
    assert threads(few, "3", code) == [3, 4, []]


@pytest.mark.parametrize("code", ["0x31", "0x2", "0x6", "0x5", "0x30"])
def test_where_a_token_fails_to_open_a_further_session_those_that_are_open_are_shared(threads, code):
    failing = (
        MEET
        + """
hooks["open"] = lambda before, *args: before(*args) if calls["open"] <= 3 else int(sys.argv[2], 0)
together(8, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
tell(len(sessions), 4 <= calls["open"] < 20)
"""
    )
    assert threads(failing, "3", code) == [3, True, []]


@pytest.mark.parametrize("road", ROADS)
def test_a_session_that_is_lost_is_replaced_for_its_thread_alone(threads, road):
    code = (
        MEET
        + """
together(4, lambda number: signer.sign(b"%d" % number, alg))
opened, lost = calls["open"], sorted(sessions)[2]
hooks["signinit"] = lambda before, session, *args: 0xb3 if session == lost else before(session, *args)
together(4, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
together(4, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
tell(opened, calls["open"], calls["login"], calls["findinit"], calls["close"])
"""
    )
    assert threads(code, "4", road=road) == [4, 5, 1, 2, 0, []]


def test_a_session_that_one_key_lost_is_replaced_for_the_other_key_too(threads, token):
    token.make_key("k2", "02")
    code = """
from hsmjwt.hsm.signer import Pkcs11Signer
from hsmjwt.hsm.uri import parse
other = Verified(Pkcs11Signer(first._module, first._slot, parse("pkcs11:object=k2"), first._login, lambda _: None))
both = (signer, other)
for each in both: each.sign(b"x", alg)
lost = first._pool.place().session.handle
hooks["signinit"] = lambda before, session, *args: 0xb3 if session == lost else before(session, *args)
for each in both * 2: each.sign(b"x", alg)
tell(calls["open"], calls["login"], calls["findinit"])
"""
    assert threads(code) == [2, 1, 3, []]


def test_all_sessions_lost_at_once_are_replaced_by_as_many_and_the_key_is_searched_once(threads):
    code = (
        MEET
        + """
together(4, lambda number: signer.sign(b"%d" % number, alg))
lost, again = set(sessions), threading.Barrier(4)
def lose(before, session, *args):
    if session not in lost:
        return before(session, *args)
    again.wait(20)
    return 0xb3
hooks["signinit"] = lose
together(4, lambda number: signer.sign(b"%d" % number, alg))
together(4, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
tell(calls["open"], calls["login"], calls["findinit"])
"""
    )
    assert threads(code, "4") == [8, 1, 2, []]


def test_threads_that_are_logged_out_at_once_log_in_again_once(threads):
    code = (
        MEET
        + """
together(4, lambda number: signer.sign(b"%d" % number, alg))
inside, left = threading.Barrier(4, lambda: patched.real("logout")(min(sessions))), iter(range(4))
def log_out(before, *args):
    if next(left, None) is not None:
        inside.wait(20)
    return before(*args)
hooks["signinit"] = log_out
together(4, lambda number: signer.sign(b"%d" % number, alg))
together(4, lambda number: [signer.sign(b"%d" % number, alg) for _ in range(20)])
tell(calls["login"], calls["close"])
"""
    )
    assert threads(code, "4") == [2, 0, []]


def test_a_key_that_was_found_is_not_searched_again_by_another_signer(threads):
    code = """
from hsmjwt.hsm.signer import Pkcs11Signer
def another():
    return Verified(Pkcs11Signer(first._module, first._slot, first._uri, first._login, lambda _: None))
together(4, lambda number: another().sign(b"%d" % number, alg))
tell(calls["findinit"], calls["login"])
"""
    assert threads(code) == [1, 1, []]


def test_of_signers_that_begin_at_once_one_searches(threads):
    code = """
from hsmjwt.hsm.signer import Pkcs11Signer
first._pool.found.clear()
calls.clear()
gate = threading.Barrier(6)
def begin(number):
    gate.wait(20)
    Verified(Pkcs11Signer(first._module, first._slot, first._uri, first._login, lambda _: None)).sign(b"x", alg)
together(6, begin)
tell(calls["findinit"])
"""
    assert threads(code) == [1, []]


def test_a_key_that_is_gone_is_searched_again_by_the_next_signer(threads):
    code = """
from hsmjwt.errors import KeyNotFoundError
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.signer import Pkcs11Signer
from hsmjwt.hsm.uri import KeyUri
module, slot = first._module, first._slot
for key in search(module.session(slot, write=True), KeyUri(), slot.token):
    key.handle.destroy()
told = []
for attempt in (lambda: signer.sign(b"x", alg), lambda: Pkcs11Signer(module, slot, first._uri, first._login, print)):
    try:
        attempt()
    except KeyNotFoundError as error:
        told.append(error.message.partition(" on token")[0])
tell(told)
"""
    told = "no key fits 'pkcs11:token=t1;object=k1;type=private'"
    assert threads(code) == [[told, told], []]


def test_eight_threads_sign_for_seconds_with_two_keys_and_every_signature_verifies(threads, patched):
    made = patched("-", "key", "generate", "--key", "pkcs11:token=t1", "--type", "p256", "--label", "curve")
    assert made.code == 0, made.err
    code = """
from hsmjwt.hsm.signer import Pkcs11Signer
from hsmjwt.hsm.uri import parse
curve = Pkcs11Signer(first._module, first._slot, parse("pkcs11:object=curve"), first._login, lambda _: None)
signers, made = [(signer, alg), (Verified(curve), by_default(curve.public_key))], []
def work(number):
    (mine, by), end, count = signers[number % 2], time.monotonic() + 3, 0
    while time.monotonic() < end:
        mine.sign(b"%d %d" % (number, count), by)
        count += 1
    made.append(count)
together(8, work)
tell(len(made), min(made) > 0, calls["open"] <= 8, calls["login"], calls["close"])
"""
    assert threads(code) == [8, True, True, 1, 0, []]


def held(pool, amount):
    """Take the turns of so many places."""
    places = []
    for _ in range(amount):
        places.append(pool.place())
        assert places[-1].turn.acquire(blocking=False)
    return places


def test_a_place_is_opened_where_all_are_taken_and_shared_in_turn_at_the_limit():
    sessions = iter("bcdefgh")
    pool = Pool(Place("a", threading.Lock()), 3, lambda: next(sessions))
    assert [place.session for place in held(pool, 3)] == ["a", "b", "c"]
    assert [pool.place().session for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    assert next(sessions) == "d"


def test_a_place_whose_turn_is_over_comes_first():
    pool = Pool(Place("a", threading.Lock()), 2, lambda: "b")
    first, second = held(pool, 2)
    second.turn.release()
    assert pool.place() is second
    first.turn.release()
    assert pool.place() is first


def answering(*answers):
    """Open a session each time, or fail to."""
    left = iter(answers)

    def another():
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return another


def test_that_the_token_is_gone_is_told_and_the_next_thread_tries_again():
    pool = Pool(Place("a", threading.Lock()), 2, answering(TokenError("gone"), "b"))
    held(pool, 1)
    with pytest.raises(TokenError):
        pool.place()
    assert pool.place().session == "b"


def test_after_a_failure_to_open_the_places_are_shared_and_later_one_more_is_opened():
    pool = Pool(Place("a", threading.Lock()), 2, answering(DeviceError("failed"), "b"), pause=0)
    held(pool, 1)
    assert [pool.place().session for _ in range(2)] == ["a", "b"]


def test_a_token_that_failed_to_open_a_session_is_not_asked_again_at_once():
    pool = Pool(Place("a", threading.Lock()), 2, answering(DeviceError("failed"), "b"), pause=60)
    held(pool, 1)
    assert [pool.place().session for _ in range(20)] == ["a"] * 20


def test_a_token_that_has_no_session_left_is_not_asked_again():
    asked = []

    def another():
        asked.append(1)
        raise BusyError("none left")

    pool = Pool(Place("a", threading.Lock()), 8, another)
    held(pool, 1)
    assert [pool.place().session for _ in range(3)] == ["a"] * 3
    assert asked == [1]
