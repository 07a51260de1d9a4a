"""The forms in which `hsmjwt token` prints an access token, and what they survive."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from servers.granting import MARK, flags, granted
from servers.scripted import Server

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))  # what an access token may hold: RFC 6749, A.12, without the blank
AWKWARD = (
    VISIBLE,
    VISIBLE[::-1],
    "'", "''", '"', "\\", "\\'", "`id`", "$(id)", "$HOME", "${HOME}", "~", "~root", "~+", "-n", "-", "=", "a=b", "#x",
    "!!", "a;b", "a&b", "*", "a'b\"c", "x\\", "{a,b}", "[a-z]", "(a)", "<a>", "|", "?", "a:~", "%s", "\\n", "'$(id)'",
    '"$(id)"',
)  # fmt: skip


def evaluate(text: str, shell: str) -> str:
    script = f'{text}\nprintf %s "$ACCESS_TOKEN"'
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, env={"HOME": "/h"})
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_env_and_dotenv_give_every_token_back(shell):
    from hsmjwt.bearer import AccessToken
    from hsmjwt.cli.token import written

    for value in AWKWARD:
        made = AccessToken(value=value, token_type="Bearer", fetched_at=0.0)
        assert evaluate(written(made, "dotenv"), shell) == value
        assert evaluate(f"eval {shlex.quote(written(made, 'env'))}", shell) == value


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
