"""The prompt: a question on the terminal itself, though stdin and stdout are pipes that carry data."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hsmjwt.jose.jws import split

ROOT = Path(__file__).resolve().parents[2]
PIN = "31415926"
SIGN = ("sign", "--iss", "i", "--aud", "a", "--pin-source", "prompt")


class AtTerminal:
    """A command whose controlling terminal is ours, with stdin, stdout and stderr apart from it."""

    def __init__(self, token, folder: Path, *args: str, stdin: bytes = b"", ignored: Sequence[int] = ()) -> None:
        self.folder = folder
        (folder / "in").write_bytes(stdin)
        self.main, self.other = os.openpty()
        environ = token.environ() | {"PYTHONPATH": str(ROOT)}
        self.pid = os.fork()
        if self.pid == 0:
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
            os.login_tty(os.dup(self.other))
            os.dup2(os.open(folder / "in", os.O_RDONLY), 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.execve(sys.executable, [sys.executable, "-m", "hsmjwt", *args], environ)
        self.shown = ""

    def asked(self, text: str = "PIN of token") -> None:
        """Wait for the question; nothing that is typed shows then."""
        ends = time.monotonic() + 20
        while text not in self.shown or not self.shown.endswith(": "):
            assert time.monotonic() < ends, self.shown
            if select.select([self.main], [], [], 0.2)[0]:
                self.shown += os.read(self.main, 1000).decode()
        assert not self.echoes()

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.other)[3] & termios.ECHO)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: its code, stdout and stderr. The terminal must echo again, and never have shown the PIN."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert self.echoes()
        while select.select([self.main], [], [], 0)[0]:
            self.shown += os.read(self.main, 1000).decode()
        os.close(self.main)
        os.close(self.other)
        assert PIN not in self.shown
        return code, (self.folder / "out").read_text(), (self.folder / "err").read_text()


def test_the_pin_is_asked_beside_claims_from_stdin(token, tmp_path):
    run = AtTerminal(token, tmp_path, *SIGN, "--claims-file", "-", stdin=b'{"x-from": "stdin", "n": 1}')
    run.asked()
    run.type(f"{PIN}\n")
    code, out, err = run.end()
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert split(out.strip()).claims["x-from"] == "stdin"
    assert run.shown.startswith("PIN of token 't1' (serial ")
    assert run.shown.endswith(": \r\n")


@pytest.mark.parametrize("how", ["typed", "SIGINT", "SIGTERM"])
def test_an_end_at_the_prompt_leaves_the_terminal_as_it_was(token, tmp_path, how):
    run = AtTerminal(token, tmp_path, *SIGN)
    run.asked()
    run.type("3141")
    if how == "typed":
        run.type("\x03")
    else:
        os.kill(run.pid, signal.Signals[how])
    code, out, err = run.end()
    wanted = (143, "terminated") if how == "SIGTERM" else (-signal.SIGINT, "interrupted")
    assert (code, err, out) == (wanted[0], f"hsmjwt: error: {wanted[1]}\n", "")


def test_a_person_may_type_longer_than_the_time_limit(token, tmp_path):
    run = AtTerminal(token, tmp_path, *SIGN, "--timeout", "1")
    run.asked()
    time.sleep(1.5)
    run.type(f"{PIN}\n")
    code, out, err = run.end()
    assert (code, err) == (0, ""), err
    assert out.startswith("eyJ")


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        ("\n", 3, "is empty"),
        ("\x04", 3, "is empty"),
        ("31415927\n", 5, "CKR_PIN_INCORRECT"),
        ("9" * 300 + "\n", 3, "longer"),
    ],
    ids=["nothing", "end of file", "a wrong one", "a long one"],
)
def test_what_is_no_pin_is_told_and_not_shown(token, tmp_path, typed, code, words):
    run = AtTerminal(token, tmp_path, *SIGN)
    run.asked()
    run.type(typed)
    ended, out, err = run.end()
    assert (ended, out) == (code, "")
    assert err.startswith("hsmjwt: error: ")
    assert words in err.splitlines()[0]
    assert "3141592" not in err


def test_a_label_drives_no_terminal(token, tmp_path):
    util = ["softhsm2-util", "--module", token.module, "--init-token", "--free", "--pin", PIN, "--so-pin", PIN]
    subprocess.run([*util, "--label", "a\x1b]0;x\x07"], env=token.environ(), check=True, capture_output=True)
    run = AtTerminal(token, tmp_path, *SIGN, "--key", "pkcs11:token=a%1B%5D0%3Bx%07;object=k1")
    run.asked()
    run.type("\x03")
    assert run.end()[0] == -signal.SIGINT
    assert "\x1b" not in run.shown
    assert "a\\x1b]0;x\\x07" in run.shown


def test_without_a_terminal_nobody_is_asked(hsmjwt, token):
    for environ in ({}, {"HSMJWT_PIN_SOURCE": None}):
        done = hsmjwt(*(SIGN if not environ else SIGN[:-2]), **environ)
        assert (done.code, done.out) == (5, "")
        assert "there is no terminal to ask for the PIN of token 't1'" in done.err
        assert "hsmjwt: hint: --pin-source" in done.err


def test_a_terminal_that_goes_away_is_no_bug(token, tmp_path):
    person = AtTerminal(token, tmp_path, *SIGN, ignored=(signal.SIGHUP,))
    person.asked()
    os.close(person.other)
    os.close(person.main)
    code = os.waitstatus_to_exitcode(os.waitpid(person.pid, 0)[1])
    assert code == 5
    assert "the terminal went away" in (tmp_path / "err").read_text()
