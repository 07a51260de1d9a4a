"""Secrets that arrive on a pipe: a descriptor that a shell opened, a program's first line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hsmjwt import deadline as deadlines
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError, HsmjwtError
from hsmjwt.secret import SecretSource, parse_source, resolve

PIN = "S3cr3tPin-7461"  # a marker: no message may hold it
PATH = {"PATH": "/usr/bin:/bin"}


def text_of(source: str | SecretSource, **options) -> str:
    settings = {"purpose": "PIN", "question": "PIN: ", "prompt": None, "environ": PATH, "deadline": Deadline(20)}
    parsed = parse_source(source) if isinstance(source, str) else source
    return resolve(parsed, **(settings | options)).secret.reveal()


def refusal(source: str | SecretSource, error: type[HsmjwtError] = ConfigError, **options) -> HsmjwtError:
    with pytest.raises(error) as caught:
        text_of(source, **options)
    assert PIN not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    return caught.value


# --- file descriptors


def pipe_with(content: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


def test_a_descriptor_is_read_to_its_end_and_stays_open():
    reader = pipe_with(f"{PIN}\n".encode())
    try:
        assert text_of(f"fd:{reader}") == PIN
        os.fstat(reader)
        assert "is empty" in refusal(f"fd:{reader}").message
    finally:
        os.close(reader)


def test_a_descriptor_may_be_a_file_or_be_written_slowly(tmp_path):
    path = tmp_path / "pin"
    path.write_text(PIN, encoding="utf-8")
    with path.open("rb") as file:
        assert text_of(f"fd:{file.fileno()}") == PIN
    reader, writer = os.pipe()

    def slowly():
        for byte in PIN.encode():
            os.write(writer, bytes([byte]))
            time.sleep(0.01)
        os.close(writer)

    threading.Thread(target=slowly).start()
    try:
        assert text_of(f"fd:{reader}", deadline=Deadline(None)) == PIN
    finally:
        os.close(reader)


def test_a_descriptor_that_says_too_much_is_refused():
    reader = pipe_with(b"x" * 5000)
    try:
        assert "longer than 300 bytes" in refusal(f"fd:{reader}", max_bytes=300).message
    finally:
        os.close(reader)


def test_a_silent_descriptor_ends_at_the_deadline():
    reader, writer = os.pipe()
    try:
        deadline = Deadline(0.2)
        deadline.enter("something else", ConfigError)
        error = refusal(f"fd:{reader}", BusyError, deadline=deadline)
        assert error.exit_code == 11
        assert f"the PIN source 'fd:{reader}'" in error.message
        assert (deadline.stage, deadline.error) == ("something else", ConfigError)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_descriptor_that_cannot_be_read_is_refused(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert "bad file descriptor" in refusal(f"fd:{reader}").message
        assert "bad file descriptor" in refusal(f"fd:{writer}").message
    finally:
        os.close(writer)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert "is a directory" in refusal(f"fd:{folder}").message
    finally:
        os.close(folder)


def test_a_terminal_as_a_descriptor_is_refused():
    ours, theirs = pty.openpty()
    try:
        error = refusal(f"fd:{theirs}")
        assert "terminal" in error.message
        assert "prompt" in error.hint
    finally:
        os.close(ours)
        os.close(theirs)


# --- commands


@pytest.fixture
def script(tmp_path):
    """Give a function that writes a shell script and returns the source that runs it."""

    def write(body: str, arguments: str = "") -> str:
        path = tmp_path / "give pin"
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        return f"command:'{path}' {arguments}"

    return write


def test_a_command_gives_its_first_line(script):
    assert text_of(f"command:printf '%s' {PIN}") == PIN
    assert text_of(f"command:printf '%s\\r\\nuser: x\\n' {PIN}") == PIN
    assert text_of(script('printf \'%s|%s\' "$1" "$2"', "'a b' $HOME;")) == "a b|$HOME;"


def test_a_command_reads_nothing_and_sees_the_environment_given(script):
    source = script('cat; printf "%s %s" "$MARK" "${OTHER-unset}"')
    assert text_of(source, environ=PATH | {"MARK": "here"}) == "here unset"


def test_a_command_that_fails_is_named_without_its_arguments(tmp_path, script):
    error = refusal(script(f"echo {PIN}; exit 7", PIN))
    assert f"the program '{tmp_path}/give pin', which is to print the PIN, ended with exit code 7" in error.message
    assert error.exit_code == 3
    assert "ended with signal 9" in refusal(script(f"echo {PIN}; kill -9 $$", PIN)).message
    assert "is empty" in refusal(script("exit 0", PIN)).message
    assert "is empty" in refusal(script(f"echo; echo {PIN}")).message


def test_a_command_that_cannot_be_started_is_refused(tmp_path):
    assert "no such file" in refusal(f"command:no-such-program-here {PIN}").message
    path = tmp_path / "pin"
    path.write_bytes(b"no program")
    path.chmod(0o600)
    assert "permission denied" in refusal(f"command:{path} {PIN}").message
    path.chmod(0o755)
    assert "exec format error" in refusal(f"command:{path} {PIN}").message


def test_a_command_that_never_stops_printing_is_stopped(script):
    error = refusal(script("exec yes"), deadline=Deadline(None))
    assert "prints more than 65536 bytes" in error.message


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def wait_for(path: Path) -> int:
    end = time.monotonic() + 10
    while not (path.exists() and path.read_text(encoding="utf-8").endswith("\n")):
        assert time.monotonic() < end
        time.sleep(0.01)
    return int(path.read_text(encoding="utf-8"))


def test_a_command_and_its_children_are_killed_at_the_deadline(tmp_path, script):
    source = script(f"sleep 100 & echo $! > {tmp_path}/child; echo {PIN}; wait")
    began = time.monotonic()
    error = refusal(source, BusyError, deadline=Deadline(0.5))
    assert time.monotonic() - began < 3
    assert "no answer from the PIN source 'command' within 0.5 s" in error.message
    assert gone(wait_for(tmp_path / "child"))


def test_a_command_is_killed_when_the_wait_for_it_is_given_up(tmp_path, script):
    source = script(f"echo $$ > {tmp_path}/pid; exec sleep 100")
    deadline = Deadline(20)
    ended = []

    def reading():
        try:
            ended.append(text_of(source, deadline=deadline))
        except Exception as error:  # noqa: BLE001 - by which error the abandoned thread ends is all one
            ended.append(error)

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    pid = wait_for(tmp_path / "pid")
    assert alive(pid)
    deadline.abandon()  # what the command line does on Ctrl-C
    assert gone(pid)
    thread.join(5)
    assert isinstance(ended[0], Exception)


def test_a_child_that_is_left_behind_does_not_hold_us(tmp_path, script):
    began = time.monotonic()
    assert text_of(script(f"sleep 100 & echo $! > {tmp_path}/child; echo {PIN}")) == PIN
    assert time.monotonic() - began < 5
    os.kill(wait_for(tmp_path / "child"), signal.SIGKILL)


def test_a_command_that_closes_its_output_is_waited_for(script):
    assert text_of(script(f"echo {PIN}; exec >&-; sleep 0.2")) == PIN
    assert "exit code 3" in refusal(script(f"echo {PIN}; exec >&-; sleep 0.2; exit 3")).message


def test_a_command_has_our_stderr_and_not_our_stdin():
    code = (
        "import os; from hsmjwt.secret import *; from hsmjwt.deadline import Deadline\n"
        "source = parse_source('command:sh -c \"cat; echo touch the key >&2; echo pin\"')\n"
        "print(resolve(source, purpose='PIN', question='', prompt=None, environ=os.environ,\n"
        "              deadline=Deadline(20)).secret.reveal())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="data\n", capture_output=True, text=True, check=True, env=environment())
    assert (done.stdout, done.stderr) == ("pin\n", "touch the key\n")


def environment() -> dict[str, str]:
    root = str(Path(deadlines.__file__).parent.parent)
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
