"""stdin, stdout and stderr that are closed, full or broken, and what a module prints into them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.checks import refused

RUN = [sys.executable, "-m", "hsmjwt"]
ROOT = Path(__file__).resolve().parents[2]
SIGN = ("sign", "--iss", "i", "--aud", "a")
JWT = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"
PRINTING = {
    "sign": SIGN,
    "help": ("--help",),
    "command's help": ("sign", "--help"),
    "inspect": ("inspect", JWT),
    "table": ("slot", "list"),
    "script": ("--show-completion", "bash"),
}


class Done:
    """A command run by a shell that redirects."""

    def __init__(self, token, redirect: str, *args: str, stdin=subprocess.DEVNULL, code: list[str] = RUN) -> None:
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirect}', "sh", *code, *args],
            env=token.environ() | {"PYTHONPATH": str(ROOT)},
            stdin=stdin,
            capture_output=True,
            check=False,
            timeout=30,
        )
        self.code, self.out, self.err = done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("args", PRINTING.values(), ids=PRINTING)
@pytest.mark.parametrize(("redirect", "reason"), [(">&-", "bad file descriptor"), (">/dev/full", "no space left")])
def test_a_result_that_nobody_can_have_is_an_error(token, redirect, reason, args):
    refused(Done(token, redirect, *args), 3, f"stdout cannot be written: {reason}", hint="disk full")


@pytest.mark.parametrize("args", PRINTING.values(), ids=PRINTING)
def test_a_closed_pipe_ends_quietly(token, args):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*RUN, *args], env=token.environ(), stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_shell_that_no_longer_waits_for_what_it_asked_is_told_nothing(token):
    asked = {"_HSMJWT_COMPLETE": "complete_bash", "_TYPER_COMPLETE_ARGS": "hsmjwt key show "}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        RUN, env=token.environ() | asked, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    code = [sys.executable, "-c", f"import os; os.environ.update({asked}); from hsmjwt.cli.main import entry; entry()"]
    refused(Done(token, ">&-", code=code), 3, "stdout cannot be written")
    done = Done(token, "2>&-", code=code)
    assert (done.code, done.out) == (0, "pkcs11:token=t1;object=k1\n")


@pytest.mark.parametrize("args", PRINTING.values(), ids=PRINTING)
def test_whoever_reads_a_line_and_goes_hears_nothing(token, args):
    for reader in ("true", "head -c 1 >/dev/null"):
        done = Done(token, f"| {reader}", *args)
        assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_a_result_does_not_need_the_other_streams(token, redirect):
    done = Done(token, redirect, *SIGN, "--verbose" if "2" in redirect else "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert "eyJ" in done.out


def test_an_error_that_nobody_can_be_told_still_has_its_exit_code(token):
    for redirect in ("2>&-", "2>/dev/full", "<&- >&- 2>&-"):
        done = Done(token, redirect, "sign", "--no-such-flag")
        assert (done.code, done.out, done.err) == (2, "", "")
    assert Done(token, "<&- >&- 2>&-", *SIGN).code == 3


def test_stdin_that_is_closed_or_a_terminal_holds_no_claims_and_no_token(token):
    main, other = pty.openpty()
    for args in ((*SIGN, "--claims-file", "-"), ("inspect", "-")):
        for done in (Done(token, "<&-", *args), Done(token, "", *args, stdin=other)):
            refused(done, 2, "it is a terminal, or closed", hint="hsmjwt" if args[0] == "inspect" else "JSON object")
    os.close(main)
    os.close(other)


NOISY = """
import ctypes, os, sys
real = ctypes.CDLL(os.path.realpath(os.environ["HSMJWT_MODULE"]))
pointer = ctypes.POINTER(ctypes.c_void_p)()
real.C_GetFunctionList(ctypes.byref(pointer))
kind = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
initialize = kind(pointer[1])
def noisy(args):
    os.write(1, b"noise on stdout\\n")
    os.write(2, b"noise on stderr\\n")
    return initialize(args)
callback = kind(noisy)
pointer[1] = ctypes.cast(callback, ctypes.c_void_p).value
sys.argv[0] = "hsmjwt"
from hsmjwt.cli.main import entry
entry()
"""


def test_what_a_module_prints_goes_to_verbose_alone(token):
    code = [sys.executable, "-c", NOISY]
    quiet = Done(token, "", *SIGN, code=code)
    assert (quiet.code, quiet.err, quiet.out.count("\n")) == (0, "", 1)
    loud = Done(token, "", *SIGN, "--verbose", code=code)
    assert (loud.code, loud.out.count("\n")) == (0, 1)
    assert "noise on stdout\n" in loud.err
    assert "noise on stderr\n" in loud.err
    closed = Done(token, "2>&-", *SIGN, "--verbose", code=code)
    assert (closed.code, closed.out.count("\n")) == (0, 1)


def test_a_result_is_whole_on_stdout_without_utf_8(token, tmp_path):
    uri = "pkcs11:token=t1;object=%C3%A6"
    token.make_key("æ")
    env = token.environ() | {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*RUN, "key", "list"], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\xe6" in done.stdout
    assert uri.encode().partition(b";")[2] in done.stdout


NAMES = """
default_profile = "prøfil"
[keys."nøkkel"]
uri = "pkcs11:object=æ"
[profiles."prøfil"]
key = "nøkkel"
issuer = "æ"
audience = "å"
token_url = "http://127.0.0.1:9/tøken"
[profiles."søk"]
issuer = "æ"
audience = "å"
"""
NAMING = (
    ("sign", "søk", "--key", "pkcs11:object=æ"),
    ("sign", "søk", "--key", "keys.nøkkel", "--claim", "navn=ø", "--json"),
    ("sign", "fnøs"),
    ("sign", "--iss", "x" * 90 + "ø"),
    ("token", "prøfil", "--timeout", "5"),
    ("exec", "prøfil", "--", "æ"),
    ("doctor", "prøfil", "--timeout", "5"),
    ("inspect", "ø" * 100),
    ("verify", JWT, "--public-key", "ø.pem"),
    ("key", "list"),
    ("key", "show", "keys.nøkkel"),
    ("key", "show", "pkcs11:object=ø"),
    ("slot", "list", "--module", "/ø.so"),
    ("cache", "clear", "prøfil"),
    ("profile", "list"),
    ("profile", "show", "prøfil"),
    ("softhsm", "env", "--dir", "ø"),
    ("sign", "--config", "ø.toml"),
    ("sæn",),
    ("--ø",),
)
LOCALES = {
    "C": {"LANG": "C", "LC_ALL": "C"},
    "C, as it says": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "ASCII": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    "all of it": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
}


@pytest.fixture(scope="module")
def utf_8(tmp_path_factory, token_template):
    """Return the environment of a token with a key that is not called in ASCII, and the exit codes of NAMING there."""
    folder = tmp_path_factory.mktemp("names")
    shutil.copytree(token_template.folder, folder / "token")
    token = type(token_template)(folder / "token", token_template.module)
    token.write_conf()
    token.make_key("æ")
    (folder / "config.toml").write_text(NAMES, encoding="utf-8")
    environ = token.environ() | {"HSMJWT_CONFIG": str(folder / "config.toml"), "PYTHONPATH": str(ROOT)}
    codes = {args: run(args, environ, folder).returncode for args in NAMING}
    assert set(codes.values()) == {0, 2, 3, 4, 6}
    return environ, folder, codes


def run(args, environ, folder):
    return subprocess.run(
        [*RUN, *args], env=environ, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize("locale", LOCALES)
def test_a_locale_without_utf_8_changes_how_letters_look_and_nothing_else(utf_8, locale):
    environ, folder, codes = utf_8
    for args, code in codes.items():
        done = run(args, environ | LOCALES[locale], folder)
        assert done.returncode == code, (args, done.stderr)
        text = (done.stdout + done.stderr).decode("ascii" if "PYTHONIOENCODING" in LOCALES[locale] else "utf-8")
        for word in ("Traceback", "codec", "\\udc"):
            assert word not in text, args


def test_dots_that_a_message_ends_with_are_dots_in_ascii(token):
    for encoding, dots in (("ascii", "..."), ("utf-8", "…")):
        done = subprocess.run(
            [*RUN, "--json", "sign"],
            env=token.environ() | {"PYTHONIOENCODING": encoding},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert f"hint: flags stand behind it: hsmjwt sign --json {dots}\n" in done.stderr.decode(encoding)
