"""A PIN that a person types on a terminal (a real pty): asked beside the pipes, sent once, never noted."""

import os
import pty
import select
import subprocess
import sys
import time

SIGN = ("-m", "hsmjwt", "sign", "--iss", "i", "--aud", "a", "--pin-source", "prompt")


ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Person:
    """Runs hsmjwt with a terminal of its own, which is not its stdin, and types what it asks for."""

    def __init__(self, token, *args):
        self._terminal, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, str(side), *SIGN, *args],
            env=token.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(side,),
        )
        os.close(side)
        self.seen = ""

    def reads(self, words):
        end = time.monotonic() + 20
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self._terminal], [], [], 0.2)[0]:
                self.seen += os.read(self._terminal, 1024).decode()

    def types(self, text):
        os.write(self._terminal, text.encode())

    def result(self):
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.decode(), err.decode()


def notes(token):
    return list((token.folder / "home" / ".local" / "state" / "hsmjwt").glob("login-*.json"))


def test_a_typed_pin_signs_and_is_shown_nowhere(token):
    person = Person(token)
    person.reads("PIN of token 't1' (serial ")
    person.types("31415926\n")
    code, out, err = person.result()
    assert (code, out.count("."), err) == (0, 2, "")
    assert "31415926" not in person.seen


def test_a_wrong_pin_that_was_typed_is_not_noted_and_the_person_is_asked_again(token):
    for pin, code in (("00000000\n", 5), ("00000000\n", 5), ("31415926\n", 0)):
        person = Person(token)
        person.reads("PIN of token 't1'")
        person.types(pin)
        ended, out, err = person.result()
        assert ended == code, err
        assert (out == "") == (code != 0)
        assert "login withheld" not in err
        assert notes(token) == []


def test_an_empty_answer_is_never_sent(token):
    person = Person(token)
    person.reads("PIN of token")
    person.types("\n")
    code, out, err = person.result()
    assert (code, out) == (3, "")
    assert "is empty" in err


def test_the_time_a_person_takes_does_not_count_and_holds_no_lock(token, hsmjwt):
    person = Person(token, "--timeout", "2")
    person.reads("PIN of token")
    time.sleep(2.5)
    assert hsmjwt("sign", "--iss", "i", "--aud", "a", "--timeout", "10").code == 0
    person.types("31415926\n")
    assert person.result()[0] == 0
