"""The decision whether a PIN is sent: pure functions of the token's flags and the notes."""

import json
import os
import subprocess
import sys

import msgspec
import pytest

from hsmjwt.errors import BusyError, ConfigError, DeviceError, LoginError, TokenError
from hsmjwt.hsm.login import LoginFlags, LoginNotes, LoginRules, Note, decide_flags, decide_note, settled
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.secret import Resolved, Secret, parse_source

FINE = LoginFlags(True, True, False, False, False, False)
TOKEN = TokenInfo(label="t", serial="1", model="m", manufacturer="x")
FILE, ENV, PROMPT = parse_source("file:/pin"), parse_source("env:PIN"), parse_source("prompt")
IDENTITY = (1, 2, 3, 4, 5)


def flags(**changes):
    return msgspec.structs.replace(FINE, **changes)


def pin(text, identity=None):
    return Resolved(secret=Secret(text), identity=identity)


@pytest.fixture
def notes(tmp_path):
    return LoginNotes(str(tmp_path), TOKEN)


def refused(notes, source, presented, ckr="CKR_PIN_INCORRECT"):
    with pytest.raises(LoginError), notes.attempt(notes.read(), source, presented):
        raise LoginError("no", ckr=ckr)


def withheld(notes, source, presented, **rules):
    try:
        decide_note(notes.read(), source, presented, LoginRules(**rules))
    except LoginError:
        return True
    return False


@pytest.mark.parametrize("flag", ["locked", "to_be_changed", "final_try"])
def test_flags_that_forbid_a_login(flag):
    with pytest.raises(LoginError) as caught:
        decide_flags(flags(**{flag: True}), "t", LoginRules(retry_pin=True))
    assert caught.value.exit_code == 5


def test_a_token_without_a_user_pin_is_not_logged_in_to():
    with pytest.raises(LoginError, match="no user PIN"):
        decide_flags(flags(pin_initialized=False), "t", LoginRules())


def test_the_last_try_is_used_only_where_that_is_allowed():
    allowed = LoginRules(allow_last_try=True)
    assert "wrong PIN" in decide_flags(flags(final_try=True), "t", allowed)
    for worse in ({"locked": True}, {"to_be_changed": True}, {"pin_initialized": False}):
        with pytest.raises(LoginError):
            decide_flags(flags(final_try=True, **worse), "t", allowed)


def test_a_low_count_warns_and_goes_on():
    assert decide_flags(FINE, "t", LoginRules()) is None
    assert "the token 't' has seen a wrong PIN" in decide_flags(flags(count_low=True), "t", LoginRules())


def test_a_refused_file_is_known_until_the_file_changes(notes):
    refused(notes, FILE, pin("1111", IDENTITY))
    assert withheld(notes, FILE, pin("1111", IDENTITY))
    assert not withheld(notes, FILE, pin("1111", IDENTITY), retry_pin=True)
    for place in range(5):
        changed = tuple(value + (at == place) for at, value in enumerate(IDENTITY))
        assert not withheld(notes, FILE, pin("1111", changed))
    assert not withheld(notes, parse_source("file:/other"), pin("1111", IDENTITY))


def test_a_refused_variable_is_known_until_its_value_changes(notes):
    refused(notes, ENV, pin("1111"))
    assert withheld(notes, ENV, pin("1111"))
    others = [pin(f"{number:04}") for number in range(200)]
    assert sum(withheld(notes, ENV, other) for other in others) < 20  # one byte: of 256 one is taken for it
    assert not withheld(notes, parse_source("env:OTHER"), pin("1111"))


def test_several_sources_are_remembered_side_by_side(notes):
    refused(notes, ENV, pin("1111"))
    refused(notes, FILE, pin("2222", IDENTITY))
    assert withheld(notes, ENV, pin("1111"))
    assert withheld(notes, FILE, pin("2222", IDENTITY))
    for number in range(20):
        refused(notes, parse_source(f"env:PIN{number}"), pin("1111"))
    assert len(notes.read()) == 8


def test_a_login_that_works_removes_the_note(notes, tmp_path):
    refused(notes, ENV, pin("1111"))
    with notes.attempt(notes.read(), FILE, pin("2222", IDENTITY)):
        assert [note.outcome for note in notes.read()] == ["refused", "attempt"]
    assert os.listdir(tmp_path) == []


def test_nothing_is_noted_of_what_a_person_typed(notes, tmp_path):
    refused(notes, PROMPT, pin("1111"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ckr", ["CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_LOCKED"])
def test_answers_that_mean_this_pin_must_not_be_sent_again(notes, ckr):
    refused(notes, ENV, pin("1111"), ckr)
    assert withheld(notes, ENV, pin("1111"))


@pytest.mark.parametrize(
    "error",
    [
        LoginError("", ckr="CKR_USER_PIN_NOT_INITIALIZED"),
        LoginError("", ckr="CKR_PIN_EXPIRED"),
        BusyError("", ckr="CKR_SESSION_COUNT"),
        DeviceError("", ckr="CKR_MECHANISM_INVALID"),
    ],
)
def test_answers_for_which_no_try_was_lost_leave_the_notes_as_they_were(notes, error):
    refused(notes, ENV, pin("1111"))
    before = notes.read()
    with pytest.raises(type(error)), notes.attempt(before, FILE, pin("2222", IDENTITY)):
        raise error
    assert notes.read() == before


@pytest.mark.parametrize(
    "error",
    [DeviceError("", ckr="CKR_DEVICE_ERROR"), TokenError("", ckr="CKR_DEVICE_REMOVED"), DeviceError(""), OSError()],
)
def test_where_nobody_can_tell_the_attempt_stays_open_and_the_flags_decide(notes, error):
    with pytest.raises(type(error)), notes.attempt([], ENV, pin("1111")):
        raise error
    assert [note.outcome for note in notes.read()] == ["attempt"]
    assert settled(notes.read(), FINE) == []
    for lost in ("count_low", "final_try", "locked"):
        assert [note.outcome for note in settled(notes.read(), flags(**{lost: True}))] == ["refused"]


def test_a_refused_note_outlives_flags_that_are_clear(notes):
    refused(notes, ENV, pin("1111"))
    assert settled(notes.read(), FINE) == notes.read()


def test_the_file_tells_nobody_the_pin(notes, tmp_path):
    refused(notes, ENV, pin("7461-secret"))
    refused(notes, FILE, pin("8352-secret", IDENTITY))
    (name,) = os.listdir(tmp_path)
    assert os.stat(tmp_path / name).st_mode & 0o777 == 0o600
    text = (tmp_path / name).read_text()
    assert "secret" not in text
    of_env, of_file = msgspec.json.decode(text, type=list[Note])
    assert (len(of_env.salt), len(of_env.check), of_env.identity) == (16, 1, None)
    assert (of_file.salt, of_file.check, of_file.identity) == (b"", b"", IDENTITY)
    fields = {"source", "time", "outcome", "identity", "salt", "check"}
    assert all(set(row) <= fields for row in json.loads(text))


def test_what_cannot_be_written_down_of_a_source_is_its_word_alone(notes, tmp_path):
    for source in ("command:cat /run/pin-7461", "fd:7"):
        refused(notes, parse_source(source), pin("1111"))
    (name,) = os.listdir(tmp_path)
    assert "7461" not in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b'[{"source": 1}]',
        b'[{"source": "env:PIN", "time": 1, "outcome": "perhaps"}]',
        b'[{"source": "env:PIN", "time": 1, "outcome": "refused", "salt": "no base64!"}]',
        b'[{"source": "file:/p", "time": 1, "outcome": "refused", "identity": [1, 2]}]',
    ],
)
def test_a_note_that_makes_no_sense_is_not_passed_over(notes, tmp_path, content):
    refused(notes, ENV, pin("1111"))
    (name,) = os.listdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        notes.read()
    assert name in caught.value.message


def test_notes_are_kept_apart_by_token(tmp_path):
    one = LoginNotes(str(tmp_path), TOKEN)
    refused(one, ENV, pin("1111"))
    for field in ("serial", "model", "manufacturer"):
        other = LoginNotes(str(tmp_path), msgspec.structs.replace(TOKEN, **{field: "other"}))
        assert other.read() == []
    renamed = LoginNotes(str(tmp_path), msgspec.structs.replace(TOKEN, label="another name"))
    assert renamed.read() == one.read()


def test_the_rules_are_known_without_loading_pkcs11():
    code = "import sys, hsmjwt.hsm.login; print([name for name in sys.modules if name.startswith('pkcs11')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_folder_that_cannot_be_written_stops_the_login_before_it_is_made(tmp_path):
    sent = []
    with (
        pytest.raises(ConfigError, match="cannot be noted"),
        LoginNotes(str(tmp_path / "gone"), TOKEN).attempt([], ENV, pin("1111")),
    ):
        sent.append(1)
    assert sent == []


def test_where_a_refusal_cannot_be_noted_the_error_still_is_that_the_pin_was_refused(tmp_path):
    """As on a disk that another process has filled meanwhile; what was noted before stays."""
    folder, away = tmp_path / "state", tmp_path / "away"
    folder.mkdir()
    notes = LoginNotes(str(folder), TOKEN)

    def log_in():
        with notes.attempt([], ENV, pin("1111")):
            folder.rename(away)
            raise LoginError("wrong", ckr="CKR_PIN_INCORRECT")

    with pytest.raises(LoginError, match="wrong") as caught:
        log_in()
    assert (caught.value.exit_code, caught.value.ckr) == (5, "CKR_PIN_INCORRECT")
    assert caught.value.hint.startswith("correct the PIN source; the login cannot be noted in ")
    assert caught.value.hint.endswith(": no such file or directory")
    away.rename(folder)
    assert [note.outcome for note in notes.read()] == ["attempt"]
    assert settled(notes.read(), flags(count_low=True))[0].outcome == "refused"


def test_a_note_that_is_not_whole_is_not_left_behind(tmp_path):
    """A limit of no bytes a file is a full disk."""
    code = """
import resource, sys
from hsmjwt.errors import ConfigError
from hsmjwt.hsm.login import LoginNotes
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.secret import Resolved, Secret, parse_source
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
notes = LoginNotes(sys.argv[1], TokenInfo(label="t", serial="1", model="m", manufacturer="x"))
try:
    with notes.attempt([], parse_source("env:PIN"), Resolved(secret=Secret("1111"))):
        raise AssertionError("the login was made")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(": file too large\n")
    assert os.listdir(tmp_path) == []
