"""Secret sources, each as a person, systemd, Kubernetes or a shell would give it."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from hsmjwt import errors
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, HsmjwtError, LoginError, UsageError
from hsmjwt.secret import Resolved, Secret, SecretSource, parse_source, resolve

PIN = "S3cr3tPin-7461"  # a marker: no message may hold it
ROOT = os.geteuid() == 0
PATH = {"PATH": "/usr/bin:/bin"}


def read(source: str | SecretSource, **options) -> Resolved:
    settings = {"purpose": "PIN", "question": "PIN: ", "prompt": None, "environ": PATH, "deadline": Deadline(20)}
    parsed = parse_source(source) if isinstance(source, str) else source
    return resolve(parsed, **(settings | options))


def text_of(source: str | SecretSource, **options) -> str:
    return read(source, **options).secret.reveal()


def refusal(source: str | SecretSource, error: type[HsmjwtError] = ConfigError, **options) -> HsmjwtError:
    """Read a source that must be refused, and check what holds for every refusal."""
    with pytest.raises(error) as caught:
        read(source, **options)
    assert PIN not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    assert caught.value.message == caught.value.message.rstrip(".\n")
    return caught.value


def pin_file(folder: Path, content: bytes = PIN.encode(), mode: int = 0o600) -> Path:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


# --- Secret


def test_a_secret_shows_nowhere():
    secret = Secret(PIN)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>9}", f"{secret!r}", "%s %r" % (secret, secret)]  # noqa: UP031
    shown += [repr(Resolved(secret=secret)), repr([secret]), repr({"pin": secret})]
    assert PIN not in " ".join(shown)
    assert shown[0] == "***"
    assert secret.reveal() == PIN


@pytest.mark.parametrize("leak", [json.dumps, msgspec.json.encode, pickle.dumps, copy.copy, copy.deepcopy, hash])
def test_a_secret_is_not_serialised_copied_or_hashed_by_accident(leak):
    with pytest.raises(TypeError) as caught:
        leak(Secret(PIN))
    assert PIN not in str(caught.value)


def test_secrets_compare_by_value():
    assert Secret("é") == Secret("é")
    assert Secret("a") != Secret("b")
    assert Secret("\udc80") == Secret("\udc80")
    assert Secret("a") != "a"


# --- parsing


@pytest.mark.parametrize(
    ("text", "kind", "target", "noted"),
    [
        ("env:HSM_PIN", "env", "HSM_PIN", "env:HSM_PIN"),
        ("file:/etc/hsmjwt/pin", "file", "/etc/hsmjwt/pin", "file:/etc/hsmjwt/pin"),
        ("file:pin", "file", "pin", "file:pin"),
        ("file:a:b\n", "file", "a:b\n", r"file:a:b\n"),
        ("file:\udcff", "file", "\udcff", r"file:\udcff"),
        ("credential:hsm-pin", "credential", "hsm-pin", "credential:hsm-pin"),
        ("fd:0", "fd", "0", "fd:0"),
        ("fd:63", "fd", "63", "fd:63"),
        (f"command:echo {PIN}", "command", f"echo {PIN}", "command"),
        ("prompt", "prompt", "", "prompt"),
        ("none", "none", "", "none"),
    ],
)
def test_each_source_is_parsed_and_noted_without_reading_it(text, kind, target, noted):
    source = parse_source(text)
    assert (source.kind, source.target, source.noted) == (kind, target, noted)
    assert repr(source) == f"SecretSource({noted!r})"


def test_a_pin_value_is_noted_as_a_word():
    source = SecretSource(kind="value", target=PIN)
    assert source.noted == "pin-value"
    assert PIN not in repr(source)
    assert text_of(source) == PIN


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (PIN, "no known kind"),
        (f"{PIN}:x", "no known kind"),
        (f"value:{PIN}", "no known kind"),
        (f"ENV:{PIN}", "did you mean 'env:NAME'"),
        (f"flie:{PIN}", "did you mean 'file:PATH'"),
        ("promt", "did you mean 'prompt'"),
        ("/etc/pin", "did you mean 'file:PATH'"),
        ("~/pin", "did you mean 'file:PATH'"),
        (f"prompt:{PIN}", "takes nothing after it"),
        (f"none:{PIN}", "takes nothing after it"),
        ("keyring:service/user", "'keyring' is not supported by this version"),
        ("protected", "'protected' is not supported by this version"),
        ("env:", "nothing after its colon; it is written env:NAME"),
        ("file:", "nothing after its colon; it is written file:PATH"),
        ("file:/a\0b", "NUL"),
        (f"env:7{PIN}", "not the name of an environment variable"),
        ("env:A=B", "not the name of an environment variable"),
        ("credential:a/b", "not a plain file name"),
        ("credential:..", "not a plain file name"),
        ("fd:x", "not the number"),
        ("fd:-1", "not the number"),
        ("fd:\u0663", "not the number"),
        ("fd:99999999999", "not the number"),
        ("fd:1", "an output"),
        ("fd:02", "an output"),
        ("command:", "nothing after its colon"),
        ("command:   ", "no command line"),
        (f"command:echo '{PIN}", "no command line"),
        (f"command:'' {PIN}", "no command line"),
    ],
)
def test_what_is_no_source_is_a_usage_error_that_shows_no_pin(text, says):
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    told = f"{caught.value.message}; {caught.value.hint}"
    assert says in told
    assert PIN not in told


def test_a_refused_source_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        parse_source("nothing-like-it")
    for form in ("env:NAME", "file:PATH", "credential:NAME", "fd:N", "command:PROGRAM", "prompt", "none"):
        assert form in caught.value.hint


# --- the value


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_line_ending_is_cut(tmp_path, end):
    assert text_of(f"file:{pin_file(tmp_path, PIN.encode() + end)}") == PIN
    assert text_of("env:P", environ={"P": PIN + end.decode()}) == PIN
    assert text_of(SecretSource(kind="value", target=PIN + end.decode())) == PIN


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\r\n", "is empty"),
        (PIN.encode() + b"\n\n", "line end inside"),
        (b"a\n" + PIN.encode(), "line end inside"),
        (PIN.encode() + b"\r", "carriage return"),
        (PIN.encode() + b"\r\r\n", "carriage return"),
        (PIN.encode() + b"\0", "NUL"),
        (PIN.encode() + b"\xff", "not UTF-8"),
        (PIN.encode() + b"\xed\xa0\x80", "not UTF-8"),
        (b"\xef\xbb\xbf" + PIN.encode(), "byte order mark"),
        (PIN.encode("utf-16"), "not UTF-8"),
        (PIN.encode() + b"x" * 300, "longer than 300 bytes"),
        ("é".encode() * 151, "longer than 300 bytes"),
        (b"x" * 1_000_000, "longer than 300 bytes"),
    ],
)
def test_a_value_that_can_be_no_pin_is_refused_and_named(tmp_path, content, says):
    path = pin_file(tmp_path, content)
    error = refusal(f"file:{path}", max_bytes=300)
    assert error.exit_code == 3
    assert error.message.startswith(f"the PIN from 'file:{path}' ")
    assert says in error.message


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_longest_value_is_taken_whole(tmp_path, end):
    content = b"x" * 298 + "é".encode()
    assert text_of(f"file:{pin_file(tmp_path, content + end)}", max_bytes=300) == content.decode()
    assert text_of(f"command:cat {tmp_path}/pin", max_bytes=300) == content.decode()


def test_a_value_that_is_not_utf8_hangs_on_no_exception(tmp_path):
    error = refusal(f"file:{pin_file(tmp_path, PIN.encode() + bytes([255]))}")
    assert error.__cause__ is None
    assert error.__context__ is None


# --- environment


def test_a_variable_must_be_set_and_not_empty():
    assert text_of("env:HSM_PIN", environ={"HSM_PIN": PIN}) == PIN
    assert "'HSM_PIN', which is to hold the client secret, is not set" in (
        refusal("env:HSM_PIN", environ={}, purpose="client secret").message
    )
    assert "'HSM_PIN', which is to hold the PIN, is empty" in refusal("env:HSM_PIN", environ={"HSM_PIN": ""}).message


def test_a_variable_that_is_not_utf8_is_refused():
    for odd in ("\udcff", "\ud800", "\udc41"):
        assert "not UTF-8" in refusal("env:P", environ={"P": PIN + odd}).message


def test_the_bytes_of_a_variable_count_whatever_the_locale():
    code = (
        "import os, sys; from hsmjwt.secret import *; from hsmjwt.deadline import Deadline\n"
        "assert sys.getfilesystemencoding() == 'ascii'\n"
        "print(ascii(resolve(parse_source('env:P'), purpose='PIN', question='', prompt=None, environ=os.environ,\n"
        "                    deadline=Deadline(20)).secret.reveal()))"
    )
    packages = os.pathsep.join([str(Path(errors.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": packages, "P": "\xe9\u20ac"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert done.stdout == "'\\xe9\\u20ac'\n"


def test_none_is_an_empty_secret():
    assert text_of("none") == ""


# --- files


def test_a_file_gives_its_identity(tmp_path):
    path = pin_file(tmp_path)
    first = read(f"file:{path}").identity
    status = path.stat()
    assert first == (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    path.write_bytes(b"another")
    assert read(f"file:{path}").identity != first
    assert read("env:P", environ={"P": PIN}).identity is None


def test_a_relative_path_is_taken(tmp_path):
    path = os.path.relpath(pin_file(tmp_path))
    assert text_of(f"file:{path}") == PIN


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_file_of_our_own_is_read(tmp_path, mode):
    assert text_of(f"file:{pin_file(tmp_path, mode=mode)}") == PIN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o440])
def test_a_file_that_others_can_read_needs_a_word_for_it(tmp_path, mode):
    path = pin_file(tmp_path, mode=mode)
    error = refusal(f"file:{path}")
    assert f"is readable by others (mode {mode:04o})" in error.message
    assert f"chmod 600 {path}" in error.hint
    assert text_of(f"file:{path}", mounted=True) == PIN


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused_whatever_is_said(tmp_path, mode):
    path = pin_file(tmp_path, mode=mode)
    for options in ({}, {"mounted": True}, {"environ": {"CREDENTIALS_DIRECTORY": str(tmp_path)}}):
        assert f"is writable by others (mode {mode:04o})" in refusal(f"file:{path}", **options).message


def test_a_symlink_is_followed_and_what_it_reaches_is_judged(tmp_path):
    path = pin_file(tmp_path)  # as Kubernetes mounts them: pin -> ..data/pin, ..data -> ..2026
    (tmp_path / "link").symlink_to(path)
    assert text_of(f"file:{tmp_path}/link") == PIN
    path.chmod(0o644)
    assert "readable by others" in refusal(f"file:{tmp_path}/link").message
    (tmp_path / "link2").symlink_to(tmp_path / "nowhere")
    assert "no such file" in refusal(f"file:{tmp_path}/link2").message


@pytest.mark.skipif(not ROOT, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_refused(tmp_path):
    path = pin_file(tmp_path)
    os.chown(path, 54321, -1)
    assert "belongs to user 54321" in refusal(f"file:{path}", mounted=True).message


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    began = time.monotonic()
    error = refusal(f"file:{tmp_path}/fifo", deadline=Deadline(None))
    assert "not a regular file" in error.message
    assert "fd:N" in error.hint
    assert time.monotonic() - began < 1


def test_what_is_no_file_is_refused(tmp_path):
    assert "is a folder" in refusal(f"file:{tmp_path}").message
    assert "no such file" in refusal(f"file:{tmp_path}/absent").message
    assert "not a directory" in refusal(f"file:{pin_file(tmp_path)}/x").message
    assert "name too long" in refusal("file:" + "x" * 5000).message
    assert "no name can hold" in refusal("file:/\ud800").message
    assert "not a regular file" in refusal("file:/dev/null").message


def test_a_tilde_is_not_expanded_and_the_hint_says_so():
    assert "~ is not expanded" in refusal("file:~/no-such-pin").hint


def test_control_characters_of_a_path_are_escaped(tmp_path):
    error = refusal(f"file:{tmp_path}/a\x1b[31m\nb")
    assert "\x1b" not in error.message
    assert "\n" not in error.message
    assert r"a\x1b[31m\nb" in error.message


# --- credentials


def test_a_credential_may_be_readable_by_its_group(tmp_path):
    pin_file(tmp_path, mode=0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    resolved = read("credential:pin", environ=environ)
    assert resolved.secret.reveal() == PIN
    assert resolved.identity is not None
    assert text_of(f"file:{tmp_path}/pin", environ=environ) == PIN


def test_a_file_beside_the_credentials_folder_is_none_of_it(tmp_path):
    (tmp_path / "cred").mkdir()
    (tmp_path / "cred2").mkdir()
    path = pin_file(tmp_path / "cred2", mode=0o440)
    (tmp_path / "cred" / "pin").symlink_to(path)
    for folder in (f"{tmp_path}/cred", "/", os.path.relpath(tmp_path / "cred2"), ""):
        environ = {"CREDENTIALS_DIRECTORY": folder}
        assert "readable by others" in refusal(f"file:{path}", environ=environ).message
    inside = {"CREDENTIALS_DIRECTORY": f"{tmp_path}/cred"}
    assert "readable by others" in refusal(f"file:{tmp_path}/cred/pin", environ=inside).message


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}, {"CREDENTIALS_DIRECTORY": "rel"}])
def test_a_credential_without_its_folder_is_refused(environ):
    error = refusal("credential:hsm-pin", environ=environ)
    assert "CREDENTIALS_DIRECTORY is not set" in error.message
    assert "LoadCredential=hsm-pin" in error.hint


# --- prompt


def test_a_prompt_asks_while_the_clock_stands_still():
    deadline = Deadline(0.2)
    asked = []

    def prompt(question: str) -> str:
        asked.append((question, deadline.is_paused))
        time.sleep(0.4)
        return PIN

    assert text_of("prompt", prompt=prompt, question="PIN of 'cases': ", deadline=deadline) == PIN
    assert asked == [("PIN of 'cases': ", True)]
    assert not deadline.over()


def test_a_prompt_without_a_terminal_says_what_else_there_is():
    error = refusal("prompt", LoginError)
    assert error.exit_code == 5
    assert "no terminal" in error.message
    assert "env:NAME, file:PATH" in error.hint


def test_what_is_typed_is_judged_too():
    assert "is empty" in refusal("prompt", prompt=lambda question: "").message
    assert "not UTF-8" in refusal("prompt", prompt=lambda question: PIN + "\udcff").message
