"""The demo's server apart from its grants: ports, hosts, keys, the extra, signals, metadata, memory."""

from __future__ import annotations

import email.utils
import signal
import subprocess
import sys

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from hsmjwt.demo import Client, DemoServer, make_app
from hsmjwt.demo_memory import Memory, Refusal
from hsmjwt.errors import UsageError
from hsmjwt.jose.algorithms import ALGORITHMS


def test_a_port_can_be_had_once_and_again_after_close():
    with DemoServer([]) as first:
        port = int(first.url.rpartition(":")[2])
        assert requests.get(first.url, timeout=10).status_code == 404
        with pytest.raises(UsageError, match=f"cannot listen on port {port}: address already in use$"):
            DemoServer([], port=port)
    first.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(first.url, timeout=10)
    with DemoServer([], port=port) as second:
        assert second.url == first.url
    with pytest.raises(UsageError, match="port 65536"):
        DemoServer([], port=65536)


def test_it_listens_on_loopback_only():
    for host in ("0.0.0.0", "", "192.0.2.1"):
        with pytest.raises(UsageError, match="not loopback"):
            DemoServer([], host=host)
    with DemoServer([], host="127.0.0.1") as server:
        assert server.url.startswith("http://127.0.0.1:")


def test_it_listens_by_name_too(named_host):
    with DemoServer([], host=named_host) as server:
        assert server.url.startswith("http://localhost:")


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_key_that_cannot_be_registered_is_refused_by_name():
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    small, large = (rsa.generate_private_key(65537, bits) for bits in (1024, 2048))
    others = ec.generate_private_key(ec.SECP256K1()), ed448.Ed448PrivateKey.generate()
    texts = [key.public_key().public_bytes(*public).decode() for key in (small, *others)]
    for text in (*texts, large.private_bytes(*private).decode(), "", "no PEM"):
        with pytest.raises(UsageError, match="'app'"):
            make_app([Client(client_id="app", public_key_pem=text)], issuer="http://127.0.0.1:1")


def test_without_the_extra_the_module_imports_and_a_server_says_what_to_install():
    script = """
import sys
sys.modules["authlib"] = sys.modules["flask"] = None
import hsmjwt.demo
try:
    hsmjwt.demo.DemoServer([])
except hsmjwt.errors.UsageError as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "in a clone of hsmjwt: pip install '.[demo]'\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_announces_its_url_when_it_listens_and_goes_on_until_a_signal(number):
    script = "from hsmjwt.demo import serve; serve([], 0, lambda url: print(url, flush=True))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True) as process:
        url = process.stdout.readline().strip()
        assert requests.get(url, timeout=10).status_code == 404
        process.send_signal(number)
        assert process.wait(10) == -number
        assert process.stdout.read() == ""


def test_the_metadata_and_the_date_tell_where_and_when():
    with DemoServer([], now=lambda: 1_800_000_000.7) as server:
        answer = requests.get(f"{server.url}/.well-known/oauth-authorization-server", timeout=10)
        body = answer.json()
        assert body["issuer"] == server.url
        assert body["token_endpoint"] == server.token_url == f"{server.url}/token"
    assert body["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials"]
    assert body["token_endpoint_auth_methods_supported"] == ["none", "private_key_jwt"]
    assert set(body["token_endpoint_auth_signing_alg_values_supported"]) == set(ALGORITHMS)
    assert email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() == 1_800_000_000


def test_a_full_memory_refuses_and_forgets_nothing():
    clock = [0.0]
    memory = Memory(lambda: clock[-1], most=2)
    assert [memory.put(key, {}, 10) for key in "aab"] == ["kept", "replayed", "kept"]
    with pytest.raises(Refusal, match="too many"):
        memory.put("c", {}, 10)
    clock.append(10.0)
    assert [memory.put("c", {}, until) for until in (10, 11)] == ["expired", "kept"]
    assert len(memory._values) == len(memory._order) == 1
