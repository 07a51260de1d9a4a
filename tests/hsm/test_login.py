"""Login without harm, on a real token: what is sent, how often, and what is kept of it."""

import os
import stat
import sys
import time

import pytest
from msgspec import json

from hsmjwt.hsm.login import Note, _check
from hsmjwt.secret import Resolved, Secret

SIGN = ("sign", "--iss", "i", "--aud", "a")
WRONG = "00000000"


@pytest.fixture
def logins(calls):
    """The C_Login calls so far; the fault that counts them is `logins.fault`."""

    def made():
        return calls().count("login 1")

    made.fault = f"login@{calls.file}"
    return made


def state(token):
    return token.folder / "home" / ".local" / "state" / "hsmjwt"


def notes(token):
    return sorted(state(token).glob("login-*.json"))


def write_pin(token, text):
    token.pin_file.write_text(text)


def another_pin(token):
    """A wrong PIN that the notes can tell from those they speak of: one byte of an HMAC is the same once in 256."""
    kept = [note for file in notes(token) for note in json.decode(file.read_bytes(), type=list[Note])]
    pins = (f"{number:08}" for number in range(1, 1000))
    return next(pin for pin in pins if all(note.check != _check(note.salt, pin_of(pin)) for note in kept))


def pin_of(text):
    return Resolved(secret=Secret(text))


def pin_is_wrong(done):
    assert (done.code, done.out) == (5, ""), done.err
    assert "the token refused the PIN (C_Login gave CKR_PIN_INCORRECT)" in done.err


def is_withheld(done):
    assert (done.code, done.out) == (5, ""), done.err
    assert "login withheld: the token refused this PIN before" in done.err


def test_a_wrong_pin_is_sent_once_and_not_again_until_something_changes(sign, token, logins):
    write_pin(token, WRONG)
    pin_is_wrong(sign(logins.fault))
    assert [stat.S_IMODE(os.stat(file).st_mode) for file in notes(token)] == [0o600]
    assert stat.S_IMODE(os.stat(state(token)).st_mode) == 0o700
    for _ in range(2):
        is_withheld(sign(logins.fault))
    assert logins() == 1
    pin_is_wrong(sign(logins.fault, "--retry-pin"))
    assert logins() == 2
    write_pin(token, "31415926")
    assert sign(logins.fault).code == 0
    assert logins() == 3
    assert notes(token) == []


def test_a_source_that_changes_its_value_or_gives_way_to_another_one_lifts_the_note(sign, token, logins):
    source = {"HSMJWT_PIN_SOURCE": "env:MY_PIN"}
    pin_is_wrong(sign(logins.fault, MY_PIN=WRONG, **source))
    is_withheld(sign(logins.fault, MY_PIN=WRONG, **source))
    other = another_pin(token)
    pin_is_wrong(sign(logins.fault, MY_PIN=other, **source))
    assert logins() == 2
    for pin in (WRONG, other):  # the second one does not make it forget the first
        is_withheld(sign(logins.fault, MY_PIN=pin, **source))
    assert sign(logins.fault).code == 0  # the file's
    assert notes(token) == []


def test_the_note_on_disk_holds_nothing_of_the_pin(sign, token):
    sign("-", HSMJWT_PIN_SOURCE="env:MY_PIN", MY_PIN="S3cr3tPin-7461")
    sign("-", HSMJWT_KEY=f"{token.uri}?pin-value=S3cr3tPin-7461", HSMJWT_PIN_SOURCE=None)
    sign("-", "--pin-source", "command:echo S3cr3tPin-7461")
    kept = "".join(file.read_text() for file in notes(token))
    assert "S3cr3t" not in kept
    assert '"pin-value"' in kept
    assert '"command"' in kept


def test_a_token_that_needs_no_login_gets_none(sign, token, calls):
    token.make_key("open", "07", PRIVATE=False)
    done = sign(f"nologin,login@{calls.file}", HSMJWT_KEY="pkcs11:object=open", HSMJWT_PIN_SOURCE="file:/nonexistent")
    assert done.code == 0, done.err
    assert calls() == []


def test_source_none_logs_in_nowhere(sign, token, calls):
    token.make_key("open", "07", PRIVATE=False)
    faults = f"login@{calls.file}"
    assert sign(faults, "--pin-source", "none", HSMJWT_KEY="pkcs11:object=open").code == 0
    hidden = sign(faults, "--pin-source", "none")
    assert (hidden.code, hidden.out) == (6, "")
    assert "only the public half" in hidden.err
    assert calls() == []


@pytest.mark.parametrize(
    ("flag", "said"),
    [("locked", "is locked"), ("change", "must be changed"), ("final", "one try is left"), ("nopin", "no user PIN")],
)
def test_flags_that_forbid_a_login_stop_it_before_the_pin_is_read(sign, calls, flag, said):
    done = sign(f"{flag},init@{calls.file},login@{calls.file}", "--pin-source", "file:/nonexistent")
    assert (done.code, done.out) == (5, "")
    assert said in done.err
    # A token without a user PIN may be a torn read of one that has it: it is looked at twice, after a fresh start.
    assert calls() == (["init", "init"] if flag == "nopin" else ["init"])


def test_the_last_try_is_used_where_that_is_allowed(sign, logins):
    done = sign(f"final,{logins.fault}", "--allow-last-try")
    assert done.code == 0, done.err
    assert logins() == 1


def test_a_flag_that_rises_while_the_pin_is_read_counts(sign, token, logins, tmp_path):
    """The wrong PIN of a colleague, between the first look and the second: the token says so afterwards."""
    colleague = (
        "import os, pkcs11; lib = pkcs11.lib(os.environ['HSMJWT_MODULE'])\n"
        "try: lib.get_token(token_label='t1').open(user_pin='00000000')\n"
        "except pkcs11.PinIncorrect: pass"
    )
    script = tmp_path / "ask.py"
    script.write_text(f"{colleague}\nprint(open({str(token.pin_file)!r}).read())\n")
    done = sign(logins.fault, "--pin-source", f"command:{sys.executable} {script}")
    assert done.code == 0, done.err
    assert "has seen a wrong PIN since the last login" in done.err
    assert logins() == 1


def test_a_low_count_warns_and_goes_on(sign, token, logins):
    pin_is_wrong(sign("-", HSMJWT_PIN_SOURCE="env:MY_PIN", MY_PIN=WRONG))
    done = sign(logins.fault)
    assert done.code == 0, done.err
    assert done.err.startswith("hsmjwt: warning: the token 't1' has seen a wrong PIN since the last login (few tries")
    assert sign("-").err == ""


def test_a_token_whose_pin_was_never_set_is_not_logged_in_to(patched, token, calls):
    code = """
import os
from hsmjwt.hsm import library
loaded = library.load(os.path.realpath(os.environ["HSMJWT_MODULE"]))
loaded.init_token(loaded.lib.get_slots()[-1].slot_id, "27182818", "fresh")
"""
    assert patched("-", "-c", code).code == 0
    done = patched(f"login@{calls.file}", *SIGN, HSMJWT_KEY="pkcs11:token=fresh;object=k1")
    assert (done.code, done.out) == (5, "")
    assert "token 'fresh' has no user PIN yet" in done.err
    assert calls() == []


@pytest.mark.parametrize(
    ("pin", "said"),
    [
        (b"", "is empty"),
        (b"1" * 256, "longer than the 255 bytes that the token takes"),
        (b"1" * 5000, "is longer than"),
        (b"31415926\n\n", "line end inside"),
        (b"3141\n5926", "line end inside"),
        (b"31415926\r", "carriage return"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"3141\x005926", "NUL"),
    ],
)
def test_what_can_be_no_pin_is_never_sent(sign, token, logins, pin, said):
    token.pin_file.write_bytes(pin)
    done = sign(logins.fault)
    assert (done.code, done.out) == (3, "")
    assert said in done.err
    assert "31415926" not in done.err
    assert logins() == 0
    assert notes(token) == []


def test_one_line_end_at_the_end_of_a_pin_is_cut(sign, token):
    for ending in ("\n", "\r\n"):
        write_pin(token, "31415926" + ending)
        assert sign().code == 0


def test_two_tokens_that_fit_are_both_left_alone(sign, token, calls):
    token.make_token("t2")
    done = sign(f"login@{calls.file}", HSMJWT_KEY="pkcs11:object=k1")
    assert (done.code, done.out) == (4, "")
    assert "2 tokens fit" in done.err
    assert calls() == []


def test_without_a_state_folder_nothing_logs_in_and_what_needs_none_works(sign, patched, hsmjwt, token, calls):
    for where, words in (("/dev/null/x", "cannot be made"), ("/proc/nowhere", "cannot be made")):
        done = sign(f"login@{calls.file}", XDG_STATE_HOME=where)
        assert (done.code, done.out) == (3, ""), done.err
        assert words in done.err
        assert "XDG_STATE_HOME" in done.err
    assert calls() == []
    assert hsmjwt("slot", "list", XDG_STATE_HOME="/dev/null/x").code == 0
    assert hsmjwt("key", "export", token.uri, XDG_STATE_HOME="/dev/null/x", HSMJWT_KEY=None).code == 0


def test_a_lock_or_a_note_that_cannot_be_used_stops_the_login(sign, token, calls):
    sign("-", HSMJWT_PIN_SOURCE="env:MY_PIN", MY_PIN=WRONG)
    (file,) = notes(token)
    file.write_text("no JSON")
    done = sign(f"login@{calls.file}")
    assert (done.code, done.out) == (3, "")
    assert f"the note of refused logins '{file}' cannot be read" in done.err
    (lock,) = state(token).glob("module-*.lock")
    lock.unlink()
    lock.mkdir()
    done = sign(f"login@{calls.file}")
    assert (done.code, done.out) == (3, "")
    assert "cannot be made" in done.err
    assert calls() == []


def test_a_token_that_is_logged_in_to_already_is_used_as_it_is_and_proves_no_pin(sign, token, calls):
    pin_is_wrong(sign("-", HSMJWT_PIN_SOURCE="env:MY_PIN", MY_PIN=WRONG))
    before = [file.read_bytes() for file in notes(token)]
    done = sign(f"login=0x100,login@{calls.file}")
    assert (done.code, done.out) == (6, "")  # nobody is logged in in truth, so the key is not shown
    assert "only the public half" in done.err
    assert calls() == ["login 1"]
    assert [file.read_bytes() for file in notes(token)] == before


def test_a_pin_value_in_a_uri_works_with_a_warning_and_is_shown_nowhere(sign, token):
    done = sign("-", "--verbose", HSMJWT_KEY=f"{token.uri}?pin-value=31415926", HSMJWT_PIN_SOURCE=None)
    assert done.code == 0, done.err
    assert "pin-value" in done.err
    assert "31415926" not in done.err


def test_the_time_a_login_takes_counts_and_the_lock_is_free_afterwards(sign):
    began = time.monotonic()
    assert sign("login~60", "--timeout", "1").code == 11
    assert sign().code == 0
    assert time.monotonic() - began < 15
