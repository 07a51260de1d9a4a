"""The demo server's clients that publish a JWK set: what the file says counts at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import requests
from cli.checks import refused
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from hsmjwt.demo import Client, DemoServer
from hsmjwt.errors import UsageError

FIRST, SECOND = (ECKey.import_key(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))


def entry(key, **more):
    return {**key.as_dict(private=False), **more}


@pytest.fixture
def published(tmp_path):
    """The set's file, and a call that writes it."""
    path = tmp_path / "jwks.json"

    def write(*entries):
        fresh = tmp_path / "new"
        fresh.write_text(json.dumps({"keys": list(entries)}))
        os.replace(fresh, path)

    write(entry(FIRST))
    return path, write


@pytest.fixture
def server(published):
    with DemoServer([Client(client_id="ci", jwks=str(published[0]))]) as running:
        yield running


def ask(server, key, alg="ES256", **header):
    now = int(time.time())
    claims = {"iss": "ci", "sub": "ci", "aud": server.token_url, "exp": now + 60, "jti": os.urandom(8).hex()}
    assertion = jwt.encode({"alg": alg, **header}, claims, key, algorithms=[alg])
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = requests.post(server.token_url, data=form, timeout=10)
    return answer.status_code, answer.json().get("error_description")


WRONG = (400, "signature does not verify with the registered key")


def test_a_key_counts_while_it_is_published_and_no_longer(server, published):
    _, write = published
    assert (ask(server, FIRST)[0], ask(server, SECOND)) == (200, WRONG)
    write(entry(FIRST), entry(SECOND))
    assert (ask(server, FIRST)[0], ask(server, SECOND)[0]) == (200, 200)
    write(entry(SECOND))
    assert (ask(server, FIRST), ask(server, SECOND)[0]) == (WRONG, 200)
    write()
    assert ask(server, SECOND) == (400, "the client has published no key")


def test_a_kid_names_one_of_the_keys(server, published):
    _, write = published
    write(entry(FIRST, kid="a"), entry(SECOND))
    assert ask(server, FIRST, kid="a")[0] == 200
    assert ask(server, SECOND, kid=SECOND.thumbprint())[0] == 200
    assert ask(server, SECOND, kid="a") == WRONG
    assert ask(server, FIRST, kid="b") == (400, "kid is not that of the registered key")


@pytest.mark.filterwarnings("ignore:Key size")
def test_what_cannot_be_used_in_a_set_is_passed_over(server, published):
    _, write = published
    short = RSAKey.import_key(rsa.generate_private_key(65537, 1024))
    odd = [{"kty": "oct", "k": "AAAA"}, {"kty": "new"}, {}, entry(short), FIRST.as_dict(private=True), 7]
    write(*odd, entry(SECOND))
    assert ask(server, SECOND)[0] == 200
    assert ask(server, FIRST) == WRONG
    assert ask(server, short, "RS256")[0] == 400


def test_a_set_that_cannot_be_read_lets_nobody_in(server, published):
    path, write = published
    for text in ("", "{", "[]", '{"keys": {}}', "\xff"):
        path.write_bytes(text.encode("latin-1"))
        assert ask(server, FIRST) == (400, "the key set cannot be read")
    path.unlink()
    assert ask(server, FIRST) == (400, "the key set cannot be read")
    write(entry(FIRST))
    assert ask(server, FIRST)[0] == 200


def test_a_set_that_is_none_at_the_start_is_told_there(tmp_path):
    for text in (None, "[]"):
        if text is not None:
            (tmp_path / "f").write_text(text)
        with pytest.raises(UsageError, match="the key set cannot be read"):
            DemoServer([Client(client_id="ci", jwks=str(tmp_path / "f"))])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--client", "ci", "--jwks", "f", "--public-key", "g", "--serve"), "--public-key and --jwks both name"),
        (("--jwks", "f", "--serve"), "--client and --public-key (or --jwks) go together"),
        (("--client", "ci", "--jwks", "f"), "are for --serve"),
        (("--client", "ci", "--jwks", "/no/such/file", "--serve"), "'/no/such/file': the key set cannot be read"),
    ],
)
def test_flags_of_the_command_that_cannot_be_meant(hsmjwt, args, words):
    refused(hsmjwt("demo", *args), 2, words)


def test_the_command_serves_a_client_by_its_set(published, token):
    command = [sys.executable, "-m", "hsmjwt", "demo", "--serve", "--client", "ci", "--jwks", str(published[0])]
    with subprocess.Popen(command, env=token.environ(), stdin=-3, stdout=-1, stderr=-1, text=True) as process:
        url = process.stdout.readline().strip()
        served = type("Served", (), {"token_url": f"{url}/token"})
        assert (ask(served, FIRST)[0], ask(served, SECOND)) == (200, WRONG)
        process.terminate()
        process.communicate(timeout=10)
