"""`hsmjwt exec` as a process: descriptors, streams, terminal, deadline, interruption, and what others can see of it."""

from __future__ import annotations

import ast
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.checks import refused
from cli.roads import LONG, Configs, Home, counting, profile
from servers.granting import MARK, granted
from servers.scripted import Server, json_reply, silent

roads = pytest.mark.parametrize("first", ["", LONG], ids=["quick", "plain"])
# Writes down which descriptors are open, and of what kind; for a file of its own, since stdout may be closed.
OPEN = """
import os, sys
found = {}
for number in range(100):
    try:
        os.fstat(number)
        found[number] = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        pass
with open(sys.argv[1], "w") as file:
    print(found, file=file)
"""
# A module that prints into our streams, and leaves descriptors open for every program that we might become.
RUDE = """
import ctypes, os
real = ctypes.CDLL(os.path.realpath(os.environ["HSMJWT_MODULE"]))
pointer = ctypes.POINTER(ctypes.c_void_p)()
real.C_GetFunctionList(ctypes.byref(pointer))
kind = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
initialize = kind(pointer[1])
def rude(args):
    for number in (1, 2):
        try:
            os.write(number, b"noise\\n")
        except OSError:
            pass
    for _ in range(5):
        os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
    return initialize(args)
callback = kind(rude)
pointer[1] = ctypes.cast(callback, ctypes.c_void_p).value
"""


@pytest.fixture(scope="module")
def server():
    with Server(counting()) as started:
        yield started


@pytest.fixture(scope="module")
def configs(server, tmp_path_factory):
    url = server.url()
    plain = 'default_profile = "p"\n' + profile("p", url) + profile("q", url, issuer="j")
    table = '[keys.k]\nuri = "pkcs11:token=t1;object=k1"\npin_source = "fd:7"\n'
    secret = ('key = "k"', 'client_id = "c"', 'client_secret_source = "fd:8"')
    return Configs(
        tmp_path_factory.mktemp("configs"), plain=(plain, 40), fd=(plain + table + profile("s", url, *secret), 4)
    )


@pytest.fixture
def home(token, configs):
    return Home(token, configs.take("plain"))


def handed_on(home: Home, *args: str, **more: str) -> dict[int, str]:
    """Return the descriptors that a command gets, and what they are of."""
    told = home.token.folder / "told"
    done = home("exec", *args, "--", sys.executable, "-c", OPEN, str(told), **more)
    assert done.code == 0, done
    found: dict[int, str] = ast.literal_eval(told.read_text())
    return found


# --- descriptors


@roads
def test_descriptors_of_the_caller_stay_and_there_are_no_others(home, first):
    home.warm()
    found = handed_on(home, first=first, redirect=f"5<{home.token.pin_file} 8>/dev/null")
    assert set(found) == {0, 1, 2, 5, 8}
    assert (found[5], found[8]) == (str(home.token.pin_file), "/dev/null")


@pytest.mark.parametrize("redirect", ["", ">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_none_that_a_module_has_opened_is_handed_on(home, redirect):
    found = handed_on(home, first=RUDE, redirect=f"{redirect} 5</dev/null")
    closed = {number for number, text in enumerate(("<&-", ">&-", "2>&-")) if text in redirect.split()}
    assert set(found) == {0, 1, 2, 5} - closed
    assert "/etc/passwd" not in found.values()


def test_descriptors_that_secrets_come_from_are_closed(token, configs):
    home = Home(token, configs.take("fd"))
    secret = token.folder / "secret"
    secret.write_text("s3cr3t")
    redirect = f"7<{token.pin_file} 8<{secret} 9<{secret}"
    for _ in range(2):  # from the server, and from the cache
        assert set(handed_on(home, "s", redirect=redirect)) == {0, 1, 2, 9}
    assert set(handed_on(home, "p", redirect=redirect)) == {0, 1, 2, 7, 8, 9}  # it uses neither
    both = handed_on(home, "--env", "A=s", "--env", "B=p", redirect=redirect)
    assert set(both) == {0, 1, 2, 9}
    for more in ({"HSMJWT_PIN_SOURCE": "fd:9"}, {}):
        args = () if more else ("--pin-source", "fd:9")
        assert set(handed_on(home, "p", *args, redirect=f"9<{token.pin_file}", **more)) == {0, 1, 2}


def test_where_the_pin_came_by_stdin_the_command_finds_an_empty_one(home):
    done = home(
        "exec",
        "--",
        "sh",
        "-c",
        'readlink /proc/self/fd/0; wc -c; echo "$ACCESS_TOKEN"',
        stdin=b"31415926\n",
        HSMJWT_PIN_SOURCE="fd:0",
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.split()[:2] == ["/dev/null", "0"]
    assert "31415926" not in done.out


@roads
def test_the_command_reads_the_callers_stdin_from_its_first_byte(home, first):
    home.warm()
    data = os.urandom(50_000).hex().encode()
    done = home("exec", "--", "cat", first=first, stdin=data)
    assert (done.code, done.out.encode(), done.err) == (0, data, "")


# --- streams


@pytest.mark.parametrize("verbose", [False, True])
def test_a_module_that_prints_does_not_reach_the_commands_streams(home, verbose):
    words = ("--verbose",) if verbose else ()
    done = home("exec", "p", *words, "--", "sh", "-c", "echo out; echo err >&2", first=RUDE)
    assert (done.code, done.out) == (0, "out\n")
    assert done.err.endswith("err\n")
    assert (done.err == "err\n") is not verbose
    assert ("noise" in done.err) is verbose


def test_what_hsmjwt_says_comes_before_what_the_command_says(home):
    done = home("exec", "p", "--verbose", "--", "sh", "-c", "echo first; echo second >&2", redirect="2>&1")
    assert done.out.endswith("\nfirst\nsecond\n")
    assert done.out.startswith("hsmjwt: ")


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        ((), ["ACCESS_TOKEN"]),
        (("p",), ["ACCESS_TOKEN"]),
        (("--env", "A=p", "--env", "B=q", "--env", "C"), ["A", "B", "C"]),
    ],
    ids=["none", "p", "several"],
)
def test_at_a_terminal_it_says_when_each_token_ends_and_in_a_pipe_nothing(home, args, lines):
    for terminal in (True, False):
        command, environ = home.command("exec", *args, "--", "sh", "-c", "echo theirs >&2")
        main, other = pty.openpty()
        done = subprocess.run(
            command, env=environ, stdin=other, stdout=-1, stderr=other if terminal else -1, check=False
        )
        os.close(other)
        said = os.read(main, 4000).decode().splitlines() if terminal else done.stderr.decode().splitlines()
        os.close(main)
        assert (done.returncode, done.stdout, said.pop()) == (0, b"", "theirs")
        assert [re.match(r"hsmjwt: (\w+) ends at \S+Z, in (?:59|60) min$", line)[1] for line in said] == (
            lines if terminal else []
        )


def test_of_a_life_that_is_unknown_nothing_is_said(home):
    answer = {"access_token": MARK, "token_type": "Bearer"}
    with Server(json_reply(answer)) as server:
        args = ("exec", "--iss", "i", "--token-url", server.url(), "--", "printenv", "ACCESS_TOKEN")
        command, environ = home.command(*args)
        main, other = pty.openpty()
        done = subprocess.run(command, env=environ, stdout=-1, stderr=other, check=False)
    os.set_blocking(main, False)
    with pytest.raises(BlockingIOError):
        os.read(main, 100)
    os.close(other)
    os.close(main)
    assert (done.returncode, done.stdout.decode()) == (0, f"{MARK}\n")


# --- time, interruption, errors


def test_the_time_limit_is_ours_and_not_the_commands(home):
    home.warm()
    assert home("exec", "--timeout", "1", "--", "sh", "-c", "sleep 1.3; echo done").said == (0, "done\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_the_exchange_starts_no_command(token, tmp_path, number):
    with Server(silent()) as server:
        path = tmp_path / "hsmjwt" / "config.toml"
        path.parent.mkdir()
        path.write_text(profile("p", server.url()))
        home = Home(token, path)
        command, environ = home.command("exec", "p", "--", "touch", str(tmp_path / "started"))
        running = subprocess.Popen(command, env=environ, stdout=-1, stderr=-1, text=True)
        end = time.monotonic() + 20
        while not server.requests:
            assert time.monotonic() < end
            time.sleep(0.02)
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
    expected = (-signal.SIGINT, "interrupted") if number == signal.SIGINT else (143, "terminated")
    assert (running.returncode, out, err) == (expected[0], "", f"hsmjwt: error: {expected[1]}\n")
    assert not (tmp_path / "started").exists()


def test_an_error_before_the_command_is_ours(home, server):
    started = home.token.folder / "started"
    touch = ("--", "touch", str(started))
    refused(home("exec", "no-such-profile", *touch), 3, "no profile 'no-such-profile'")
    refused(home("exec", "--env", "A=p", "--env", "B=no-such", *touch), 3, "no profile 'no-such'")
    refused(home("exec", "--key", "pkcs11:object=none", *touch), 6, "pkcs11:object=none")
    with Server(json_reply({"error": "invalid_grant"}, status=400)) as other:
        done = home("exec", "--iss", "i", "--token-url", other.url(), *touch)
        refused(done, 10, "invalid_grant")
    assert not started.exists()


# --- what others see


@roads
def test_the_token_stands_in_no_command_line(home, first):
    value = home.warm()
    code = """
import glob, os
found = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        continue
    found += [path] if os.environ["ACCESS_TOKEN"].encode() in text else []
print(os.environ["ACCESS_TOKEN"], found)
"""
    done = home("exec", "--", sys.executable, "-c", code, first=first)
    assert done.said == (0, f"{value} []\n", "")


@pytest.mark.parametrize("value", ["x'; touch PWNED1; echo '$(touch PWNED2)`touch PWNED3`", "a b", "a\nb", "ä", ""])
def test_a_token_that_is_none_reaches_no_command(home, value):
    with Server(granted(value)) as server:
        done = home("exec", "--no-cache", "--iss", "i", "--token-url", server.url(), "--", "printenv", "ACCESS_TOKEN")
    assert (done.code, done.out) == (10, "")
    assert not list(home.token.folder.glob("PWNED*"))


def test_a_token_full_of_what_shells_read_is_only_text(home):
    value = "x';touch${IFS}PWNED1;echo'$(touch${IFS}PWNED2)`touch${IFS}PWNED3`"
    with Server(granted(value)) as server:
        call = ("--iss", "i", "--token-url", server.url())
        assert home("exec", *call, "--", "printenv", "ACCESS_TOKEN").out == f"{value}\n"
        assert home("exec", *call, "--", "sh", "-c", 'echo "$ACCESS_TOKEN"').out == f"{value}\n"
    assert not list(Path(home.token.folder).glob("PWNED*"))
