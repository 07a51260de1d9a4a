from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import tracemalloc

import pytest
import urllib3
from servers.posting import TOKEN, failure, post, request, transport
from servers.scripted import (
    Server,
    close_after,
    drip,
    flood,
    free_port,
    gzip_bomb,
    head,
    json_reply,
    later,
    raw,
    redirect,
    reply,
    reset_after,
    silent,
)

from hsmjwt.deadline import Deadline
from hsmjwt.errors import HsmjwtError, NetworkError, ServerError
from hsmjwt.oauth.exchange import BODY_LIMIT, read_answer
from hsmjwt.oauth.failure import ConnectionFault, ReadTimeout


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


def test_plain_http_goes_to_this_machine_by_address():
    with Server(json_reply(TOKEN)) as server:
        assert post(server.url()).status == 200


def test_plain_http_goes_to_this_machine_by_name(named_host):
    with Server(json_reply(TOKEN)) as server:
        assert post(server.url(name=named_host)).status == 200


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


def test_an_answer_without_content_is_whole():
    with Server(raw(head(204))) as server:
        assert (post(server.url()).status, server.accepted) == (204, 1)


def test_a_probe_asks_without_an_assertion():
    with Server(json_reply({"error": "invalid_request"}, status=405)) as server:
        assert transport().probe(server.url(), Deadline(10)).status == 405
    (asked,) = server.requests
    assert (asked.method, asked.target, asked.body) == ("GET", "/token", b"")
    assert asked.headers["user-agent"].startswith("hsmjwt/")


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


def test_a_silent_server_is_left_at_the_deadline():
    with Server(silent()) as server:
        began = time.monotonic()
        error = failure(server.url(), NetworkError, seconds=0.4)
        assert time.monotonic() - began < 2
    assert error.message == f"no answer from the server '127.0.0.1:{server.port}' within 0.4 s"
    assert error.hint is not None
    assert "--timeout" in error.hint


def test_a_silent_server_is_left_at_the_deadline_by_the_transport_itself():
    with Server(silent()) as server, pytest.raises(NetworkError, match=r"no answer from .* within 0\.3 s"):
        transport().post(request(server.url()), Deadline(0.3))


def test_a_silent_server_is_left_where_there_is_no_deadline():
    with Server(silent()) as server:
        error = failure(server.url(), ReadTimeout, seconds=None, patience=0.2)
    assert "was silent for 0.2 s" in error.message


def test_a_server_may_think_for_as_long_as_the_deadline_allows():
    with Server(later(0.5, json_reply(TOKEN))) as server:
        assert post(server.url(), patience=0.2).status == 200


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


def post_and_peak(url):
    """Return the answer to a post, and the most memory that it took, in bytes."""
    sender = transport()
    tracemalloc.start()
    try:
        return sender.post(request(url), Deadline(10)), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_stops_early():
    bomb = gzip_bomb(32)
    with Server(bomb) as server:
        got, peak = post_and_peak(server.url())
    assert got.cut
    assert len(got.body) == BODY_LIMIT
    assert peak < 12 * BODY_LIMIT


def test_a_server_error_counts_however_long_its_body_is():
    with Server(flood(head(503, length=64 * BODY_LIMIT), b"x" * 65536, 1024)) as server:
        got = post(server.url())
    with pytest.raises(NetworkError, match="503"):
        read_answer(got, request=request(server.url()))


def test_requests_is_imported_by_the_transport_alone():
    code = "import sys, hsmjwt.oauth.exchange; print('requests' in sys.modules, 'ssl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "location", [b"http://[", b"http://\xff\xfe/", b"\xc3\x28", b"http://[::1]:x/", b"\x00", b"//[", b"http://a:99999/"]
)
def test_a_redirect_to_nowhere_that_can_be_read_is_a_redirect(location):
    with Server(raw(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")) as server:
        got = post(server.url())
    with pytest.raises(ServerError, match=r"redirected \(302\)") as caught:
        read_answer(got, request=request(server.url()))
    assert caught.value.message.isprintable()


def test_a_redirects_body_is_not_read():
    start = head(302, {"Location": "/elsewhere"}, length=300 * BODY_LIMIT)
    with Server(flood(start, b"x" * 65536, 4800)) as server:
        got, peak = post_and_peak(server.url())
    assert (got.status, got.body) == (302, b"")
    assert server.sent < 32 * BODY_LIMIT
    assert peak < 4 * BODY_LIMIT


@pytest.mark.parametrize("lengths", [b"Content-Length: 3, 4", b"Content-Length: 2\r\nContent-Length: 4"])
def test_a_header_that_a_parser_gives_up_on_makes_no_sense(lengths):
    with Server(raw(b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n\r\n{}")) as server:
        error = failure(server.url(), ServerError)
    assert error.message == f"the server '127.0.0.1:{server.port}' sent an answer that made no sense"


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: \xb2",
        b"Content-Length: -5",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: chunked\r\nX: y",
        b"Content-Encoding: gzip, \xff",
        b"Content-Encoding: " + b"gzip," * 100,
        b"Set-Cookie: a=b; Max-Age=\xb2; Version=x; Expires=Tue, 99 Foo 99999 99:99:99",
        b"Set-Cookie: a=b; max-age=" + b"9" * 5000,
        b'Content-Type: text/html; charset=\xff"',
        b"Date: \xff\r\nRetry-After: \xb2",
        b": nothing\r\n\x00\xff: z\r\nno colon",
    ],
)
@pytest.mark.parametrize("status", [b"200", b"302", b"400", b"503"])
def test_no_header_whatever_it_holds_is_more_than_a_failed_exchange(header, status):
    with (
        Server(raw(b"HTTP/1.1 " + status + b" \xff\r\n" + header + b"\r\n\r\n{}")) as server,
        pytest.raises(HsmjwtError),
    ):
        read_answer(post(server.url()), request=request(server.url()))


def test_two_lengths_are_an_answer_that_makes_no_sense():
    with Server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")) as server:
        assert "made no sense" in failure(server.url(), ServerError).message
