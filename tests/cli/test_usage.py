"""The command line itself: help, unknown words, flags without their value, and what an error of usage looks like."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys

import pytest
from cli.checks import refused, told

from hsmjwt import __version__
from hsmjwt.cli.gate import VERBS
from hsmjwt.cli.usage import shown, unknown_verb

GROUPS = {
    "slot": ["list"],
    "key": ["list", "generate", "show", "export", "import", "delete", "audit", "rotate", "ceremony"],
    "cert": ["self-signed", "csr", "import", "show"],
    "profile": ["list", "show", "check", "init"],
    "provider": ["list", "show"],
    "cache": ["list", "clear"],
    "softhsm": ["init", "env", "remove"],
}
COMMANDS = [*(verb for verb in VERBS if verb not in GROUPS), *(f"{a} {b}" for a, many in GROUPS.items() for b in many)]


def flags_of(text: str) -> list[tuple[str, bool]]:
    """Return the flags that a help text lists, and whether each takes a value."""
    return [
        (name, bool(value.strip()))
        for name, value in re.findall(r"^  (--[\w-]+)( [A-Za-z][^\s]*)?", text, re.MULTILINE)
    ]


def test_help_lists_all_commands_none_cut_short(quick):
    done = quick("--help")
    assert (done.code, done.err) == (0, "")
    listed = re.findall(r"^  ([\w-]+)  +(.+)$", done.out.partition("Commands:\n")[2], re.MULTILINE)
    assert {name for name, _ in listed} == set(VERBS)
    assert all(text.endswith(".") and not text.endswith("...") for _, text in listed)
    for same in ((), ("--help", "--json"), ("--json", "--help")):
        assert quick(*same).out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_two_examples_that_name_its_flags(quick, command):
    done = quick(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: hsmjwt {command} ")
    examples = done.out.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 2
    known = {name for name, _ in flags_of(done.out)}
    for line in examples:
        assert f"hsmjwt {command}" in line
        part = line.partition(f"hsmjwt {command}")[2].partition("|")[0]
        assert set(re.findall(r"--[a-z][\w-]*", part)) <= known
    assert 'curl -H "' not in done.out
    assert {"--timeout", "--verbose", "--json"} <= known


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_lists_its_commands_none_cut_short(quick, group):
    done = quick(group, "--help")
    assert done.code == 0
    listed = re.findall(r"^  ([\w-]+)  +(.+)$", done.out.partition("Commands:\n")[2], re.MULTILINE)
    assert [name for name, _ in listed] == GROUPS[group]
    assert all(text.endswith(".") and not text.endswith("...") for _, text in listed)


@pytest.mark.parametrize("command", ["token", "key generate", "verify", "demo", "softhsm init"])  # these have them all
def test_every_flag_misses_its_value_and_takes_it_once(quick, command):
    words = command.split()
    for name, takes_value in flags_of(quick(*words, "--help").out):
        if not takes_value:
            refused(quick(*words, f"{name}=x"), 2, f"{name} takes no value", hint=f"hsmjwt {command} --help")
            continue
        refused(quick(*words, name), 2, f"{name} needs a value", hint=f"hsmjwt {command} --help")
        extra = ("x",) if command in ("inspect", "verify") else ()
        refused(
            quick(*words, *extra, name, "--json"), 2, f"{name} needs a value, and --json is a flag", hint="variable"
        )
        if command != "token" and name != "--aud":  # which may be repeated
            refused(quick(*words, *extra, name, ""), 2, f"{name} is empty", hint="variable")
            refused(quick(*words, *extra, name, "x", name, "x"), 2, f"{name} is given 2 times", hint="all but one")


@pytest.mark.parametrize(
    ("argv", "words", "hint"),
    [
        (["sgin"], "there is no command 'sgin'", "did you mean 'sign'?"),
        (["journal", "tail"], "there is no command 'journal'", "hsmjwt --help"),
        (["serve"], "there is no command 'serve'", "hsmjwt --help"),
        (["help"], "there is no command 'help'", "hsmjwt --help"),
        ([""], "there is no command ''", "hsmjwt --help"),
        (["a\nb\x1b[m"], "there is no command 'a\\nb\\x1b[m'", "hsmjwt --help"),
        (["--versoin"], "there is no flag '--versoin'", "did you mean '--version'?"),
        (["-h"], "there is no flag '-h'", "hsmjwt --help"),
        (["--verbose", "sign"], "'--verbose' stands before the command", "hsmjwt sign --verbose"),
        (["--version", "sign"], "--version stands alone", "hsmjwt --help"),
        (["key"], "'hsmjwt key' needs a command", "list, generate, show, export"),
        (["key", "lst"], "'hsmjwt key' has no command 'lst'", "did you mean 'list'?"),
        (["key", "--jsn", "list"], "there is no flag '--jsn'", "hsmjwt key --help"),
        (["sign", "--isss", "x"], "there is no flag '--isss'", "did you mean '--iss'?"),
        (["sign", "--audience", "x"], "there is no flag '--audience'", "did you mean '--aud'?"),
        (["sign", "--pin", "1234"], "there is no flag '--pin'", "did you mean '--pin-source'?"),
        (["sign", "-i", "x"], "there is no flag '-i'", "hsmjwt sign --help"),
        (["sign", "p", "q"], "too many arguments: 'q'", "hsmjwt sign --help"),
        (["slot", "list", "x"], "too many arguments: 'x'", "hsmjwt slot list --help"),
        (["inspect"], "the argument JWT|- is missing", "hsmjwt inspect --help"),
        (["verify", "a", "b"], "too many arguments: 'b'", "hsmjwt verify --help"),
        (["demo", "--port", "x"], "--port: 'x' is no port", "0 to 65535"),
        (["token", "--output", "yaml"], "'yaml' is no form of output", "raw, json, header, env, dotenv"),
        (["token", "--output", "env", "--json"], "contradict each other", "leave one"),
        (["token", "--grant", "code", "--iss", "i"], "--grant", "jwt-bearer"),
    ],
    ids=lambda value: ascii(" ".join(value)) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_told_with_what_may_be_meant(quick, argv, words, hint):
    refused(quick(*argv), 2, words, hint=hint)
    if "--" in argv:
        return
    ran = quick(*argv, "--json")
    refused(ran, 2)
    assert told(ran)["code"] == "usage"


@pytest.mark.parametrize(
    "argv",
    [
        ("pkcs11:token=t1?pin-value=31415926",),
        ("sign", "pkcs11:token=t1;object=k1?pin-value=31415926"),
        ("token", "PKCS11:token=t1;object=k1?pin-value=31415926"),
        ("sign", "p", "pkcs11:token=t1;object=k1?pin-value=31415926"),
        ("key", "list", "pkcs11:token=t1?pin-value=31415926"),
        ("key", "pkcs11:token=t1?pin-value=31415926"),
        ("key", "show", "pkcs11:token=t1", "pkcs11:token=t1?pin-value=31415926"),
        ("doctor", "pkcs11:token=t1?pin-value=31415926"),
        ("sign", "--key", "pkcs11:token=t1;pin-value=31415926"),
        ("sign", "--pin-source", "31415926"),
        ("sign", "--pin-source", "31415926:x"),
        ("verify", "x", "eyJhbGciOiJSUzI1NiJ9.eyJ4IjozMTQxNTkyNn0.31415926"),
    ],
    ids=str,
)
def test_a_secret_in_the_wrong_place_is_not_shown(quick, argv):
    ran = quick(*argv, "--json", "--verbose")
    refused(ran, 2)
    assert "31415926" not in ran.err
    assert "eyJ4" not in ran.err


def test_long_arguments_are_cut_and_none_breaks_out_of_its_line():
    assert shown("x" * 500) == "'" + "x" * 80 + "…'"
    assert shown("a\r\nb\u2028\udc80") == r"'a\r\nb\u2028\udc80'"
    assert "\n" not in unknown_verb(["\n"], VERBS).message


def test_the_version_is_one_line_and_in_json_what_a_report_needs(hsmjwt, token):
    assert hsmjwt("--version") == (0, f"hsmjwt {__version__}\n", "")
    done = hsmjwt("--version", "--json")
    about = json.loads(done.out)
    assert (done.code, done.err, about["version"]) == (0, "", __version__)
    assert about["python"] == sys.version.split()[0]
    for name in ("typer", "python-pkcs11", "asn1crypto", "requests", "cryptography", "msgspec"):
        assert about["dependencies"][name] == importlib.metadata.version(name)
    assert about["module"]["path"] == token.module
    assert re.fullmatch(r"[0-9a-f]{64}", about["module"]["sha256"])
    assert json.loads(hsmjwt("--version", "--json", HSMJWT_MODULE="/nowhere").out)["module"] is None


@pytest.mark.parametrize("word", ["--key=pkcs11:object=k?pin-value=31415926", "--pin=31415926"])
def test_a_flag_before_the_command_is_named_without_its_value(quick, word):
    done = quick(word, "sign", "--json")
    refused(done, 2, "stands before the command")
    assert "31415926" not in done.out + done.err
