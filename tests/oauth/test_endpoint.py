from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.errors import UsageError
from hsmjwt.oauth.endpoint import check_endpoint, parse_endpoint

GOOD = [
    "https://as.example.test/token",
    "HTTPS://AS.example.test/token",
    "https://as.example.test",
    "https://as.example.test.:8443/a/b?tenant=x&y=%20",
    "https://xn--bcher-kva.example/t",
    "https://my_service:8443/t",
    "https://192.0.2.7/t",
    "https://[2001:db8::1]:8443/t",
    "http://127.0.0.1:8080/t",
    "http://127.255.0.9/t",
    "http://localhost/t",
    "http://LOCALHOST:1/t",
    "http://[::1]:8080/t",
    "http://[0:0:0:0:0:0:0:1]/t",
]
BAD = [
    "",
    "as.example.test/token",
    "//as.example.test/token",
    "ftp://as.example.test/t",
    "file:///etc/passwd",
    "https:as.example.test",
    "https:///t",
    "https://",
    "https://:443/t",
    "http://as.example.test/t",
    "http://127.0.0.1.example.test/t",
    "http://localhost.example.test/t",
    "http://localhost./t",
    "http://127.0.0.1@example.test/t",
    "http://localhost:80@example.test/t",
    "http://example.test#@127.0.0.1/t",
    "http://example.test\\@127.0.0.1/t",
    "http://127.0.0.1\\.example.test/t",
    "https://as.example.test/a\\b",
    "http://0.0.0.0/t",
    "https://0.0.0.0/t",
    "https://[::]/t",
    "http://127.1/t",
    "https://127.1/t",
    "http://0x7f.0.0.1/t",
    "http://0x7f000001/t",
    "http://2130706433/t",
    "http://017700000001/t",
    "http://127.0.0.01/t",
    "http://127.0.0.1./t",
    "http://[::ffff:127.0.0.1]/t",
    "http://[::1%25lo]/t",
    "http://[::1]x/t",
    "http://[::1/t",
    "http://%31%32%37.0.0.1/t",
    "http://ⓛocalhost/t",
    "http://127。0.0.1/t",
    "https://bücher.example/t",
    "https://as.example.test/tök",
    "https://user:pw@as.example.test/t",
    "https://@as.example.test/t",
    "https://as.example.test/t#f",
    "https://as.example.test/t#",
    "https://as.example.test:0/t",
    "https://as.example.test:65536/t",
    "https://as.example.test:abc/t",
    "https://as.example.test:/t",
    "https://as.example.test:+443/t",
    "https://as.example.test:44٣/t",
    "https://as.example.test:443:443/t",
    " https://as.example.test/t",
    "https://as.example.test/t\n",
    "https://as.example\t.test/t",
    "https://as..example.test/t",
    "https://.as.example.test/t",
    "https://*.example.test/t",
    "https://-as.example.test/t",
    f"https://{'a' * 64}.example.test/t",
    f"https://{'a.' * 130}test/t",
    "https://as.example.test/\x00",
    "https://as.example.test/\udc80",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_plain_https_url_or_http_to_this_machine_is_taken_as_it_is(url):
    assert check_endpoint(url) == url


@pytest.mark.parametrize("url", BAD)
def test_any_other_url_is_refused(url):
    with pytest.raises(UsageError) as caught:
        check_endpoint(url)
    assert caught.value.message.isprintable()
    assert not caught.value.message.endswith(".")


@pytest.mark.parametrize("url", ["https://svc:Pr0xyS3cret@as.example.test/t", "http://svc:Pr0xy/S3cret@127.0.0.1/t"])
def test_a_password_in_a_url_is_not_shown(url):
    with pytest.raises(UsageError) as caught:
        check_endpoint(url)
    assert "Pr0xy" not in caught.value.message
    assert "S3cret" not in caught.value.message


def test_a_refused_urls_query_is_not_shown():
    with pytest.raises(UsageError) as caught:
        check_endpoint("http://as.example.test/t?client_secret=hunter2")
    assert "hunter2" not in caught.value.message


def test_only_loopback_is_this_machine():
    assert [parse_endpoint(url).loopback for url in GOOD] == [False] * 8 + [True] * 6


_ODD = st.text(
    alphabet=st.sampled_from("htps:/\\@#?[]%.0123456789abcxyzlo-_ \t\n\u3002\u00fc\u2488"), min_size=0, max_size=40
)


@given(st.sampled_from(["", "http://", "https://", "http://127.0.0.1", "http://localhost", "https://[::1"]), _ODD)
def test_whoever_parses_a_url_that_is_taken_sees_the_same_host(start, rest):
    try:
        endpoint = parse_endpoint(start + rest)
    except UsageError:
        return
    prepared = requests.Request("POST", endpoint.url).prepare().url
    for seen in (urlsplit(endpoint.url), urlsplit(prepared)):
        assert seen.scheme == endpoint.scheme
        assert (seen.hostname, seen.port or endpoint.port) == (endpoint.host, endpoint.port)
        assert seen.username is None
        assert seen.fragment == ""
    assert endpoint.scheme == "https" or endpoint.host in ("localhost", "::1") or endpoint.host.startswith("127.")
