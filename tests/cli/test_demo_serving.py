"""`hsmjwt demo --serve --client ID --public-key FILE`: what a CI author points tests at, asked by hsmjwt itself."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cli.checks import refused
from servers.scripted import free_port

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def start(token, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hsmjwt", "demo", "--serve", *args]
    return subprocess.Popen(command, env=token.environ(), stdin=-3, stdout=-1, stderr=-1, text=True)


@pytest.fixture
def public_key(token, hsmjwt) -> Path:
    path = token.folder / "k1.pem"
    path.write_text(hsmjwt("key", "export", token.uri, HSMJWT_KEY=None).out)
    return path


@pytest.fixture
def server(token, public_key) -> Iterator[str]:
    """A server that knows k1 as the client `ci`; its URL."""
    with start(token, "--client", "ci", "--public-key", str(public_key)) as process:
        yield process.stdout.readline().strip()
        process.terminate()
        process.communicate(timeout=10)


def test_it_prints_its_url_alone_once_it_listens_and_grants_a_token(token, public_key, quick):
    port = free_port()
    with start(token, "--client", "ci", "--public-key", str(public_key), "--port", str(port)) as process:
        url = process.stdout.readline()
        assert url == f"http://127.0.0.1:{port}\n"
        for grant in ("jwt-bearer", "client-assertion"):
            call = ("--iss", "ci", "--grant", grant, "--scope", "read", "--token-url", f"http://127.0.0.1:{port}/token")
            field = quick("header", *call)
            assert field.code == 0, field.err
            headers = dict([field.out.strip().split(": ", 1)])
            answer = requests.get(f"{url.strip()}/api/whoami", headers=headers, timeout=10).json()
            assert (answer["client_id"], answer["scope"]) == ("ci", "read")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (143, "", "hsmjwt: error: terminated\n")


def test_as_json_it_tells_both_urls(token, public_key):
    with start(token, "--client", "ci", "--public-key", str(public_key), "--json") as process:
        about = json.loads(process.stdout.readline())
        assert about["token_url"] == about["url"] + "/token"
        assert requests.get(about["token_url"], timeout=10).status_code == 405
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def test_it_refuses_what_an_authorization_server_must_refuse(server, token, quick):
    token.make_key("k2")
    call = ("token", "--iss", "ci", "--token-url", f"{server}/token", "--no-cache")
    refusals = {
        "wrong key": (("--key", "pkcs11:token=t1;object=k2"), "signature does not verify with the registered key"),
        "wrong audience": (("--aud", "https://other.example/"), "wrong audience: this server is"),
        "expired": (("--now", "-10m"), "assertion expired"),
        "somebody else": (("--iss", "cd"), "unknown client: iss is not registered"),
        "another key id": (("--kid", "other"), "kid is not that of the registered key"),
    }
    for name, (more, words) in refusals.items():
        args = [*call, *more]
        if "--iss" in more:
            args.remove("--iss"), args.remove("ci")
        done = quick(*args)
        assert (done.code, done.out) == (10, ""), name
        assert "refused with 400 invalid_grant: " in done.err, name
        assert words in done.err, name
    first, replayed = (quick(*call, "--jti", "once") for _ in range(2))
    assert (first.code, replayed.code) == (0, 10)
    assert "assertion replayed" in replayed.err


def test_it_refuses_a_replay_without_a_jti_and_what_is_unsigned(server, quick):
    def ask(assertion: str) -> tuple[int, str]:
        form = {"grant_type": BEARER, "assertion": assertion}
        answer = requests.post(f"{server}/token", data=form, timeout=10)
        return answer.status_code, answer.json().get("error_description", "")

    signed = quick("sign", "--iss", "ci", "--aud", f"{server}/token", "--jti", "none").out.strip()
    assert [ask(signed)[0], ask(signed)] == [200, (400, "assertion replayed")]
    header, _, signature = signed.split(".")
    other = base64.urlsafe_b64encode(json.dumps({"typ": "JWT", "alg": "none"}).encode()).decode().rstrip("=")
    fresh = quick("sign", "--iss", "ci", "--aud", f"{server}/token").out.strip().split(".")[1]
    assert ask(f"{other}.{fresh}.") == (400, "assertion is unsigned")
    assert ask(f"{header}.{fresh}.{signature}") == (400, "signature does not verify with the registered key")


def test_a_port_that_is_taken_is_a_usage_error(server, token, public_key, quick):
    port = server.rpartition(":")[2]
    done = quick("demo", "--serve", "--client", "ci", "--public-key", str(public_key), "--port", port)
    assert (done.code, done.out) == (2, "")
    assert f"cannot listen on port {port}: address already in use" in done.err


@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_public_key_that_is_none_is_a_usage_error(quick, tmp_path, content):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    began = time.monotonic()
    done = quick("demo", "--serve", "--client", "ci", "--public-key", str(path))
    assert time.monotonic() - began < 10
    assert (done.code, done.out) == (2, "")
    assert str(path) in done.err or "private" in done.err or "key" in done.err


@pytest.mark.parametrize("flag", [("--keep",), ("--timeout", "5")])
def test_a_server_that_runs_alone_takes_no_flag_of_the_walk(quick, token, tmp_path, flag):
    key = tmp_path / "k.pem"
    key.write_text(quick("key", "export", token.uri, HSMJWT_KEY=None).out)
    refused(quick("demo", "--serve", "--client", "ci", "--public-key", str(key), *flag), 2, "runs alone")
