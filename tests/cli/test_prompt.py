"""The prompt: a question on the terminal itself, though stdin and stdout are pipes that carry data."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from cli.terminal import PIN, AtTerminal

from hsmjwt.jose.jws import split

SIGN = ("sign", "--iss", "i", "--aud", "a", "--pin-source", "prompt")


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
