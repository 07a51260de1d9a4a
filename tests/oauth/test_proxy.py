from __future__ import annotations

import base64
import traceback

import pytest
from servers.posting import JWT, PASSWORD, TOKEN, failure, post
from servers.scripted import (
    Authorities,
    Ca,
    Server,
    close_after,
    json_reply,
    raw,
    reply,
    reset_after,
    silent,
    tunnel,
)

from hsmjwt.errors import ConfigError, HsmjwtError
from hsmjwt.oauth import proxy
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.failure import ConnectionFault, ProxyFault, ProxyUnreached, TlsFault


@pytest.fixture(scope="module")
def authorities(tmp_path_factory) -> Authorities:
    folder = tmp_path_factory.mktemp("ca")
    return Authorities(Ca(folder, "Our CA"), Ca(folder, "Another CA"))


@pytest.fixture
def behind(authorities):
    """A TLS server as.example.test that only a proxy reaches, and the proxy."""
    context = authorities.ours.context("as.example.test")
    with Server(json_reply(TOKEN), tls=context) as server, Server(tunnel(server.port)) as way:
        yield server, way


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(behind, authorities, variable):
    server, way = behind
    environ = {variable: f"http://svc:p%40ss@127.0.0.1:{way.port}"}
    assert post("https://as.example.test/token", environ=environ, ca_file=authorities.ours.file).status == 200
    (connect,) = way.requests
    assert (connect.method, connect.target) == ("CONNECT", "as.example.test:443")
    assert connect.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"svc:p@ss").decode()
    assert "proxy-authorization" not in server.requests[0].headers
    assert JWT.encode() not in connect.body


def test_a_configured_proxy_goes_before_the_environment(behind, authorities):
    _, way = behind
    environ = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "*"}
    settings = {"environ": environ, "ca_file": authorities.ours.file}
    assert post("https://as.example.test/token", proxy=f"127.0.0.1:{way.port}", **settings).status == 200
    assert way.accepted == 1


def test_a_proxy_may_be_spoken_to_with_tls_and_that_writes_no_keys_either(behind, authorities, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    server, _ = behind
    with Server(tunnel(server.port), tls=authorities.ours.context("127.0.0.1")) as way:
        settings = {"proxy": f"https://127.0.0.1:{way.port}", "ca_file": authorities.ours.file}
        assert post("https://as.example.test/token", **settings).status == 200
    assert not (tmp_path / "keys").exists()


def test_no_proxy_is_used_for_this_machine(authorities):
    tunnelled = {
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }
    with Server(json_reply(TOKEN)) as server:
        assert post(server.url(), environ=tunnelled, proxy="http://127.0.0.1:1").status == 200
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        assert post(server.url(), environ=tunnelled, ca_file=authorities.ours.file).status == 200


def test_a_proxy_in_the_process_environment_alone_is_not_seen(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "does not resolve" in failure("https://as.example.test/t", ConnectionFault).message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://p:1"}, None),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:1"}, None),
        ({"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://all:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://all:1"}, "http://all:1"),
        ({"HTTPS_PROXY": " http://p.example/ \n"}, "http://p.example:80"),
        ({"HTTPS_PROXY": "p.example:3128"}, "http://p.example:3128"),
        ({"HTTPS_PROXY": "https://p.example"}, "https://p.example:443"),
        ({"HTTPS_PROXY": "http://[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128"),
        ({"HTTPS_PROXY": "http://a:b@c:d@p.example:3128"}, "http://p.example:3128"),
    ],
)
def test_the_proxy_is_chosen_as_curl_and_requests_choose_it(environ, expected):
    chosen = proxy.choose(parse_endpoint("https://as.example.test/t"), None, environ)
    assert (chosen.url if chosen else None) == expected


@pytest.mark.parametrize(
    ("exempt", "straight"),
    [
        ("*", True),
        ("as.example.test", True),
        ("AS.Example.Test", True),
        ("example.test", True),
        (".example.test", True),
        ("*.example.test", True),
        ("other.test, example.test", True),
        ("other.test example.test", True),
        ("as.example.test:8443", True),
        ("as.example.test:443", False),
        ("as.example.test:8443²", False),
        ("as.example.test:²", False),
        ("x:²", False),
        ("as.example.test:٨٤٤٣", False),
        ("as.example.test:" + "9" * 5000, False),
        ("s.example.test", False),
        ("test.", True),
        ("example", False),
        (".", False),
        ("", False),
        (",,", False),
    ],
)
def test_no_proxy_names_hosts_and_domains(exempt, straight):
    endpoint = parse_endpoint("https://as.example.test:8443/t")
    for name in ("no_proxy", "NO_PROXY"):
        chosen = proxy.choose(endpoint, None, {"HTTPS_PROXY": "http://p:1", name: exempt})
        assert (chosen is None) is straight


@pytest.mark.parametrize(
    ("url", "exempt", "straight"),
    [
        ("https://192.0.2.7/t", "192.0.2.7", True),
        ("https://192.0.2.7/t", "192.0.2.0/24", True),
        ("https://192.0.2.7/t", "192.0.3.0/24", False),
        ("https://192.0.2.7/t", "2.7", False),
        ("https://192.0.2.7:8443/t", "192.0.2.7:8443", True),
        ("https://[2001:db8::1]/t", "2001:db8::/32", True),
        ("https://[2001:db8::1]/t", "[2001:db8:0::1]", True),
        ("https://[2001:db8::1]/t", "192.0.2.0/24", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(url, exempt, straight):
    chosen = proxy.choose(parse_endpoint(url), None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": exempt})
    assert (chosen is None) is straight


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"http://svc:{PASSWORD}@127.0.0.1:1", ProxyUnreached),
        (f"http://svc:{PASSWORD}@127.0.0.1:99999", ConfigError),
        (f"http://svc:{PASSWORD}@127.0.0.1:abc", ConfigError),
        ("http://svc:Pr0xy/S3cret@127.0.0.1:1", ConfigError),
        (f"svc:{PASSWORD}@127.0.0.1:1", ProxyUnreached),
        (f"socks5h://svc:{PASSWORD}@127.0.0.1:1", ProxyFault),
        (f"socks4://svc:{PASSWORD}@127.0.0.1", ProxyFault),
        ("http://svc:123/Pr0xyS3cret@127.0.0.1:1", ConfigError),
        ("http://svc:Pr0xy#S3cret@127.0.0.1:1", ConfigError),
        ("http://svc:Pr0xy?S3cret@127.0.0.1:1", ConfigError),
        ("http://svc:Pr0xy S3cret@127.0.0.1:1", ConfigError),
        ("http://svc:Pr0xy\\S3cret@127.0.0.1:1", ConfigError),
        (f"http://svc:{PASSWORD}@", ConfigError),
        (f"http://svc:{PASSWORD}@[::1", ConfigError),
        (f"http://svc:{PASSWORD}@p roxy:1", ConfigError),
        (f"ftp://svc:{PASSWORD}@127.0.0.1:1", ConfigError),
        (f"http://svc:{PASSWORD}@nowhere.invalid:3128", ProxyUnreached),
        (f"https://svc:{PASSWORD}@127.0.0.1:1", ProxyUnreached),
        (f"{PASSWORD}", ProxyUnreached),
        (f"http://{PASSWORD}:x", ConfigError),
    ],
)
@pytest.mark.parametrize("source", ["HTTPS_PROXY", "profile"])
def test_a_proxys_password_is_in_no_error(url, kind, source):
    settings = {"environ": {"HTTPS_PROXY": url}} if source == "HTTPS_PROXY" else {"proxy": url}
    with pytest.raises(HsmjwtError) as caught:
        post("https://as.example.test/t", **settings)
    error = caught.value
    assert type(error) is kind
    assert source in error.message or source == "profile"
    shown = "".join(traceback.format_exception(error)) + str(error.hint)
    secrets = ["Pr0xyS3cret", "c3ZjOlByMHh5"] if url != PASSWORD and "]" not in url else []
    assert not [secret for secret in (*secrets, "Pr0xy/", "Pr0xy#") if secret in shown]
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    ("status", "kind"), [(407, ProxyFault), (403, ProxyFault), (502, ProxyUnreached), (503, ProxyUnreached)]
)
def test_a_proxy_that_does_not_let_us_through_is_named_with_its_status(status, kind):
    with Server(reply(f"bad password {PASSWORD}".encode(), status=status)) as way:
        url = f"http://svc:{PASSWORD}@127.0.0.1:{way.port}"
        error = failure("https://as.example.test/t", kind, environ={"HTTPS_PROXY": url})
    assert f"'http://127.0.0.1:{way.port}' of HTTPS_PROXY" in error.message
    assert f"answered {status}" in error.message
    assert "'as.example.test:443'" in error.message


@pytest.mark.parametrize("act", [close_after(b""), reset_after(), raw(b"SSH-2.0\r\n")], ids=["closed", "reset", "ssh"])
def test_a_proxy_that_breaks_off_is_named(act):
    with Server(act) as way:
        error = failure(
            "https://as.example.test/t", ProxyUnreached, proxy=f"http://svc:{PASSWORD}@127.0.0.1:{way.port}"
        )
    assert f"the proxy 'http://127.0.0.1:{way.port}'" in error.message


def test_a_silent_proxy_is_left():
    with Server(silent()) as way:
        settings = {"proxy": f"http://svc:{PASSWORD}@127.0.0.1:{way.port}", "patience": 0.2}
        error = failure("https://as.example.test/t", ProxyFault, seconds=None, **settings)
    assert "was silent for 0.2 s" in error.message


def test_a_proxy_that_leads_to_another_server_is_a_tls_fault(authorities):
    context = authorities.other.context("as.example.test")
    with Server(json_reply(TOKEN), tls=context) as server, Server(tunnel(server.port)) as way:
        settings = {"proxy": f"http://127.0.0.1:{way.port}", "ca_file": authorities.ours.file}
        error = failure("https://as.example.test/t", TlsFault, **settings)
    assert "'as.example.test:443'" in error.message
    assert server.requests == []


def test_a_proxys_repr_shows_no_password():
    chosen = proxy.choose(parse_endpoint("https://a.test/"), f"http://svc:{PASSWORD}@p:1", {})
    assert PASSWORD not in repr(chosen)
    assert "Basic" not in repr(chosen)
    assert chosen is not None
    assert "Basic" not in str(chosen.__rich_repr__())
