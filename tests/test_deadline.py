"""One deadline for a command, and calls that nothing can interrupt."""

import threading
import time

import pytest

from hsmjwt.deadline import Deadline, run
from hsmjwt.errors import BusyError, NetworkError


def test_what_the_call_returns_or_raises_comes_through():
    assert run(lambda: 7, Deadline(5)) == 7
    assert run(lambda: None, Deadline(None)) is None
    with pytest.raises(KeyError, match="x"):
        run(lambda: {}["x"], Deadline(5))
    with pytest.raises(SystemExit):
        run(lambda: (_ for _ in ()).throw(SystemExit(3)), Deadline(5))


def test_the_wait_ends_at_the_deadline_with_the_error_of_its_stage():
    deadline = Deadline(0.2)
    deadline.enter("the server", NetworkError)
    began = time.monotonic()
    with pytest.raises(NetworkError, match=r"no answer from the server within 0\.2 s"):
        run(lambda: time.sleep(30), deadline)
    assert time.monotonic() - began < 2
    with pytest.raises(NetworkError):
        deadline.check()


def test_a_stage_that_is_entered_during_the_call_is_the_one_that_is_named():
    deadline = Deadline(0.3)

    def call():
        deadline.enter("the second thing", BusyError)
        time.sleep(30)

    with pytest.raises(BusyError, match="the second thing"):
        run(call, deadline)


def test_a_deadline_that_is_over_before_the_call_does_not_wait():
    deadline = Deadline(0)
    assert deadline.over()
    with pytest.raises(BusyError):
        run(lambda: time.sleep(30), deadline)


def test_no_limit_never_ends():
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert not deadline.over()
    deadline.check()
    deadline.extend_to(0.0)
    assert deadline.over()


def test_another_length_counts_from_the_same_start():
    deadline = Deadline(100)
    time.sleep(0.1)
    deadline.extend_to(50)
    assert 49 < deadline.remaining() < 50
    assert deadline.seconds == 50


def test_the_clock_stands_still_while_a_person_types():
    deadline = Deadline(0.3)

    def call():
        with deadline.paused():
            assert deadline.is_paused
            time.sleep(0.6)
        return deadline.remaining()

    assert 0 < run(call, deadline) <= 0.3
    assert not deadline.is_paused


def test_a_clock_that_is_looked_at_while_it_starts_again_shows_a_number():
    deadline, wrong = Deadline(100), []
    ended = threading.Event()

    def look():
        while not ended.is_set():
            if not 90 < deadline.remaining() < 110:
                wrong.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(20000):
        with deadline.paused():
            pass
    ended.set()
    thread.join()
    assert wrong == []


def test_a_long_wait_is_noticed_once_and_a_paused_one_is_not():
    noticed = []
    deadline = Deadline(2.6)
    deadline.enter("the token")
    with pytest.raises(BusyError):
        run(lambda: time.sleep(30), deadline, noticed.append)
    assert noticed == ["the token"]


def test_what_is_to_be_cleared_up_is_when_the_process_ends_early_and_only_then():
    deadline, done = Deadline(5), []
    with deadline.on_abandon(lambda: done.append("first")):
        pass
    deadline.abandon()
    assert done == []

    def fails():
        raise OSError

    with (
        deadline.on_abandon(lambda: done.append("outer")),
        deadline.on_abandon(fails),
        deadline.on_abandon(lambda: done.append("inner")),
    ):
        deadline.abandon()
        deadline.abandon()
    assert done == ["inner", "outer"]
