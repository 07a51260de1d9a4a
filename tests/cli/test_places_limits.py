"""What a process may lack or have wrong: its clock, its folder, descriptors, threads, streams; who else is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.checks import refused
from cli.roads import SETTLED
from servers.granting import MARK, granted, write_config
from servers.scripted import Server

ROOT = Path(__file__).resolve().parents[2]
A_DAY = 86400  # seconds
URI = "pkcs11:token=t1;object=k1"
SIGN = ("sign", "p", "--aud", "a")


@pytest.fixture
def server():
    with Server(*(granted(f"{MARK}-{number}") for number in range(1, 9))) as started:
        yield started


@pytest.fixture
def at_home(person, server):
    """The user has a config with the profile `p`."""
    person.environ["HSMJWT_CONFIG"] = write_config(
        person.folder, f'[profiles.p]\nissuer = "i"\ntoken_url = "{server.url()}"\n'
    )
    person.give(Path(person.environ["HSMJWT_CONFIG"]))
    return person


# --- the clock


@pytest.mark.parametrize("noted", [False, True], ids=["token", "note"])
def test_a_clock_that_is_set_back_a_day_serves_no_token_from_the_future(at_home, server, noted):
    """Whether by the shortest road or by a longer one; and once the clock is right, none of the day before."""
    if noted:
        time.sleep(SETTLED)  # a younger config leaves no note
    back = [("clock", -A_DAY)]
    assert at_home("token", "p").out == f"{MARK}-1\n"
    assert (at_home.run / "hsmjwt" / "quick-70").exists() == noted
    for _ in range(2):
        done = at_home("token", "p", steps=back)
        assert (done.code, done.out, done.err) == (0, f"{MARK}-2\n", "")
    rows = json.loads(at_home("cache", "list", "--json").out)
    assert [row["fresh"] for row in rows] == [False]
    assert at_home("token", "p").out == f"{MARK}-3\n"
    assert at_home("cache", "clear", "--json", steps=back).out == '{"removed": 1}\n'
    assert len(server.requests) == 3


def test_a_clock_that_is_set_back_a_day_keeps_a_refused_pin_back_and_lets_a_right_one_in(at_home):
    wrong, back = {"HSMJWT_PIN_SOURCE": "env:WRONG", "WRONG": "1234567"}, [("clock", -A_DAY)]
    refused(at_home(*SIGN, **wrong), 5, "the token refused the PIN")
    for steps in (back, [], back):
        refused(at_home(*SIGN, steps=steps, **wrong), 5, "login withheld: the token refused this PIN before")
    done = at_home(*SIGN, steps=back)
    assert done.code == 0
    for name in at_home.home.rglob("module-*.lock"):
        os.utime(name, (time.time() + A_DAY,) * 2)
    assert at_home(*SIGN).err == ""


def test_a_clock_before_2020_signs_nothing_and_says_so(at_home):
    long_ago = [("clock", -30 * 365 * A_DAY)]
    for args in (SIGN, ("token", "p"), ("header", "p"), ("exec", "p", "--", "true"), ("token", "p", "--dry-run")):
        refused(at_home(*args, steps=long_ago), 3, "the system clock says 199", hint="timedatectl")
    rows = json.loads(at_home("doctor", "--json", steps=long_ago).out)
    assert [row["ok"] for row in rows if row["check"] == "clock"] == [False]
    for args in (("cache", "list"), ("cache", "clear"), ("slot", "list"), ("key", "list")):
        assert at_home(*args, steps=long_ago).code == 0


def test_a_warning_that_was_given_in_the_future_is_given_now(at_home):
    config = at_home.environ["HSMJWT_CONFIG"]
    lines = (
        'provider = "adobe-analytics"',
        'client_id = "c"',
        'subject = "s@AdobeOrg"',
        'proxy = "http://127.0.0.1:1"',
    )
    Path(config).write_text("\n".join(("[profiles.p]", *lines, "")))
    call = ("token", "p", "--timeout", "1")
    retired = "hsmjwt: warning: Adobe retired this grant"
    assert at_home(*call).err.count(retired) == 1
    (stamp,) = at_home.home.rglob("retired-*")
    for age, times in ((-A_DAY / 2, 1), (0, 0), (A_DAY + 1, 1)):
        os.utime(stamp, (time.time() - age,) * 2)
        assert at_home(*call).err.count(retired) == times, age
        assert abs(time.time() - stamp.stat().st_mtime) < 10


# --- the current folder


def test_a_current_folder_that_was_removed_hinders_nothing_that_has_a_whole_path(at_home, server):
    gone = [("gone", str(at_home.folder / "gone"))]
    for args in (
        *(SIGN, ("token", "p"), ("header", "p"), ("exec", "p", "--", "true"), ("key", "list"), ("slot", "list")),
        *(("cache", "list"), ("cache", "clear"), ("profile", "list"), ("profile", "check"), ("doctor",)),
        *(("softhsm", verb, "--dir", str(at_home.folder / "soft")) for verb in ("init", "env", "remove")),
        ("profile", "init", "generic", "--name", "new", "--iss", "i", "--token-url", server.url(), "--key", URI),
    ):
        done = at_home(*args, steps=gone)
        assert done.code == 0, (args, done)
        assert "warning" not in done.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("softhsm", "init"), 3, "the folder '.softhsm' cannot be found: the current folder is gone"),
        (("softhsm", "env"), 3, "the folder '.softhsm' cannot be found: the current folder is gone"),
        (("softhsm", "remove"), 3, "the folder '.softhsm' cannot be found: the current folder is gone"),
        (("slot", "list", "--module", "x.so"), 3, "the module path 'x.so' (--module) is relative"),
        ((*SIGN, "--config", "x.toml"), 3, "config file 'x.toml' is missing"),
        ((*SIGN, "--pin-source", "file:pin"), 3, "the PIN file 'pin' cannot be read: no such file"),
        ((*SIGN, "--claims-file", "c.json"), 2, "claims file 'c.json' cannot be read: no such file"),
        (("exec", "p", "--", "./x"), 127, "there is no command './x'"),
        (("profile", "init", "generic", "--name", "x", "--module", "x.so", "--key", URI), 3, "'x.so' (--module) is"),
        (("profile", "init", "generic", "--name", "x", "--config", "x.toml"), 3, "'x.toml' cannot be written: no such"),
        (("profile", "init", "generic", "--ca-file", "x.pem"), 3, "the CA file 'x.pem' cannot be found: the current"),
    ],
)
def test_in_a_current_folder_that_was_removed_a_relative_path_is_an_error(at_home, args, code, words):
    refused(at_home(*args, steps=[("gone", str(at_home.folder / "gone"))]), code, words)


# --- limits


def test_without_descriptors_the_system_is_named_and_not_the_token(at_home):
    """Four: the usual three, and one that may be had at a time."""
    for args in (SIGN, ("token", "p"), ("header", "p"), ("exec", "p", "--", "true"), ("key", "list"), ("slot", "list")):
        done = at_home(*args, steps=[("limit", "NOFILE", 4)])
        refused(done, 11, "no file can be opened any more", hint="ulimit -n")


@pytest.mark.parametrize("args", [SIGN, ("token", "p"), ("header", "p"), ("key", "list"), ("slot", "list")])
def test_few_descriptors_are_enough_or_the_system_is_named(at_home, args):
    """How many are few depends on the module; what is enough stays enough."""
    ends = [at_home(*args, steps=[("limit", "NOFILE", most)]) for most in range(5, 13)]
    short = [done for done in ends if done.code != 0]
    assert 0 < len(short) < len(ends)
    assert ends[: len(short)] == short
    for done in short:
        refused(done, 11, "no file can be opened any more", hint="ulimit -n")
    assert all(done.out and not done.err for done in ends[len(short) :])


def test_five_descriptors_are_enough_for_what_loads_no_module(at_home):
    five = [("limit", "NOFILE", 5)]
    for args in (("cache", "list"), ("cache", "clear"), ("profile", "list"), ("token", "p", "--dry-run")):
        assert at_home(*args, steps=five).code == 0


def test_without_a_thread_it_is_busy(at_home, server):
    limit = [("limit", "NPROC", 0)]  # which binds everybody but root
    for args in (SIGN, ("token", "p"), ("header", "p"), ("exec", "p", "--", "true"), ("key", "list"), ("slot", "list")):
        refused(at_home(*args, steps=limit), 11, "no thread can be started any more", hint="ulimit -u")
    for args in (("cache", "list"), ("cache", "clear"), ("token", "p", "--dry-run"), ("profile", "list")):
        assert at_home(*args, steps=limit).code == 0


def test_a_limit_of_no_bytes_a_file_is_a_full_disk(hsmjwt, token):
    """The limit counts for files of any kind; what is printed goes into a pipe."""
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "hsmjwt"]

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        environ = token.environ() | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([*limited, *args], env=environ, capture_output=True, text=True, check=False, cwd="/")

    done = run("sign", "--iss", "i", "--aud", "a")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be noted in" in done.stderr
    assert "file too large" in done.stderr
    assert not list(Path(token.environ()["HOME"]).rglob("login-*"))
    assert run("cache", "list").returncode == 0
    done = run("softhsm", "init", "--dir", str(token.folder / "soft"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "file too large" in done.stderr
    assert not (token.folder / "soft").exists()


@pytest.mark.parametrize("umask", [0, 0o777])
@pytest.mark.parametrize("folder", ["soft", "a/b/soft"])
def test_whatever_the_umask_a_soft_token_is_ours_alone_or_not_made(at_home, umask, folder):
    """SoftHSM's own files heed the umask, and it cannot go on where that keeps it out."""
    steps = [("mask", umask)]
    done = at_home("softhsm", "init", "--dir", folder, cwd=at_home.home, steps=steps)
    if umask == 0:
        assert done.code == 0
        assert {line.split()[0] for line in at_home.files()} == {"0600", "0700"}
        assert at_home("softhsm", "remove", "--dir", folder, cwd=at_home.home).code == 0
    else:
        refused(done, 7)
    assert not (at_home.home / folder).exists()


def test_without_proc_everything_works(at_home, mounts):
    covered = [("covered", "/proc")]
    for args in (SIGN, ("token", "p"), ("exec", "p", "--", "true"), ("key", "list"), ("doctor", "p")):
        done = at_home(*args, steps=covered)
        assert (done.code, done.err) == (0, ""), (args, done)


# --- streams and variables, of processes that start


class Start:
    """Starts hsmjwt by a shell."""

    def __init__(self, token, folder: Path, url: str) -> None:
        config = write_config(folder, f'[profiles."grün"]\nissuer = "i"\ntoken_url = "{url}"\n')
        self.environ = token.environ() | {"PYTHONPATH": str(ROOT), "HSMJWT_CONFIG": config}
        self.folder = folder

    def __call__(self, redirect: str, *args: str | bytes, **environ: str | None) -> tuple[int, bytes, bytes]:
        merged = {**self.environ, **environ}
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "hsmjwt", *args],
            env={name: value for name, value in merged.items() if value is not None},
            cwd=self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def start(token, tmp_path, server):
    return Start(token, tmp_path, server.url())


@pytest.mark.parametrize("redirect", ["<&-", "2>&-", "<&- 2>&-"])
def test_streams_that_are_closed_hinder_no_result(start, redirect):
    for args, out in (
        (("token", "grün"), f"{MARK}-1\n"),
        (("header", "grün"), f"Authorization: Bearer {MARK}-1\n"),
        (("exec", "grün", "--", "printenv", "ACCESS_TOKEN"), f"{MARK}-1\n"),
        (("cache", "clear", "--json"), '{"removed": 1}\n'),
    ):
        assert start(redirect, *args) == (0, out.encode(), b""), args


@pytest.mark.parametrize("redirect", [">&-", "<&- >&-", "<&- >&- 2>&-", ">/dev/full"])
def test_a_result_that_nobody_can_have_is_an_error_of_every_verb(start, redirect):
    assert start("", "token", "grün")[0] == 0
    for args in (
        *(("token", "grün"), ("header", "grün"), ("cache", "list"), ("slot", "list"), ("key", "list"), ("doctor",)),
        *(("profile", "list"), ("profile", "show", "grün"), ("provider", "list"), ("--version",), ("--help",)),
        ("cache", "clear", "--json"),
    ):
        code, out, err = start(redirect, *args)
        assert (code, out) == (3, b""), args
        assert ("2>" in redirect) or err.startswith(b"hsmjwt: error: stdout cannot be written: ")
    assert start(redirect, "exec", "grün", "--", "true")[0] == 0


@pytest.mark.parametrize(
    "environ", [{"LANG": None}, {"LC_ALL": "C"}, {"LC_ALL": "no_SUCH.place"}, {"TMPDIR": "/nowhere"}]
)
def test_without_a_locale_or_a_temporary_folder_all_is_as_usual(start, environ):
    assert start("", "token", "grün", **environ)[:2] == (0, f"{MARK}-1\n".encode())
    assert start("", "header", "grün", **environ)[1:] == (f"Authorization: Bearer {MARK}-1\n".encode(), b"")
    assert (
        start("", "profile", "list", **{**environ, "PYTHONUTF8": "1"})[1].decode().splitlines()[1].startswith("grün ")
    )
    assert start("", "softhsm", "init", **environ)[0] == 0


def test_in_a_locale_of_another_charset_names_are_what_was_typed(start, token, tmp_path):
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    latin = {"LC_ALL": "en_US.ISO-8859-1", "LOCPATH": str(tmp_path), "PYTHONUTF8": "0"}
    told = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    if not made or subprocess.run(told, env=latin, capture_output=True, check=True).stdout != b"iso8859-1\n":
        pytest.skip("localedef has no sources of locales here")
    name = "grün".encode("latin-1")
    for _ in range(2):
        assert start("", "token", name, **latin) == (0, f"{MARK}-1\n".encode(), b"")
    shown = start("", "exec", name, "--", "printenv", "HSMJWT_EXEC", **latin)
    assert shown == (0, b"gr%C3%BCn:ACCESS_TOKEN\n", b"")
    assert name in start("", "cache", "list", **latin)[1]
    assert name in start("", "profile", "list", **latin)[1]
    code, _, err = start("", "token", "grün", **latin)  # in UTF-8, as nobody types it there
    assert code == 3
    assert b"Traceback" not in err
    token.make_key("æ")
    assert b"\xe6" in start("", "key", "list", **latin)[1]


@pytest.mark.parametrize("path", ["", None, "/nowhere"])
def test_with_no_path_commands_have_whole_names(start, path):
    assert start("", "exec", "grün", "--", "/usr/bin/printenv", "ACCESS_TOKEN", PATH=path)[1:] == (
        f"{MARK}-1\n".encode(),
        b"",
    )
    assert start("", "sign", "grün", "--aud", "a", PATH=path)[0] == 0
    if path is None:
        return  # the system has a path of its own
    code, out, err = start("", "exec", "grün", "--", "true", PATH=path)
    assert (code, out) == (127, b"")
    assert err.startswith(b"hsmjwt: error: there is no command 'true'\n")
    code, _, err = start("", "sign", "grün", "--aud", "a", "--pin-source", "command:cat pin", PATH=path)
    assert code == 3
    assert b"the program 'cat'" in err


# --- who else is there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_the_note_of_another_user_serves_nobody_who_has_his_variables(at_home, server):
    """As after su and sudo: a config that both may read, and the runtime folder of the one before."""
    os.chown(at_home.environ["HSMJWT_CONFIG"], 0, 0)
    os.chmod(at_home.environ["HSMJWT_CONFIG"], 0o644)
    homes = {}
    for uid in (0, at_home.uid + 1):
        homes[uid] = at_home.folder / f"home-{uid}"
        homes[uid].mkdir(mode=0o700)
        os.chown(homes[uid], uid, uid)
    time.sleep(SETTLED)  # a younger config leaves no note
    assert at_home("token", "p").out == f"{MARK}-1\n"
    theirs = at_home.files()
    assert "0600 run/hsmjwt/quick-70" in theirs
    at_home.folder.chmod(0o755)
    for number, (uid, home) in enumerate(homes.items(), 2):
        pin = home / "pin"
        shutil.copy(at_home.folder / "pin", pin)
        tokens = at_home.folder / "tokens"
        for path in (pin, tokens, *tokens.rglob("*")):
            os.chown(path, uid, uid)
        environ = {**at_home.environ, "HOME": str(home), "HSMJWT_PIN_SOURCE": f"file:{pin}"}
        for verb, form in (("token", "{}\n"), ("header", "Authorization: Bearer {}\n"), ("token", "{}\n")):
            code, out, _ = at_home.forks.run((verb, "p"), environ, steps=[("user", uid)])
            assert (code, out) == (0, form.format(f"{MARK}-{number}"))
        assert json.loads(at_home.forks.run(("cache", "list", "--json"), environ, steps=[("user", uid)])[1])
        assert at_home.forks.run(("cache", "clear"), environ, steps=[("user", uid)])[0] == 0
    assert at_home.files() == theirs
    assert at_home("token", "p").out == f"{MARK}-1\n"
    assert len(server.requests) == 3


def test_twenty_users_of_one_token_each_sign_or_are_told_that_it_failed(at_home):
    """Users do not share a lock, and SoftHSM's files may be read half written: none may be called a wrong PIN."""
    calls = []
    for number in range(20):
        home = at_home.folder / f"home-{number}"
        (home / "run").mkdir(parents=True)
        shutil.copy(at_home.folder / "pin", home / "pin")
        environ = {**at_home.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
        environ["HSMJWT_PIN_SOURCE"] = f"file:{home}/pin"
        steps = []
        if os.geteuid() == 0:
            for path in (home, *home.rglob("*")):
                os.chown(path, at_home.uid + number, at_home.uid)
            steps = [("members", at_home.uid + number, at_home.uid)]
        for folder in (home, home / "run"):
            folder.chmod(0o700)
        calls.append((SIGN, environ, steps))
    if os.geteuid() == 0:
        tokens = at_home.folder / "tokens"
        for path in (tokens, *tokens.rglob("*")):
            os.chown(path, 0, at_home.uid)
            path.chmod(0o2770 if path.is_dir() else 0o660)
        at_home.folder.chmod(0o755)
        os.chown(at_home.environ["HSMJWT_CONFIG"], 0, at_home.uid)
        os.chmod(at_home.environ["HSMJWT_CONFIG"], 0o640)
    ends = at_home.forks.together(calls)
    for code, out, err in ends:
        if code == 0:
            assert (out.count("."), err) == (2, "")
        else:  # a file that was cut and not written yet: no token, or one that answers nothing
            assert (code, out) in ((4, ""), (7, ""))
            assert "CKR_GENERAL_ERROR" in err or f"hsmjwt: error: no token fits '{URI}'\n" in err
    assert [code for code, _, _ in ends].count(0) >= 5
    notes = [path.read_text() for path in at_home.folder.glob("home-*/.local/state/hsmjwt/login-*")]
    assert not [note for note in notes if "refused" in note]
    for argv, environ, steps in calls:  # and nobody is left out from then on
        code, _, err = at_home.forks.run(argv, environ, steps=steps)
        assert (code, err) == (0, "")
