"""The forms in which `hsmjwt token` prints an access token, and what they survive."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.granting import MARK, flags, granted
from servers.scripted import Server

from hsmjwt.bearer import AccessToken
from hsmjwt.cli.token import written

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))  # what an access token may hold: RFC 6749, A.12, without the blank
AWKWARD = (
    VISIBLE,
    VISIBLE[::-1],
    "'", "''", '"', "\\", "\\'", "`id`", "$(id)", "$HOME", "${HOME}", "~", "~root", "~+", "-n", "-", "=", "a=b", "#x",
    "=ls", "==", "=ls=",
    "!!", "a;b", "a&b", "*", "a'b\"c", "x\\", "{a,b}", "[a-z]", "(a)", "<a>", "|", "?", "a:~", "%s", "\\n", "'$(id)'",
    '"$(id)"',
)  # fmt: skip


def evaluate(text: str, shell: str) -> str:
    script = f'{text}\nprintf %s "$ACCESS_TOKEN"'
    done = subprocess.run([shell, "-c", script], capture_output=True, check=True, env={"HOME": "/h"})
    assert done.stderr == b""
    return done.stdout.decode()


def in_form(value: str, form: str) -> str:
    return written(AccessToken(value=value, token_type="Bearer", fetched_at=0.0), form)


def evaluate_all(texts: list[str], shell: str) -> list[str]:
    """Let one shell run texts that each set ACCESS_TOKEN, and return what it was each time."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    return evaluate("\n".join(f"{text}\nprintf '%s\\0' \"$ACCESS_TOKEN\"" for text in texts), shell).split("\0")[:-1]


def read_dotenv(line: str) -> str:
    """Return the value on a line of an env file by the rules of python-dotenv, which Docker's compose has too."""
    value = line.partition("=")[2]
    if found := re.fullmatch(r"'((?:\\'|[^'])*)'", value):
        value = re.sub(r"\\([\\'])", r"\1", found[1])
    elif found := re.fullmatch(r'"((?:\\"|[^"])*)"', value):
        value = re.sub(r"\\([\\'\"])", r"\1", found[1])
    else:
        assert not re.search(r"\s#|['\"]", value)
    return value


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
def test_env_and_dotenv_give_every_token_back(shell):
    pairs = ["".join(pair) for pair in itertools.product("=~:'\"\\$`!#*a ", repeat=2)]
    for form in ("env", "dotenv"):
        values = [*AWKWARD, *pairs]
        assert evaluate_all([in_form(value, form) for value in values], shell) == values
    assert evaluate(f"eval {shlex.quote(in_form(VISIBLE, 'env'))}", shell) == VISIBLE


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
@given(values=st.lists(st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])), min_size=1, max_size=30))
@settings(max_examples=30)
def test_env_and_dotenv_are_one_word_to_a_shell_whatever_the_text(shell, values):
    for form in ("env", "dotenv"):
        assert evaluate_all([in_form(value, form) for value in values], shell) == values


@given(st.text(st.sampled_from(VISIBLE)))
def test_readers_of_env_files_find_what_a_shell_finds(value):
    """Their own kinds of escape, for `$` and the back-quote beside a `'`, are the exception: no form suits both."""
    line = in_form(value, "dotenv")
    assert line.isascii()
    if not ("'" in value or re.search(r"\\\\|\\$", value)) or not re.search("[$`]", value):
        assert read_dotenv(line) == value


def test_each_form_prints_the_token_its_way(quick):
    with Server(granted(VISIBLE)) as server:
        call = ("token", *flags(server.url()))
        raw, header, env, dotenv, as_json = (
            quick(*call, "--output", form) for form in ("raw", "header", "env", "dotenv", "json")
        )
        other = quick("header", *call[1:], "--json")
    assert len(server.requests) == 1
    assert raw.out == f"{VISIBLE}\n"
    assert header.out == f"Authorization: Bearer {VISIBLE}\n"
    assert env.out.startswith("export ACCESS_TOKEN=")
    assert dotenv.out.startswith("ACCESS_TOKEN=")
    assert evaluate(env.out, "sh") == evaluate(dotenv.out, "sh") == VISIBLE
    assert json.loads(as_json.out)["access_token"] == VISIBLE
    assert json.loads(other.out) == {"Authorization": f"Bearer {VISIBLE}"}


def test_a_plain_token_needs_no_quotes_in_dotenv(quick):
    with Server(granted()) as server:
        done = quick("token", *flags(server.url()), "--output", "dotenv")
    assert done.out == f"ACCESS_TOKEN={MARK}\n"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--json", "--output", "raw"), "--json and --output raw contradict each other"),
        (("--output", "env", "--json"), "--json and --output env contradict each other"),
        (("--output", "yaml"), "'yaml' is no form of output"),
        (("--output", "raw", "--output", "raw"), "--output is given 2 times"),
    ],
)
def test_forms_that_contradict_are_a_usage_error(quick, more, words):
    with Server(granted()) as server:
        done = quick("token", *flags(server.url()), *more)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert server.accepted == 0


def test_json_beside_output_json_is_no_contradiction(quick):
    with Server(granted()) as server:
        done = quick("token", *flags(server.url()), "--json", "--output", "json")
    assert json.loads(done.out)["access_token"] == MARK


def test_a_token_with_blanks_is_refused_in_every_form(quick, tmp_path):
    hostile = f"x'; touch {tmp_path}/PWNED1; echo '$(touch {tmp_path}/PWNED2)"
    with Server(granted(hostile)) as server:
        for form in ("env", "dotenv"):
            done = quick("token", *flags(server.url()), "--output", form)
            assert (done.code, done.out) == (10, "")
            assert "PWNED" not in done.err
