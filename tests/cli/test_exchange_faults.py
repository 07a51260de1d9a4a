"""What goes wrong between `hsmjwt token` and the server, or at the token meanwhile: exit codes and words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from servers.granting import MARK, flags, granted
from servers.scripted import Server, drip, flood, gzip_bomb, head, json_reply, redirect, reply, silent

PATCHED = str(Path(__file__).parent.parent / "hsm" / "patched.py")


def spoken(done, *secrets: str) -> str:
    """Return stderr, which must be an error and perhaps a hint, and hold nothing secret."""
    lines = done.err.splitlines()
    assert lines[0].startswith("hsmjwt: error: "), done.err
    assert all(line.startswith("hsmjwt: hint: ") for line in lines[1:])
    for secret in ("eyJ", "31415926", *secrets):
        assert secret not in done.err
    assert done.out == ""
    return done.err


def test_an_oauth_error_is_told_with_code_and_description(quick):
    answer = {"error": "invalid_grant", "error_description": "use [/token] or [link=http://x.test]this[/link]"}
    with Server(json_reply(answer, status=400)) as server:
        done = quick("token", *flags(server.url()), "--json")
    assert (done.code, done.out) == (10, "")
    words = f"the server '127.0.0.1:{server.port}' refused with 400 invalid_grant: {answer['error_description']}"
    assert done.err.splitlines()[0] == f"hsmjwt: error: {words}"
    told = json.loads(done.err.splitlines()[-1])["error"]
    assert (told["exit"], told["oauth_error"], told["message"]) == (10, "invalid_grant", words)
    assert "issuer, subject and audience" in told["hint"]


@pytest.mark.parametrize(("ahead", "named"), [(-3600, True), (3600, True), (0, False)])
def test_a_clock_that_differs_is_named_when_the_assertion_is_refused(quick, ahead, named):
    def refuse(line):
        stamp = {"Date": formatdate(time.time() + ahead, usegmt=True)}
        json_reply({"error": "invalid_grant"}, status=401, headers=stamp)(line)

    with Server(refuse) as server:
        done = quick("token", *flags(server.url()))
    assert done.code == 10
    side = "behind" if ahead > 0 else "ahead of"
    told = spoken(done)
    assert (f" s {side} the server's" in told) is named
    assert ("hint: this clock is " in told) is named


def test_no_redirect_is_followed_and_the_other_host_hears_nothing(quick):
    with Server(granted()) as other, Server(redirect(other.url(name="localhost"), status=307)) as server:
        done = quick("token", *flags(server.url()))
    assert done.code == 10
    assert "redirected (307) to 'localhost', which was not followed" in spoken(done)
    assert (other.accepted, len(server.requests)) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(b"\xff\xfe", headers={"Content-Type": "text/x-odd"}), "content type 'text/x-odd'"),
        (reply(b'{"access_token": "AT-marker-51c2\xff", "token_type": "Bearer"}'), "no JSON that can be used"),
        (reply(b'{"access_token": "a", "access_token": "AT-marker-51c2", "token_type": "b"}'), "no JSON"),
        (json_reply({"access_token": MARK, "token_type": "Bearer", "expires_in": -1}), "expires_in"),
        (json_reply({"access_token": MARK, "token_type": "mac"}), "type 'mac'"),
        (json_reply([MARK]), "a list where a JSON object belongs"),
        (reply(b"access_token=AT-marker-51c2&token_type=bearer", headers={"Content-Type": "a/form"}), "'a/form'"),
        (flood(head(length=1 << 30), b"x" * 65536, 1024), "more than 1 MiB"),
        (gzip_bomb(32), "more than 1 MiB"),
    ],
    ids=["bytes", "not UTF-8", "twice", "negative life", "mac", "array", "form", "endless", "gzip bomb"],
)
def test_an_answer_that_makes_no_sense_is_refused_and_its_token_not_shown(quick, token, answer, words):
    with Server(answer) as server:
        done = quick("token", *flags(server.url()))
    assert done.code == 10
    assert words in spoken(done, MARK)
    assert list(Path(token.environ()["XDG_RUNTIME_DIR"]).rglob("*.json")) == []


@pytest.mark.parametrize(
    "answer",
    [silent(), drip(b"HTTP/1.1 200 OK\r\nX: "), drip(head(length=99999))],
    ids=["silent", "dripping header", "dripping body"],
)
def test_a_slow_server_is_left_at_the_deadline(quick, answer):
    with Server(answer) as server:
        began = time.monotonic()
        done = quick("token", *flags(server.url()), "--timeout", "1")
        assert time.monotonic() - began < 4
    assert done.code == 9
    told = spoken(done)
    assert f"no answer from the server '127.0.0.1:{server.port}' within 1 s" in told
    assert "hint: --timeout DURATION allows more time" in told
    assert len(server.requests) == 1


def test_a_silent_token_is_left_at_the_deadline(token):
    with Server(granted()) as server:
        command = [sys.executable, PATCHED, "sign~30", "token", *flags(server.url()), "--timeout", "1"]
        began = time.monotonic()
        done = subprocess.run(command, env=token.environ(), capture_output=True, text=True, timeout=30, check=False)
        assert time.monotonic() - began < 4
    assert (done.returncode, done.stdout) == (11, "")
    assert "no answer from the token within 1 s" in done.stderr
    assert server.accepted == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_request_at_once(token, number, code):
    with Server(silent()) as server:
        command = [sys.executable, "-m", "hsmjwt", "token", *flags(server.url())]
        with subprocess.Popen(command, env=token.environ(), stdout=-1, stderr=-1, text=True) as process:
            while not server.requests:
                time.sleep(0.02)
            began = time.monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            assert time.monotonic() - began < 2
    assert (process.returncode, out) == (code, "")
    assert err == f"hsmjwt: error: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"


def test_a_proxys_password_is_in_no_output(quick):
    for proxy in ("http://svc:Pr0xyS3cret@127.0.0.1:1", "socks5h://svc:Pr0xyS3cret@127.0.0.1:1", "http://a:Pr0xyS@/"):
        call = ("--iss", "i", "--token-url", "https://as.example.test/token", "--timeout", "5s", "--verbose", "--json")
        done = quick("token", *call, HTTPS_PROXY=proxy)
        assert done.code in (3, 9), done.err
        assert "Pr0xy" not in done.err
        assert "c3ZjOlByMHh5" not in done.err
        json.loads(done.err.splitlines()[-1])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.example.test/t",
        "http://localhost.example.test/t",
        "http://127.0.0.1@example.test/t",
        "http://example.test\\@127.0.0.1/t",
        "http://example.test#@127.0.0.1/t",
        "http://0.0.0.0/t",
        "ftp://127.0.0.1/t",
        "127.0.0.1/t",
    ],
)
def test_a_url_that_only_looks_like_this_machine_is_a_usage_error(quick, url):
    done = quick("token", *flags(url))
    assert done.code == 2
    assert "--token-url: the server's URL" in spoken(done)


def test_the_exchange_leaves_nothing_behind_but_its_cache(quick, token):
    with Server(granted(expires_in=None)) as server:
        assert quick("token", *flags(server.url())).code == 0
    runtime = Path(token.environ()["XDG_RUNTIME_DIR"])
    for path in (path for path in [*runtime.rglob("*"), *Path(token.environ()["HOME"]).rglob("*")] if path.is_file()):
        assert MARK not in path.read_text(errors="replace")
        assert os.stat(path).st_mode & 0o077 == 0
