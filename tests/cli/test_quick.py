"""The cache hit on the quick road: byte for byte what the longer one prints, and what is left for it."""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli.roads import LONG, Configs, Home, counting, profile
from servers.granting import MARK, granted
from servers.scripted import Ca, Server, tunnel

import hsmjwt
from hsmjwt.cli import quick as quick_file
from hsmjwt.cli.output import unwritable

HUGE = "h" * 48000  # fits into a note, and into no pipe of one page
NAMES = {  # profiles, with their name as HSMJWT_EXEC holds it; those without are left to the longer road
    "a b": "a%20b",
    "two\nlines": "two%0Alines",
    "æøå": "%C3%A6%C3%B8%C3%A5",
    "..": "..",
    "a/b": "a/b",
    "%41:x": "%2541:x",
    "n" * 100: "n" * 100,
    "m" * 101: None,
    "l" * 200: None,
}
ODD = [*NAMES, "-x", "-", "--"]
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
OPEN = """
import os, stat, sys
kinds = {}
for number in range(64):
    try:
        kinds[number] = stat.S_IFMT(os.fstat(number).st_mode)
    except OSError:
        pass
with open(sys.argv[1], "w") as file:
    print(kinds, file=file)
"""


@pytest.fixture(scope="module")
def server():
    with Server(counting()) as started:
        yield started


@pytest.fixture(scope="module")
def huge():
    with Server(granted(HUGE)) as started:
        yield started


@pytest.fixture(scope="module")
def configs(server, huge, tmp_path_factory):
    url = server.url()
    plain = 'default_profile = "p"\n' + profile("p", url) + profile("q", url, issuer="j")
    quoted = [json.dumps(name, ensure_ascii=False) for name in ODD]
    return Configs(
        tmp_path_factory.mktemp("configs"),
        plain=(plain, 40),
        odd=("".join(profile(name, url, issuer=f"i{number}") for number, name in enumerate(quoted)), 12),
        huge=(profile("p", huge.url()), 3),
        none=('cache = "none"\n' + plain, 1),
        keytable=(
            plain + "[keys.k]\n"
            'uri = "pkcs11:token=t1;object=k1"\npin_source = "fd:7"\n' + profile("f", url, 'key = "k"'),
            1,
        ),
        client=(plain + profile("f", url, 'client_secret_source = "fd:7"', 'client_id = "c"'), 1),
        env=(profile("p", url, 'client_secret_source = "env:HSMJWT_MY_SECRET"', 'client_id = "c"'), 1),
    )


@pytest.fixture
def home(token, configs):
    return Home(token, configs.take("plain"))


def both(home: Home, *args: str, **more: object) -> tuple:
    """Run a call by the quick road and by the longer one, and return what each said."""
    hot, long = home(*args, **more), home(*args, first=LONG, **more)
    assert (hot.road, long.road) == ("quick", "plain")
    return hot.said, long.said


@pytest.mark.parametrize("words", [(), ("p",), ("q",)], ids=["none", "p", "q"])
def test_token_header_and_exec_print_the_same_by_both_roads(home, server, words):
    value = home.warm(*words)
    asked = len(server.requests)
    assert both(home, "token", *words) == ((0, f"{value}\n", ""),) * 2
    assert both(home, "header", *words) == ((0, f"Authorization: Bearer {value}\n", ""),) * 2
    hot, long = both(home, "exec", *words, "--", sys.executable, "-c", SHOW)
    assert hot == long
    environ = json.loads(hot[1])
    assert (environ["ACCESS_TOKEN"], environ["HSMJWT_EXEC"]) == (value, f"{words[0] if words else 'p'}:ACCESS_TOKEN")
    assert environ.keys() >= home.environ.keys() - {"HSMJWT_PIN_SOURCE"}
    assert len(server.requests) == asked


@pytest.mark.parametrize("verb", ["token", "header", "exec"])
def test_a_longer_call_of_each_verb_leaves_the_note_for_all(home, verb):
    done = home(verb, "p", *(["--", "printenv", "ACCESS_TOKEN"] if verb == "exec" else []))
    assert (done.code, done.road) == (0, "plain")
    for other in ("token", "header"):
        again = home(other, "p")
        assert again.road == "quick"
        assert again.out.split()[-1] == done.out.split()[-1]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]))
def test_any_name_of_a_profile(token, configs, name):
    home = Home(token, configs.take("odd"))
    first = home("token", name)
    assert first.code == 0, first.err
    again = home("token", name)
    assert again.said == first.said
    assert again.road == ("plain" if NAMES[name] is None else "quick")
    show = ("exec", name, "--", "printenv", "HSMJWT_EXEC")
    label = f"{NAMES[name] or name}:ACCESS_TOKEN\n"
    assert home(*show).said == home(*show, first=LONG).said == (0, label, "")
    assert all(len(path.name) < 220 and re.fullmatch("quick-[0-9a-f]+", path.name) for path in home.notes())


def test_a_name_like_a_flag_or_none_at_all_is_never_served_as_a_profile(token, configs):
    home = Home(token, configs.take("odd"))
    for name in ("-x", "--", "-", ""):
        one, other = home("token", name), home("token", name, first=LONG)
        assert one.said == other.said
        assert one.road != "quick"
        assert (one.code == 0) is (name == "-")
    assert [path.name for path in home.notes()] == []


def test_a_name_that_is_no_text_says_the_same(home):
    home.warm()
    command, environ = home.command("token")
    for first in ("", LONG):
        command[2] = home.command(first=first)[0][2]
        done = subprocess.run([*command, b"\xff\xfe"], env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"no profile '\\udcff\\udcfe'" in done.stderr


@pytest.mark.parametrize(
    "redirect", ["", ">&-", "2>&-", "<&-", ">/dev/full", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"]
)
def test_streams_that_are_closed_or_full_are_the_same_by_both_roads(home, redirect):
    home.warm()
    for verb in ("token", "header"):
        hot, long = home(verb, redirect=redirect), home(verb, first=LONG, redirect=redirect)
        assert hot.said == long.said
        assert hot.code == (3 if {">&-", ">/dev/full"} & set(redirect.split()) else 0)
    told = home.token.folder / "told"
    seen = []
    for first in ("", LONG):
        done = home("exec", "--", sys.executable, "-c", OPEN, str(told), redirect=redirect, first=first)
        seen.append((done.said, told.read_text()))
    assert seen[0] == seen[1]
    closed = {number for number, text in enumerate(("<&-", ">&-", "2>&-")) if text in redirect.split()}
    assert set(ast.literal_eval(seen[0][1])) == {0, 1, 2} - closed


def test_a_closed_pipe_ends_quietly(home):
    home.warm()
    for first in ("", LONG):
        for verb in ("token", "header"):
            command, environ = home.command(verb, first=first)
            read, write = os.pipe()
            os.close(read)
            done = subprocess.run(command, env=environ, stdout=write, stderr=-1, check=False)
            os.close(write)
            assert (done.returncode, done.stderr) == (141, b"")
            assert ("hsmjwt.cli.gate" in home.loaded()) is bool(first)


def test_a_disk_that_fills_up_within_the_token_is_an_error_and_no_second_try(token, configs):
    home = Home(token, configs.take("huge"))
    home.warm("p")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))"
    told = []
    for first in (limit, f"{limit}\n{LONG}"):
        with open(token.folder / "out", "wb") as out:
            command, environ = home.command("token", "p", first=first)
            done = subprocess.run(command, env=environ, stdout=out, stderr=-1, check=False)
        home.loaded()
        told.append((done.returncode, done.stderr.decode()))
        assert (token.folder / "out").read_text() == HUGE[:4096]
    assert told[0] == told[1]
    error = unwritable(OSError(errno.EFBIG, os.strerror(errno.EFBIG)))
    assert told[0] == (3, f"hsmjwt: error: {error.message}\nhsmjwt: hint: {error.hint}\n")


def test_a_pipe_that_takes_a_part_and_is_read_later_never_holds_a_part_and_the_whole(token, configs):
    home = Home(token, configs.take("huge"))
    home.warm("p")
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    command, environ = home.command("token", "p")
    got = bytearray()

    def reader() -> None:
        while not got or done.poll() is None:
            time.sleep(0.02)
            with contextlib.suppress(BlockingIOError):
                got.extend(os.read(read, 1 << 20))

    done = subprocess.Popen(command, env=environ, stdout=write, stderr=-1)
    os.set_blocking(read, False)
    thread = threading.Thread(target=reader)
    thread.start()
    err = done.stderr.read()
    done.wait(20)
    thread.join(20)
    os.close(read)
    os.close(write)
    assert (done.returncode, err.count(b"stdout cannot be written: resource temporarily unavailable")) == (3, 1)
    assert set(got) == {ord("h")}
    assert len(got) < len(HUGE)


def test_a_whole_note_of_a_token_comes_out_of_a_slow_pipe(token, configs):
    home = Home(token, configs.take("huge"))
    assert home.warm("p") == HUGE


def test_a_token_that_is_too_long_for_a_note_is_served_by_the_longer_road(token, tmp_path):
    value = "A" * 70000
    with Server(granted(value)) as server:
        configs = Configs(tmp_path / "c", long=(profile("p", server.url()), 1))
        home = Home(token, configs.take("long"))
        for _ in range(2):
            done = home("token", "p")
            assert (done.code, done.out, done.err, done.road) == (0, f"{value}\n", "", "plain")
        assert home("exec", "p", "--", "sh", "-c", 'printf %s "$ACCESS_TOKEN"').out == value
        assert len(server.requests) == 1


def test_at_a_terminal_exec_says_when_the_token_ends_by_both_roads(home):
    value = home.warm()
    for first in ("", LONG):
        command, environ = home.command("exec", "--", "printenv", "ACCESS_TOKEN", first=first)
        main, other = pty.openpty()
        done = subprocess.run(command, env=environ, stdout=-1, stderr=other, check=False)
        os.close(other)
        said = os.read(main, 1000).decode()
        os.close(main)
        assert (done.returncode, done.stdout.decode()) == (0, f"{value}\n")
        assert re.fullmatch(r"hsmjwt: ACCESS_TOKEN ends at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, in (59|60) min\r\n", said)
        assert ("hsmjwt.cli.gate" in home.loaded()) is bool(first)


@pytest.mark.parametrize(
    ("left", "words"),
    [(-5, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (1e6, "277 h")],
)
def test_the_life_that_is_left_is_said_in_the_unit_that_fits(left, words):
    assert (
        quick_file.ending("NAME", 1395327936.0, 1395327936.0 - left) == f"NAME ends at 2014-03-20T15:05:36Z, in {words}"
    )


# --- what is left


def test_a_note_is_ours_alone_and_holds_the_token_and_no_other_secret(token, configs):
    home = Home(token, configs.take("env"))
    home.environ["HSMJWT_MY_SECRET"] = "Cl13nt-S3cr3t-xyz"
    del home.environ["HSMJWT_PIN_SOURCE"]
    home.environ["HSMJWT_PIN"] = token.pin_file.read_text()
    value = home.warm("p")
    (note,) = home.notes()
    assert note.stat().st_mode & 0o7777 == 0o600
    text = note.read_text()
    assert value in text
    assert "Cl13nt-S3cr3t-xyz" not in text
    assert token.pin_file.read_text() not in text
    seen = json.loads(home("exec", "p", "--", sys.executable, "-c", SHOW).out)
    assert seen.keys() & {"HSMJWT_PIN", "HSMJWT_MY_SECRET"} == set()
    assert list(home.cache.glob("*.tmp")) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"HSMJWT_KEY": "pkcs11:token=t1;object=k1?pin-value=31415926"},
        {"HSMJWT_KEY": "pkcs11:token=t1;object=k1?pin_value=31415926"},
        {"HSMJWT_KEY": "pkcs11:token=t1;object=k1?PIN-VALUE=31415926"},
        {"HSMJWT_PIN_SOURCE": "command:printf 31415926"},
    ],
    ids=["pin-value", "a near miss", "another case", "a command's argument"],
)
def test_a_pin_in_a_variable_comes_into_no_note_and_to_no_command(home, environ):
    for _ in range(2):
        done = home("token", "p", **environ)
        assert (done.code, done.road) == (0, "plain"), done.err
    assert home.notes() == []
    assert "31415926" not in home("exec", "p", "--", "printenv", **environ).out


def test_a_pin_where_a_source_belongs_comes_into_no_note(token, home):
    """The key's own source comes first, so nobody reads the variable, and nobody says that it is wrong."""
    uri = f"pkcs11:token=t1;object=k1?pin-source={token.pin_file}"
    for _ in range(2):
        done = home("token", "p", HSMJWT_KEY=uri, HSMJWT_PIN_SOURCE="31415926")
        assert (done.code, done.road) == (0, "plain"), done.err
    assert home.notes() == []


@pytest.mark.parametrize("where", ["keytable", "client", "variable"])
def test_a_source_that_is_a_descriptor_leaves_no_note(token, configs, where):
    home = Home(token, configs.take("plain" if where == "variable" else where))
    if where == "variable":
        home.environ["HSMJWT_PIN_SOURCE"] = "fd:7"
    for _ in range(2):
        done = home("token", "p" if where == "variable" else "f", redirect=f"7<{token.pin_file}")
        assert (done.code, done.road) == (0, "plain"), done.err
    assert home.notes() == []


def test_without_a_cache_nothing_is_left(token, configs, server):
    home = Home(token, configs.take("none"))
    values = [home("token", "p").out for _ in range(2)]
    assert values[0] != values[1]
    assert home.notes() == []


def test_a_warning_that_is_due_once_a_day_is_given_by_whichever_road(token, tmp_path):
    ca = Ca(tmp_path)
    text = '[profiles.p]\nprovider = "adobe-analytics"\nclient_id = "c"\nsubject = "s@AdobeOrg"\n'
    configs = Configs(tmp_path / "c", retired=(f'{text}ca_file = "{ca.file}"\n', 1))
    home = Home(token, configs.take("retired"))
    reply = granted(expires_in=3 * 86400)
    with Server(reply, tls=ca.context("api.omniture.com")) as server, Server(tunnel(server.port)) as proxy:
        home.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{proxy.port}"

        def call(later: int = 0) -> tuple[str, int]:
            done = home("token", "p", first=f"import time; real = time.time; time.time = lambda: real() + {later}")
            assert (done.code, done.out) == (0, f"{MARK}\n"), done.err
            return done.road, done.err.count("Adobe retired this grant")

        assert [call(), call(), call()] == [("plain", 1), ("plain", 0), ("quick", 0)]
        assert call(86300) == ("quick", 0)
        assert call(86500) == ("plain", 1)
        assert len(server.requests) == 1


def test_every_variable_of_ours_is_told_to_a_note_or_left_out_for_a_reason():
    package = Path(hsmjwt.__file__).parent
    known = {name for path in package.rglob("*.py") for name in re.findall(r"\bHSMJWT_\w*[A-Z]", path.read_text())}
    untold = {"HSMJWT_PIN", "HSMJWT_EXEC", "HSMJWT_ANY_NAME"}  # a secret; no part of what a token is; an example
    assert known - untold == set(quick_file.TOLD)
