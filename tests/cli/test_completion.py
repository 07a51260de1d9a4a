"""Completion: what a shell is offered through the completion variable; tests/cli/test_shells.py has the real shells."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import get_args

import pytest
from cli.checks import refused
from cli.test_usage import COMMANDS, flags_of

from hsmjwt.cli import offers
from hsmjwt.cli.flags import Completes

ROOT = Path(__file__).resolve().parents[2]
SECRET = "83921047"
CONFIG = f"""
default_profile = "adobe"

[keys.adobe]
uri = "pkcs11:token=t1;object=k1?pin-value={SECRET}"
[keys.unfinished]

[profiles.adobe]
provider = "adobe-analytics"
[profiles."two words"]
[profiles.misspelt]
provder = "generic"
[profiles."-x"]
[profiles."pkcs11:token=t1?pin-value={SECRET}"]
[profiles."line\\nend"]
[profiles."æ"]
"""
PROFILES = ["adobe", "misspelt", "two words", "æ"]
TABLES = ["keys.adobe", "keys.unfinished"]
NEVER = ("typer", "requests", "pkcs11", "ssl", "cryptography", "asn1crypto", "rich")
FILES = ["\tfiles"]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def offered(quick, config):
    """Return the lines that a shell gets for a command line up to the cursor."""

    def ask(line: str, shell: str = "fish", **environ: str | None) -> list[str]:
        given = {"_HSMJWT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "HSMJWT_CONFIG": str(config)}
        done = quick(**given | environ)
        assert (done.code, done.err) == (0, "")
        assert SECRET not in done.out
        return done.out.splitlines()

    return ask


def values(lines: list[str]) -> list[str]:
    return [line.partition("\t")[0] for line in lines]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hsmjwt toke", ["token"]),
        ("hsmjwt --v", ["--version"]),
        ("hsmjwt --show-completion ", ["bash", "zsh", "fish"]),
        ("hsmjwt cache ", ["list", "clear"]),
        ("hsmjwt cache --", ["--help"]),
        ("hsmjwt token ", PROFILES),
        ("hsmjwt token ad", ["adobe"]),
        ("hsmjwt token --json ", PROFILES),
        ("hsmjwt jwks ", [*TABLES, *PROFILES, "pkcs11:token=t1;object=k1"]),
        ("hsmjwt jwks keys.adobe --json mis", ["misspelt"]),
        ("hsmjwt token 'two ", ["two words"]),
        ('hsmjwt token "two ', ["two words"]),
        ("hsmjwt token two\\ ", ["two words"]),
        ("hsmjwt cache clear m", ["misspelt"]),
        ("hsmjwt exec ad", ["adobe"]),
        ("hsmjwt exec --env X=ad", ["X=adobe"]),
        ("hsmjwt exec --env=X=ad", ["--env=X=adobe"]),
        ("hsmjwt exec --env X", []),
        ("hsmjwt token adobe x", []),
        ("hsmjwt token nosuch", []),
        ("hsmjwt token --output ", ["raw", "json", "header", "env", "dotenv"]),
        ("hsmjwt token --output=e", ["--output=env"]),
        ("hsmjwt token --output e", ["env"]),
        ("hsmjwt token --provider a", ["adobe-analytics"]),
        ("hsmjwt sign --alg ES", ["ES256", "ES384", "ES512"]),
        ("hsmjwt key import --alg Ed", ["EdDSA", "Ed25519"]),
        ("hsmjwt key generate --alg=PS2", ["--alg=PS256"]),
        ("hsmjwt cert csr --alg PS5", ["PS512"]),
        ("hsmjwt profile init --alg RS", ["RS256", "RS384", "RS512"]),
        ("hsmjwt key generate --type p", ["p256", "p384", "p521"]),
        ("hsmjwt token --iss ", []),
        ("hsmjwt token --iss --fr", []),
        ("hsmjwt token --fr", ["--fresh"]),
        ("hsmjwt sign --key k", TABLES),
        ("hsmjwt sign --key=keys.a", ["--key=keys.adobe"]),
        ("hsmjwt key show k", TABLES),
        ("hsmjwt nosuch ", []),
        ("hsmjwt key nosuch ", []),
        ("hsmjwt", []),
    ],
)
def test_what_may_stand_at_the_cursor_is_offered(offered, line, expected):
    for shell in ("bash", "zsh", "fish"):
        assert values(offered(line, shell)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "hsmjwt token --ca-file ",
        "hsmjwt token --ca-file=/e",
        "hsmjwt sign --claims-file x",
        "hsmjwt key list --module /usr",
        "hsmjwt softhsm init --dir ",
        "hsmjwt exec adobe -- l",
        "hsmjwt exec adobe -- ls --",
    ],
)
def test_names_of_files_are_left_to_the_shell(offered, line):
    assert offered(line) == FILES


def test_an_empty_word_that_nothing_is_known_of_offers_the_flags(offered):
    assert {"--module", "--json", "--help"} <= set(values(offered("hsmjwt slot list ")))
    assert {"--", "--env"} <= set(values(offered("hsmjwt exec adobe ")))
    assert offered("hsmjwt slot list x") == []


def test_a_flag_is_offered_once_unless_it_may_be_repeated(offered):
    free = values(offered("hsmjwt token --iss a --aud b --json -"))
    assert {"--aud", "--sub", "--help"} <= set(free)
    assert not {"--iss", "--json"} & set(free)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_every_command_is_offered_with_its_meaning(offered, quick, command):
    lines = dict(line.split("\t") for line in offered(f"hsmjwt {command} --"))
    assert set(lines) - {"--"} == {name for name, _ in flags_of(quick(*command.split(), "--help").out)}
    assert all(lines.values())


def test_every_kind_of_value_has_a_source():
    teller = offers.Teller({}, lambda: None)
    for kind in get_args(Completes):
        assert offers._named(kind, "pkcs11:=", teller)


def test_zsh_and_fish_are_told_what_a_value_means_and_bash_is_not(offered):
    for shell in ("zsh", "fish"):
        assert offered("hsmjwt tok", shell) == ["token\tPrint an access token, from the cache or from the server."]
        assert offered("hsmjwt token adobe", shell) == ["adobe\tadobe-analytics"]
    assert offered("hsmjwt tok", "bash") == ["token"]


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("hsmjwt token ad", "2", ["adobe"]),
        ("hsmjwt token ", "2", PROFILES),
        ("hsmjwt\ntoken\nad", "2", ["adobe"]),
        ("hsmjwt token ad --json", "2", ["adobe"]),
        ("hsmjwt token 'two wo", "2", ["two words"]),
        ("hsmjwt token --output = e", "4", ["--output=env"]),
        ("hsmjwt exec --env X = ad", "5", ["X=adobe"]),
    ],
)
def test_bash_hands_over_its_words_and_cuts_them_at_equals_signs_and_colons(offered, words, at, expected):
    given = {"_TYPER_COMPLETE_ARGS": None, "COMP_WORDS": words, "COMP_CWORD": at}
    assert offered("", "bash", **given) == expected


def test_bash_gets_what_goes_behind_the_last_word_break_quoted_as_it_is_typed(offered):
    breaks = {"_HSMJWT_WORDBREAKS": " \t\n\"'@><=;|&(:"}
    assert offered("hsmjwt token tw", "bash", **breaks) == [r"two\ words"]
    assert offered("hsmjwt token 'tw", "bash", **breaks) == ["two words"]
    assert offered("hsmjwt token --output=e", "bash", **breaks) == ["env"]
    assert offered("hsmjwt key show pkcs11:token=t1\\;o", "bash", **breaks) == [r"t1\;object=k1"]
    assert offered("hsmjwt key show 'pkcs11:token=t1;o", "bash", **breaks) == ["pkcs11:token=t1;object=k1"]
    assert offered("hsmjwt key show --key='pkcs11:token=t1;o", "bash", **breaks) == ["pkcs11:token=t1;object=k1"]


def test_the_config_and_the_module_of_the_command_line_count(offered, token, tmp_path):
    (tmp_path / "other.toml").write_text("[profiles.elsewhere]\n")
    line = f"hsmjwt token --config {tmp_path}/other.toml "
    assert offered(line) == ["elsewhere\tgeneric"]
    assert offered(f"hsmjwt token --config={tmp_path}/other.toml e") == ["elsewhere\tgeneric"]
    assert offered("hsmjwt token --config ~/other.toml ", HOME=str(tmp_path)) == ["elsewhere\tgeneric"]
    assert offered("hsmjwt key show pk", HSMJWT_MODULE="/nowhere.so") == []
    assert offered(f"hsmjwt key show --module {token.module} pk", HSMJWT_MODULE="/nowhere.so") != []


def test_keys_that_a_token_shows_to_everybody_are_offered_by_uris_that_select_them(offered, quick, token):
    token.make_key("nøkkel; 2", "02")
    token.make_key("twice", "03")
    token.make_key("twice", "04")
    lines = offered("hsmjwt key show ")
    assert lines == [
        *TABLES,
        "pkcs11:token=t1;object=k1\trsa:2048",
        "pkcs11:token=t1;object=n%C3%B8kkel%3B%202\trsa:2048",
        "pkcs11:token=t1;object=twice;id=%03\trsa:2048",
        "pkcs11:token=t1;object=twice;id=%04\trsa:2048",
    ]
    for uri in values(lines)[len(TABLES) :]:
        done = quick("key", "show", uri, "--json", HSMJWT_KEY=None)
        assert json.loads(done.out)["private"], done.err
    assert offered("hsmjwt key list --key p") == ["pkcs11:token=t1\tSoftHSM v2"]


def test_tokens_of_the_same_label_are_told_apart_by_their_serial_numbers(offered, token):
    token.make_token("t1")
    lines = values(offered("hsmjwt key list --key p"))
    assert len(set(lines)) == 2
    assert all(re.fullmatch("pkcs11:token=t1;serial=[0-9a-f]{16}", line) for line in lines)


WRONG = {
    "no TOML": ("[profiles.adobe\n", {}),
    "not UTF-8": (b"\xff\xfe", {}),
    "missing": (None, {}),
    "no home": (None, {"HSMJWT_CONFIG": None, "HOME": None, "XDG_CONFIG_HOME": None}),
    "a folder": ("", {"HSMJWT_CONFIG": "/"}),
    "a device": ("", {"HSMJWT_CONFIG": "/dev/zero"}),
    "relative home": ("", {"HSMJWT_CONFIG": None, "HOME": "x"}),
    "no module": ("", {"HSMJWT_MODULE": "/nowhere.so"}),
    "a module that is none": ("", {"HSMJWT_MODULE": "/bin/sh"}),
    "an agent": ("", {"HSMJWT_SOCKET": "/run/nobody"}),
    "writable by others": ("[profiles.adobe]\n", {}),
}


@pytest.mark.parametrize("case", WRONG)
def test_whatever_is_wrong_nothing_is_said(offered, config, case):
    content, environ = WRONG[case]
    config.unlink()
    if content is not None:
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
        config.chmod(0o666 if case == "writable by others" else 0o600)
    for line in ("hsmjwt token ", "hsmjwt exec --env X=", "hsmjwt key show k"):
        assert offered(line, **environ) == []
    assert len(offered("hsmjwt key show ", **environ)) <= 1
    assert "sign" in values(offered("hsmjwt ", **environ))


@pytest.mark.parametrize("asked", ["complete_tcsh", "complete", "bash_complete", "1", ""])
def test_a_shell_that_is_not_known_is_offered_nothing(quick, asked):
    done = quick(_HSMJWT_COMPLETE=asked, _TYPER_COMPLETE_ARGS="hsmjwt ")
    assert (done.code, done.err) == (0, "")
    assert done.out == ""


def test_the_variable_means_nothing_where_there_is_a_command(quick):
    assert quick("--version", _HSMJWT_COMPLETE="complete_bash").out.startswith("hsmjwt ")


# Runs the command line with another C_Initialize or C_Login, by their places in the module's function table.
HOOKED = """
import ctypes, os, sys, time
real = ctypes.CDLL(os.path.realpath(os.environ["HSMJWT_MODULE"]))
pointer = ctypes.POINTER(ctypes.c_void_p)()
real.C_GetFunctionList(ctypes.byref(pointer))
kind = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
def hooked(args):
    {does}
callback = kind(hooked)
pointer[{place}] = ctypes.cast(callback, ctypes.c_void_p).value
from hsmjwt.cli.main import entry
entry()
"""


@pytest.fixture
def asked(token, config):
    """Return what a shell gets from a process of its own that runs other code."""

    def run(code: str, line: str, **environ: str):
        given = {"_HSMJWT_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": line, "HSMJWT_CONFIG": str(config)}
        return token.python(code, **given, PYTHONPATH=str(ROOT), **environ)

    return run


def test_a_module_that_hangs_or_crashes_keeps_nobody_waiting_and_hides_no_table(asked):
    began = time.monotonic()
    done = asked(HOOKED.format(place=1, does="time.sleep(60)"), "hsmjwt key show ")
    assert time.monotonic() - began < 10
    assert (done.code, done.out.splitlines(), done.err) == (0, TABLES, "")
    done = asked(HOOKED.format(place=1, does="ctypes.string_at(0)"), "hsmjwt key show ")
    assert (done.code, done.out.splitlines(), done.err) == (-11, TABLES, "")


def test_what_a_module_prints_is_not_offered(asked):
    code = HOOKED.format(place=1, does='os.write(1, b"keys.noise\\n"); os.write(2, b"noise"); return 5')
    done = asked(code, "hsmjwt key show ")
    assert (done.code, done.out.splitlines(), done.err) == (0, TABLES, "")


def test_nothing_logs_in_or_asks_for_a_pin_or_leaves_a_trace(asked, token, tmp_path):
    code = HOOKED.format(place=19, does="os._exit(99)")
    done = asked(code, "hsmjwt key show p", HSMJWT_PIN_SOURCE=f"command:/usr/bin/touch {tmp_path}/asked")
    assert (done.code, done.out) == (0, "pkcs11:token=t1;object=k1\trsa:2048\n")
    assert not (tmp_path / "asked").exists()
    assert list((token.folder / "home").iterdir()) == []  # no state folder, so no lock either
    seen = token.python(code, "sign", "--iss", "i", "--aud", "a", PYTHONPATH=str(ROOT))
    assert seen.code == 99


@pytest.mark.parametrize("line", ["hsmjwt ", "hsmjwt token ", "hsmjwt token --", "hsmjwt key show keys."])
def test_what_needs_no_module_is_offered_without_typer_http_and_tokens(asked, tmp_path, line):
    code = f"""
import os, sys
end = os._exit
def tell(code):
    open({str(tmp_path / "modules")!r}, "w").write(" ".join(sys.modules))
    end(code)
os._exit = tell
from hsmjwt.cli.main import entry
entry()
"""
    done = asked(code, line)
    assert (done.code, done.err) == (0, "")
    assert done.out != ""
    loaded = {name.partition(".")[0] for name in (tmp_path / "modules").read_text().split()}
    assert loaded & set(NEVER) == set()


def test_names_are_utf_8_whatever_the_locale_says(asked):
    code = "from hsmjwt.cli.main import entry; entry()"
    for environ in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}):
        done = asked(code, "hsmjwt token æ", **environ)
        assert (done.code, done.out, done.err) == (0, "æ\tgeneric\n", "")


# The scripts


@pytest.mark.parametrize("shell", offers.SHELLS)
def test_the_script_is_printed_by_the_flag_and_by_the_variable(quick, shell):
    done = quick("--show-completion", shell)
    assert (done.code, done.err) == (0, "")
    assert re.search(f"_HSMJWT_COMPLETE[= ]complete_{shell}", done.out)
    assert done.out == quick(f"--show-completion={shell}").out
    assert done.out == quick("--show-completion", SHELL=f"/usr/local/bin/{shell}").out
    assert done.out == quick(_HSMJWT_COMPLETE=f"source_{shell}").out


def test_a_shell_that_is_not_known_has_no_script(quick):
    hint = "hsmjwt --show-completion bash|zsh|fish"
    refused(quick("--show-completion", "tcsh"), 2, "there is no completion for 'tcsh'", hint=hint)
    refused(quick("--show-completion", SHELL="/bin/sh"), 2, "there is no completion for 'sh'", hint=hint)
    refused(quick("--show-completion", SHELL=None), 2, "which shell", hint=hint)
    refused(quick("--show-completion="), 2, "which shell", hint=hint)
    refused(quick("--show-completion", "bash", "--json"), 2, "takes one shell", hint=hint)
    refused(quick(_HSMJWT_COMPLETE="source_tcsh"), 2, "there is no completion for 'tcsh'", hint=hint)
