from __future__ import annotations

import base64
import gzip
import json
import os
import pathlib
import ssl
import subprocess
import sys
import time
import traceback
import tracemalloc
from typing import NamedTuple

import pytest
import urllib3
from servers.scripted import (
    Ca,
    Server,
    close_after,
    drip,
    flood,
    free_port,
    gzip_bomb,
    head,
    json_reply,
    raw,
    redirect,
    reply,
    reset_after,
    silent,
    tunnel,
)

from hsmjwt import deadline
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, HsmjwtError, NetworkError, ServerError
from hsmjwt.oauth import proxy, tls
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.exchange import BODY_LIMIT, Answer, TokenRequest, build_request, read_answer
from hsmjwt.oauth.failure import ConnectionFault, ProxyFault, ProxyUnreached, ReadTimeout, TlsFault
from hsmjwt.oauth.transport import Transport

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24"
TOKEN = {"access_token": "AT-marker-51c2", "token_type": "Bearer", "expires_in": 600}
PASSWORD = "Pr0xyS3cret"


class Authorities(NamedTuple):
    ours: Ca
    other: Ca


@pytest.fixture(scope="module")
def authorities(tmp_path_factory) -> Authorities:
    folder = tmp_path_factory.mktemp("ca")
    return Authorities(Ca(folder, "Our CA"), Ca(folder, "Another CA"))


def request(url: str) -> TokenRequest:
    return build_request(
        grant="jwt-bearer", url=url, jwt=JWT, client_id="cid", scope=None, client_secret="hunter2-hunter2", form={}
    )


def transport(*, environ: dict[str, str] | None = None, warnings: list[str] | None = None, **settings) -> Transport:
    values = {"ca_file": None, "proxy": None, "patience": 5.0, **settings}
    return Transport(environ=environ or {}, warn=(warnings if warnings is not None else []).append, **values)


def post(url: str, *, seconds: float = 10, **settings) -> Answer:
    limit = Deadline(seconds)
    return deadline.run(lambda: transport(**settings).post(request(url), limit), limit)


def failure(url: str, kind: type[HsmjwtError], **settings) -> HsmjwtError:
    """Return the error of a post, which must be of `kind` and hold nothing secret, its traceback included."""
    with pytest.raises(HsmjwtError) as caught:
        post(url, **settings)
    error = caught.value
    assert type(error) is kind, error.message
    assert error.message.isprintable()
    shown = "".join(traceback.format_exception(error)) + str(error.hint)
    for secret in (JWT, "hunter2", PASSWORD, base64.b64encode(f"svc:{PASSWORD}".encode()).decode()[:12]):
        assert secret not in shown
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


# What is sent, and what comes back


def test_the_form_is_posted_and_the_answer_comes_back_as_it_is():
    with Server(json_reply(TOKEN, headers={"Date": "Tue, 24 Nov 2026 08:00:00 GMT"})) as server:
        before = time.time()
        got = post(server.url())
    assert before <= got.sent_at <= got.received_at <= time.time()
    assert (got.status, json.loads(got.body)) == (200, TOKEN)
    assert got.header("date") == "Tue, 24 Nov 2026 08:00:00 GMT"
    assert read_answer(got, request=request(server.url())).value == TOKEN["access_token"]
    (asked,) = server.requests
    assert asked.method == "POST"
    assert asked.target == "/token"
    assert asked.fields == list(request(server.url()).form)
    assert asked.headers["accept"] == "application/json"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["user-agent"].startswith("hsmjwt/")
    assert not {"cookie", "authorization"} & set(asked.headers)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_plain_http_goes_to_this_machine_by_name_and_address(name):
    with Server(json_reply(TOKEN)) as server:
        assert post(server.url(name=name)).status == 200


def test_plain_http_goes_to_this_machine_by_ipv6():
    try:
        with Server(json_reply(TOKEN), host="::1") as server:
            assert post(server.url()).status == 200
    except OSError:
        pytest.skip("no IPv6 here")


@pytest.mark.parametrize("status", [201, 400, 401, 404, 429, 500, 503])
def test_every_status_is_an_answer(status):
    with Server(json_reply({"error": "x"}, status=status)) as server:
        got = post(server.url())
    assert (got.status, json.loads(got.body)) == (status, {"error": "x"})


def test_an_answer_may_be_compressed_chunked_or_end_with_the_connection():
    body = json.dumps(TOKEN).encode()
    packed = gzip.compress(body)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (packed[:7], packed[7:])) + b"0\r\n\r\n"
    with Server(
        reply(packed, headers={"Content-Encoding": "gzip"}),
        raw(head(200, {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}) + chunks),
        raw(head() + body),
    ) as server:
        assert [post(server.url()).body for _ in range(3)] == [body] * 3


def test_cookies_are_not_kept():
    with Server(json_reply(TOKEN, headers={"Set-Cookie": "sid=1; Path=/"})) as server:
        sender = transport()
        for _ in range(2):
            sender.post(request(server.url()), Deadline(10))
    assert server.accepted == 2
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status):
    with Server(json_reply(TOKEN)) as other, Server(redirect(other.url(), status=status)) as server:
        got = post(server.url())
        with pytest.raises(ServerError, match=r"redirected .* to '127\.0\.0\.1'"):
            read_answer(got, request=request(server.url()))
    assert other.accepted == 0
    assert len(server.requests) == 1


def test_a_netrc_is_not_read(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login svc password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Server(json_reply(TOKEN)) as server:
        post(server.url())
    assert "authorization" not in server.requests[0].headers


# Servers that are not there, or break off


def test_a_refused_connection_is_a_connection_fault():
    port = free_port()
    error = failure(f"http://127.0.0.1:{port}/t", ConnectionFault)
    assert error.message == f"the server '127.0.0.1:{port}' was not reached: connection refused"


@pytest.mark.parametrize("host", ["as.example.test", "nowhere.invalid"])
def test_a_name_that_does_not_resolve_is_a_connection_fault(host):
    error = failure(f"https://{host}/t", ConnectionFault)
    assert error.message == f"the server '{host}:443' was not found: its name does not resolve"


WHOLE = head(length=100) + b'{"access_token": "AT-mar'
CHUNK = head(headers={"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n"


@pytest.mark.parametrize(
    "part",
    [b"", b"HTTP/1.1 2", head()[:40], head(), WHOLE, CHUNK, CHUNK + b"5\r\nhe", CHUNK + b"5", head(length=7)],
    ids=["nothing", "status line", "header", "no body", "body", "chunk", "in a chunk", "before a size", "header only"],
)
@pytest.mark.parametrize("end", [close_after, reset_after])
def test_an_answer_that_is_not_whole_is_a_connection_fault(end, part):
    with Server(end(part)) as server:
        error = failure(server.url(), ConnectionFault)
    assert "before a whole answer" in error.message
    assert f"'127.0.0.1:{server.port}'" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02F",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 200 + b"\r\n",
    ],
    ids=["ssh", "no status", "tls", "version", "long line", "many lines"],
)
def test_what_is_not_http_is_the_servers_fault(data):
    with Server(raw(data)) as server:
        assert "HTTP" in failure(server.url(), ServerError).message


def test_a_body_that_does_not_decompress_is_the_servers_fault_unless_the_status_says_all():
    spoilt = {"body": b"no gzip at all", "headers": {"Content-Encoding": "gzip"}}
    with Server(reply(**spoilt), reply(status=503, **spoilt)) as server:
        assert "decompress" in failure(server.url(), ServerError).message
        got = post(server.url())
    assert (got.status, got.body) == (503, b"")


# Servers that take too long


def test_a_silent_server_is_left_at_the_deadline():
    with Server(silent()) as server:
        began = time.monotonic()
        error = failure(server.url(), NetworkError, seconds=0.4)
        assert time.monotonic() - began < 2
    assert error.message == f"no answer from the server '127.0.0.1:{server.port}' within 0.4 s"
    assert error.hint is not None
    assert "--timeout" in error.hint


def test_a_silent_server_is_left_before_the_deadline_where_that_is_far():
    with Server(silent()) as server:
        error = failure(server.url(), ReadTimeout, seconds=30, patience=0.2)
    assert "was silent for 0.2 s" in error.message


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        head(length=10000),
        head(),
        head(200, {"Content-Encoding": "gzip"}) + b"\x1f\x8b\x08\x10",
        head(200, {"Transfer-Encoding": "chunked"}) + b"1000\r\n",
    ],
    ids=["header", "body", "body without a length", "gzip header", "chunk"],
)
def test_a_dripping_server_is_left_at_the_deadline(start):
    with Server(drip(start, every=0.02)) as server:
        began = time.monotonic()
        error = failure(server.url(), NetworkError, seconds=0.5)
        assert time.monotonic() - began < 2
    assert "within 0.5 s" in error.message


@pytest.mark.skipif(not hasattr(urllib3.HTTPResponse, "read1"), reason="urllib3 before 2.1: deadline.run alone ends it")
def test_a_dripping_body_is_left_at_the_deadline_by_the_transport_itself():
    with Server(drip(head(length=10_000), every=0.02)) as server, pytest.raises(NetworkError, match=r"within 0\.5 s"):
        transport().post(request(server.url()), Deadline(0.5))


def test_nothing_is_sent_after_the_deadline():
    with Server(json_reply(TOKEN)) as server, pytest.raises(NetworkError, match="within 0 s"):
        transport().post(request(server.url()), Deadline(0))
    assert server.accepted == 0


def test_a_deadline_may_be_absent():
    with Server(json_reply(TOKEN)) as server:
        assert transport().post(request(server.url()), Deadline(None)).status == 200


# Servers that send too much


def test_a_long_body_is_cut_and_not_read_to_its_end():
    with Server(flood(head(length=64 * BODY_LIMIT), b"x" * 65536, 1024)) as server:
        got = post(server.url())
    assert got.cut
    assert len(got.body) == BODY_LIMIT
    assert server.sent < 32 * BODY_LIMIT
    with pytest.raises(ServerError, match="1 MiB"):
        read_answer(got, request=request(server.url()))


def test_a_body_of_exactly_one_mebibyte_is_whole():
    with Server(reply(b"x" * BODY_LIMIT)) as server:
        got = post(server.url())
    assert not got.cut
    assert len(got.body) == BODY_LIMIT


def test_a_gzip_bomb_stops_early():
    bomb = gzip_bomb(32)
    with Server(bomb) as server:
        sender = transport()
        tracemalloc.start()
        try:
            got = sender.post(request(server.url()), Deadline(10))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert got.cut
    assert len(got.body) == BODY_LIMIT
    assert peak < 12 * BODY_LIMIT


def test_a_server_error_counts_however_long_its_body_is():
    with Server(flood(head(503, length=64 * BODY_LIMIT), b"x" * 65536, 1024)) as server:
        got = post(server.url())
    with pytest.raises(NetworkError, match="503"):
        read_answer(got, request=request(server.url()))


# TLS


def test_a_ca_file_is_believed(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost", "127.0.0.1")) as server:
        for name in ("localhost", "127.0.0.1"):
            assert post(server.url(name=name), ca_file=authorities.ours.file).status == 200


def test_beside_a_ca_file_nothing_is_believed(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        sender = transport(ca_file=authorities.ours.file)
        sender.post(request(server.url(name="localhost")), Deadline(10))
    assert sender._context is not None
    assert sender._context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_of_the_environment_is_believed_unless_one_is_named(authorities, variable):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        environ = {variable: authorities.ours.file}
        assert post(server.url(name="localhost"), environ=environ).status == 200
        failure(server.url(name="localhost"), TlsFault, environ=environ, ca_file=authorities.other.file)
        environ = {variable: authorities.other.file}
        failure(server.url(name="localhost"), TlsFault, environ=environ)
        assert post(server.url(name="localhost"), environ=environ, ca_file=authorities.ours.file).status == 200


def test_ssl_cert_file_goes_before_requests_ca_bundle(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        environ = {"SSL_CERT_FILE": authorities.ours.file, "REQUESTS_CA_BUNDLE": authorities.other.file}
        assert post(server.url(name="localhost"), environ=environ).status == 200


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_hashed_folder_of_the_environment_is_believed(authorities, variable, tmp_path):
    hashed = os.popen(f"openssl x509 -in '{authorities.ours.file}' -noout -subject_hash").read().strip()
    if not hashed:
        pytest.skip("no openssl command")
    (tmp_path / f"{hashed}.0").symlink_to(authorities.ours.file)
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        assert post(server.url(name="localhost"), environ={variable: str(tmp_path)}).status == 200


@pytest.mark.parametrize("shape", ["crlf", "bom", "no last line end", "company", "der", "both"])
def test_a_ca_file_is_read_in_every_usual_shape(authorities, shape, tmp_path):
    pem = pathlib.Path(authorities.ours.file).read_bytes()
    other = pathlib.Path(authorities.other.file).read_bytes()
    data = {
        "crlf": pem.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + pem,
        "no last line end": pem.rstrip(),
        "company": "Aussteller: Prüfstelle\n".encode() + pem + b"# end\n",
        "der": ssl.PEM_cert_to_DER_cert(pem.decode()),
        "both": other + pem,
    }[shape]
    path = tmp_path / "ca.crt"
    path.write_bytes(data)
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        assert post(server.url(name="localhost"), ca_file=str(path)).status == 200


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("source", ["flag", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_without_a_certificate_is_refused_before_anything_is_signed(content, source, tmp_path):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    flag = str(path) if source == "flag" else None
    environ = {} if source == "flag" else {source: str(path)}
    with pytest.raises(ConfigError) as caught:
        transport(ca_file=flag, environ=environ).prepare("https://as.example.test/t")
    assert str(path) in caught.value.message
    assert source == "flag" or source in caught.value.message


def test_a_ca_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="SSL_CERT_DIR"):
        tls.context(None, {"SSL_CERT_DIR": str(tmp_path / "absent")}, print)
    with pytest.raises(ConfigError, match="is a directory"):
        tls.context(str(tmp_path), {}, print)


def test_without_any_setting_some_list_of_cas_is_believed():
    made = tls.context(None, {}, print)
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    assert made.keylog_filename is None


def test_a_ca_that_is_not_known_is_a_tls_fault_with_a_hint(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        error = failure(server.url(name="localhost"), TlsFault, ca_file=authorities.other.file)
        failure(server.url(name="localhost"), TlsFault)
    assert f"'localhost:{server.port}' comes from a CA that is not trusted here" in error.message
    assert "--ca-file" in (error.hint or "")
    assert server.requests == []


@pytest.mark.parametrize("names", [["as.example.test"], ["127.0.0.1"], ["localhost.example.test", "*.localhost"]])
def test_a_certificate_for_another_name_is_a_tls_fault(authorities, names):
    with Server(json_reply(TOKEN), tls=authorities.ours.context(*names)) as server:
        error = failure(server.url(name="localhost"), TlsFault, ca_file=authorities.ours.file)
    assert "is for another name" in error.message
    assert server.requests == []


def test_a_certificate_for_another_address_is_a_tls_fault(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.2")) as server:
        assert "is for another address" in failure(server.url(), TlsFault, ca_file=authorities.ours.file).message


@pytest.mark.parametrize(("begins", "ends", "words"), [(-9, -1, "has expired"), (1, 9, "is not valid yet")])
def test_a_certificate_out_of_its_time_is_a_tls_fault(authorities, begins, ends, words):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost", begins=begins, ends=ends)) as server:
        error = failure(server.url(name="localhost"), TlsFault, ca_file=authorities.ours.file)
    assert words in error.message
    assert "clock" in (error.hint or "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_version_is_a_tls_fault(authorities):
    context = authorities.ours.context("localhost")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Server(json_reply(TOKEN), tls=context) as server:
        assert "TLS" in failure(server.url(name="localhost"), TlsFault, ca_file=authorities.ours.file).message


def test_a_server_that_speaks_no_tls_is_a_tls_fault(authorities):
    with Server(reply(b"this is plain http", status=400), deaf=True) as server:
        error = failure(server.url(name="localhost").replace("http:", "https:"), TlsFault)
    assert "does not speak TLS" in error.message


def test_a_connection_that_closes_in_the_handshake_is_a_connection_fault():
    with Server(close_after(b""), deaf=True) as server:
        failure(server.url(name="localhost").replace("http:", "https:"), ConnectionFault)


def test_a_key_log_is_dropped_with_one_warning(authorities, tmp_path, monkeypatch):
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    warnings: list[str] = []
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        sender = transport(environ=dict(os.environ), ca_file=authorities.ours.file, warnings=warnings)
        for _ in range(2):
            assert sender.post(request(server.url(name="localhost")), Deadline(10)).status == 200
    assert not log.exists()
    assert len(warnings) == 1
    assert "SSLKEYLOGFILE" in warnings[0]


# Proxies


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
    with Server(tunnel(server.port), tls=authorities.ours.context("localhost")) as way:
        settings = {"proxy": f"https://localhost:{way.port}", "ca_file": authorities.ours.file}
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
    with Server(json_reply(TOKEN), tls=authorities.ours.context("localhost")) as server:
        url = server.url(name="localhost")
        assert post(url, environ=tunnelled, ca_file=authorities.ours.file).status == 200


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
        error = failure("https://as.example.test/t", ProxyFault, **settings)
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


# Imports


def test_requests_is_imported_by_the_transport_alone():
    code = "import sys, hsmjwt.oauth.exchange; print('requests' in sys.modules, 'ssl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
