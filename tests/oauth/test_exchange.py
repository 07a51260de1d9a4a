from __future__ import annotations

import base64
import json
import random
from email.utils import formatdate
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.bearer import AccessToken
from hsmjwt.errors import BusyError, HsmjwtError, NetworkError, PolicyError, ServerError, UsageError
from hsmjwt.oauth import redact
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.exchange import (
    BODY_LIMIT,
    Answer,
    TokenRequest,
    build_request,
    check_endpoint,
    clock_difference,
    read_answer,
    retry_wait,
)
from hsmjwt.oauth.failure import BusyAnswer, ConnectionFault, ProxyFault, ProxyUnreached, ReadTimeout, TlsFault

NOW = 1_800_000_000.0
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJUZXN0Q2xpZW50In0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24tMDAx"
SECRET = "client/secret+=&9'\"<x>"
TOKEN = "AT-marker-51c2"


def request(**changed) -> TokenRequest:
    values = {"grant": "jwt-bearer", "url": "https://as.example.test/token", "jwt": JWT, "client_id": "cid"}
    return build_request(**{**values, "scope": None, "client_secret": SECRET, "form": {}, **changed})


def answer(body: bytes | object, *, status: int = 200, cut: bool = False, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=raw, sent_at=NOW, received_at=NOW + 2, cut=cut)


def read(body: bytes | object, **more) -> AccessToken:
    return read_answer(answer(body, **more), request=request())


def refused(body: bytes | object, **more) -> HsmjwtError:
    with pytest.raises(HsmjwtError) as caught:
        read(body, **more)
    return caught.value


def token(**members: object) -> dict[str, object]:
    return {"access_token": TOKEN, "token_type": "Bearer", **members}


# The request


def test_the_seeds_request_has_its_three_fields_in_order():
    made = request(client_secret=None)
    names = [name for name, _ in made.form]
    assert names == ["grant_type", "client_id", "assertion"]
    assert made.form[0][1] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert made.method == "POST"
    assert parse_qsl(made.body.decode()) == list(made.form)


def test_a_client_secret_follows_the_client_id_and_further_fields_come_last():
    names = [name for name, _ in request(scope="a b", form={"resource": "r", "x": "y"}).form]
    assert names == ["grant_type", "client_id", "client_secret", "assertion", "scope", "resource", "x"]


def test_a_client_assertion_authenticates_the_client():
    made = request(grant="client-assertion", client_secret=None, scope="s")
    assert made.form == (
        ("grant_type", "client_credentials"),
        ("client_id", "cid"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", JWT),
        ("scope", "s"),
    )


def test_each_request_asks_for_json():
    assert request().headers["Accept"] == "application/json"
    assert request().headers["User-Agent"].startswith("hsmjwt/")


@pytest.mark.parametrize("name", ["grant_type", "assertion", "client_assertion", "client_id"])
def test_a_field_that_is_set_already_cannot_be_added(name):
    with pytest.raises(UsageError, match=name):
        request(form={name: "x"})


def test_a_client_secret_beside_a_client_assertion_is_refused():
    with pytest.raises(UsageError, match="client secret"):
        request(grant="client-assertion")


def test_half_a_surrogate_pair_in_the_form_is_refused():
    with pytest.raises(UsageError, match="scope"):
        request(scope="a\udc80")


def test_a_request_shows_none_of_its_secrets():
    made = request(form={"password": "hunter2-hunter2"})
    for shown in (repr(made), str(made), str(made.shown_form()), str(made.__rich_repr__())):
        assert JWT not in shown
        assert SECRET not in shown
        assert "hunter2" not in shown
        assert "cid" in shown
    assert set(made.sent) == {JWT, SECRET, "hunter2-hunter2"}
    assert made.shown_form()["assertion"] == "***"


def test_an_answer_does_not_show_its_body():
    assert TOKEN not in repr(answer(token()))
    assert TOKEN not in str(answer(token()).__rich_repr__())


# The endpoint

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


# A token


def test_the_seeds_answer_is_taken_with_its_members_as_received():
    got = read({"access_token": TOKEN, "expires_in": 3600, "token_type": "bearer", "scope": None, "success": True})
    assert got.value == TOKEN
    assert got.token_type == "bearer"
    assert (got.fetched_at, got.expires_at) == (NOW, NOW + 3600)
    assert got.members == {"token_type": "bearer", "scope": None, "success": True}


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3600),
        ("3600", 3600),
        (3599.5, 3599.5),
        ("3599.5", 3599.5),
        (3600.0, 3600),
        ("3.6e3", 3600),
        (1, 1),
        (315359999, 315359999),
    ],
)
def test_a_life_is_a_number_or_numeric_text(expires_in, life):
    assert read(token(expires_in=expires_in)).expires_at == NOW + life


@pytest.mark.parametrize("expires_in", [0, 0.0, -0.0, "0", "0.0", "", None])
def test_no_life_is_no_reason_to_refuse(expires_in):
    got = read(token(expires_in=expires_in))
    assert got.expires_at is None
    assert "expires_in" not in got.members


def test_an_absent_life_is_no_reason_to_refuse():
    assert read(token()).expires_at is None


@pytest.mark.parametrize(
    "expires_in",
    [
        True,
        False,
        -1,
        -0.5,
        "-1",
        "soon",
        "3600s",
        " 3600",
        "1_000",
        "٣٦٠٠",
        "NaN",
        "Infinity",
        "1e999",
        "0x10",
        [3600],
        [],
        {},
        {"s": 3600},
        315576000,
        "315576000",
        10**20,
        "9" * 5000,
        "1 hour",
        " ",
        "\x1b[31m",
    ],
)
def test_any_other_life_is_refused(expires_in):
    error = refused(token(expires_in=expires_in))
    assert isinstance(error, ServerError)
    assert "expires_in" in error.message
    assert TOKEN not in error.message
    assert error.message.isprintable()


def test_adobes_expires_is_a_time_by_the_servers_clock():
    assert read(token(expires=NOW + 600)).expires_at == NOW + 600
    assert read(token(expires=NOW + 600), Date=formatdate(NOW + 100, usegmt=True)).expires_at == NOW + 500
    assert read(token(expires=NOW + 600)).members["expires"] == NOW + 600


@pytest.mark.parametrize("expires", [3600, "never", None, [], NOW - 1, NOW * 1000])
def test_an_expires_that_is_no_time_to_come_is_not_read(expires):
    assert read(token(expires=expires)).expires_at is None


def test_expires_in_goes_before_expires():
    assert read(token(expires_in=60, expires=NOW + 600)).expires_at == NOW + 60
    assert read(token(expires_in=0, expires=NOW + 600)).expires_at is None


def test_every_visible_ascii_character_is_good_in_a_token():
    value = "".join(map(chr, range(0x21, 0x7F)))
    assert read({"access_token": value, "token_type": "Bearer"}).value == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        7,
        True,
        ["AT-marker-51c2"],
        {"v": "AT-marker-51c2"},
        "AT marker-51c2",
        "AT-marker\n51c2",
        "AT-märker",
        "AT-marker-51c2 ",
        '"; touch PWNED #',
        "AT-marker\x7f",
        "AT-marker\x00",
    ],
)
def test_an_access_token_that_is_none_is_refused_and_not_shown(value):
    error = refused({"access_token": value, "token_type": "Bearer"})
    assert isinstance(error, ServerError)
    assert "access_token" in error.message
    assert "marker" not in error.message
    assert "PWNED" not in error.message


@pytest.mark.parametrize("value", [None, "", 7, ["Bearer"], "mac", "DPoP", "Bearer "])
def test_a_token_type_that_cannot_be_used_is_refused(value):
    error = refused({"access_token": TOKEN, "token_type": value})
    assert isinstance(error, ServerError)
    assert "type" in error.message
    assert TOKEN not in error.message


def test_the_caller_says_which_token_types_it_can_use():
    taken = read_answer(answer(token(token_type="DPoP")), request=request(), token_types=("bearer", "dpop"))
    assert taken.token_type == "DPoP"


# What is no token

FORM = f"access_token={TOKEN}&scope=read%2Cwrite&token_type=bearer&expires_in=600".encode()
NESTED = b'{"access_token":"%s","a":' % TOKEN.encode() + b"[" * 40 + b"]" * 40 + b"}"
SENSELESS = {
    "form": FORM,
    "html": f"<html><body><p>access token: {TOKEN}</p></body></html>".encode(),
    "xml": f"<r><access_token>{TOKEN}</access_token></r>".encode(),
    "yaml": f"access_token: {TOKEN}\ntoken_type: Bearer\n".encode(),
    "bare token": TOKEN.encode(),
    "bare token in quotes": f'"{TOKEN}"'.encode(),
    "list": json.dumps([TOKEN]).encode(),
    "list of an object": json.dumps([token()]).encode(),
    "cut": json.dumps(token())[:-3].encode(),
    "cut in the token": f'{{"token_type":"Bearer","access_token":"{TOKEN}'.encode(),
    "bad utf-8": b'{"access_token":"AT-marker\xff(\xfe-51c2","token_type":"Bearer"}',
    "utf-16": json.dumps(token()).encode("utf-16"),
    "utf-16 without a mark": json.dumps(token()).encode("utf-16-le"),
    "twice": f'{{"access_token":"a","access_token":"{TOKEN}","token_type":"Bearer"}}'.encode(),
    "NaN": f'{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":NaN}}'.encode(),
    "huge": f'{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":1e400}}'.encode(),
    "deep": NESTED,
    "trailing": json.dumps(token()).encode() + b" x",
    "single quotes": f"{{'access_token': '{TOKEN}'}}".encode(),
    "other name": json.dumps({"token": TOKEN}).encode(),
    "camel case": json.dumps({"accessToken": TOKEN}).encode(),
    "inside": json.dumps({"data": {"access_token": TOKEN}}).encode(),
    "in a list": json.dumps({"access_tokens": [TOKEN, {"x": TOKEN}]}).encode(),
    "under no name": json.dumps({"value": TOKEN}).encode(),
    "escaped": (f'{{"access\\u005ftoken": "{TOKEN}"}}').encode(),
    "as a name": json.dumps({TOKEN: 1}).encode(),
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("body", SENSELESS.values(), ids=SENSELESS.keys())
def test_an_answer_that_is_no_token_is_refused_with_what_was_seen_but_the_token(body):
    error = refused(body, Content_Type="application/x-www-form-urlencoded; charset=utf-8")
    assert isinstance(error, ServerError)
    assert (error.__cause__, error.__context__) == (None, None)
    assert "marker" not in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


def test_an_answer_that_is_not_json_names_its_content_type():
    error = refused(FORM, content_type="application/x-www-form-urlencoded; charset=utf-8")
    assert "application/x-www-form-urlencoded; charset=utf-8" in error.message
    assert "no content type" in refused(FORM).message


def test_json_under_another_content_type_is_taken():
    assert read(token(), Content_Type="text/html").value == TOKEN


def test_what_was_seen_of_a_page_is_shown_in_one_line_and_short():
    error = refused(b"<html>\n<h1>Gateway\x1b[31m login</h1>" + b"<p>all of it</p>" * 100, Content_Type="text/html")
    assert "<html>\\n<h1>Gateway\\x1b[31m login</h1>" in error.message
    assert len(error.message.partition("it sent ")[2]) == 200


def test_more_than_one_mebibyte_is_refused():
    body = json.dumps(token(pad="x" * BODY_LIMIT)).encode()
    assert "1 MiB" in refused(body).message
    assert "1 MiB" in refused(b"{", cut=True).message
    fits = json.dumps(token(pad="")).encode()
    assert read(json.dumps(token(pad="x" * (BODY_LIMIT - len(fits)))).encode()).value == TOKEN


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999])
def test_a_status_that_means_nothing_is_refused(status):
    assert isinstance(refused(token(), status=status), ServerError)


@pytest.mark.parametrize("status", [200, 201, 203])
def test_any_2xx_with_a_token_is_a_token(status):
    assert read(token(), status=status).value == TOKEN


# Errors


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_an_oauth_error_is_shown_with_code_and_description(status):
    text = "use [/token] or [link=http://x.test]this[/link] for [prod]"
    error = refused({"error": "invalid_grant", "error_description": text}, status=status)
    assert isinstance(error, ServerError)
    assert error.oauth_error == "invalid_grant"
    assert f"{status} invalid_grant: {text}" in error.message
    assert error.hint


def test_an_oauth_error_beside_a_token_is_an_error():
    error = refused(token(error="invalid_scope"))
    assert error.oauth_error == "invalid_scope"
    assert TOKEN not in error.message


@pytest.mark.parametrize("error", [None, "", False, {}])
def test_an_error_member_that_says_nothing_is_none(error):
    assert read(token(error=error)).value == TOKEN


@pytest.mark.parametrize(
    "body",
    [
        {"title": "Bad Request", "detail": "015-0008 Unable to generate a token"},
        {"message": "015-0008 Unable to generate a token"},
        {"error": {"status": "X", "message": "015-0008 Unable to generate a token"}},
        b"015-0008 Unable to generate a token",
        [{"text": "015-0008 Unable to generate a token"}],
    ],
)
def test_errors_in_other_dialects_are_shown(body):
    error = refused(body, status=400)
    assert isinstance(error, ServerError)
    assert "015-0008 Unable to generate a token" in error.message
    assert error.oauth_error is None


@pytest.mark.parametrize("body", [b"", {"error": "invalid_client", "error_description": None}])
def test_an_error_without_words_is_told_by_its_status(body):
    assert "401" in refused(body, status=401).message


def test_ids_for_the_servers_support_are_shown():
    text = "AADSTS700027: not registered. Trace ID: 0b7d2c9a-1f43-4f0e-9a52-3f1c7ab0d200 Time: 2026-11-25 17:49:00Z"
    assert text in refused({"error": "invalid_client", "error_description": text}, status=401).message
    text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe"
    assert text in refused({"error": "invalid_grant", "error_description": text}, status=400).message


def test_a_description_is_cut_and_its_control_characters_are_escaped():
    text = "\x1b]0;pwn\x07\r\n\u202e\u2028" + "no " * 200
    message = refused({"error": "invalid_grant", "error_description": text}, status=400).message
    assert message.isprintable()
    assert "\\x1b]0;pwn\\x07\\r\\n\\u202e\\u2028" in message
    assert len(message.partition("invalid_grant: ")[2]) == 200


def spelled(secret: str) -> list[str]:
    basic = base64.b64encode(f"cid:{secret}".encode()).decode()
    forms = [
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        quote(secret, safe="").lower(),
        secret[5:],
        secret[:14],
    ]
    return [*forms, json.dumps(secret)[1:-1], basic, secret.encode().hex(), base64.b64encode(secret.encode()).decode()]


@pytest.mark.parametrize("shape", ["description", "code", "body", "nested", "page", "form", "name"])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_what_we_sent_comes_back_in_no_message(shape, status):
    for secret in (JWT, SECRET):
        for text in spelled(secret):
            echo = f"cannot read '{text}' (assertion)"
            body = {
                "description": {"error": "invalid_grant", "error_description": echo},
                "code": {"error": text},
                "body": {"what": echo},
                "nested": {"error": {"message": echo, "details": [{"x": [echo]}]}},
                "page": f"<html><pre>{echo}</pre></html>".encode(),
                "form": f"error=bad&got={text}".encode(),
                "name": {text: 1},
            }[shape]
            error = refused(body, status=status)
            shown = f"{error.message} {error.hint} {error.oauth_error} {error!r}"
            pieces = [text[i : i + 9] for i in range(len(text) - 8)]
            assert not [piece for piece in pieces if piece in shown], (text, shown)


@pytest.mark.parametrize("secret", ["abc", "p4ss", "zebra", "ünïcode-sécret"])
def test_a_short_secret_comes_back_in_no_message(secret):
    body = {"error": "invalid_client", "error_description": f"secret {secret} is wrong ({quote(secret)})"}
    with pytest.raises(ServerError) as caught:
        read_answer(answer(body, status=401), request=request(client_secret=secret))
    assert secret not in caught.value.message
    assert quote(secret) not in caught.value.message
    assert "is wrong" in caught.value.message


def test_random_tokens_are_recognised_and_words_are_not():
    rng = random.Random(7)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for size in (32, 43, 64, 256):
        for alphabet in (letters, "0123456789abcdef"):
            for _ in range(50):
                opaque = "".join(rng.choice(alphabet) for _ in range(size))
                assert opaque not in redact.excerpt(f"no such thing: {opaque} here")
    for text in (
        "https://login.example.test/oauth2/v2/token is the urn:ietf:params:oauth:grant-type:jwt-bearer endpoint",
        "JwtBearerAssertionIsNotValidException at com.example.oauth.TokenEndpoint",
        "use /realms/production/protocol/openid-connect/token instead of client-registration-2",
    ):
        assert redact.excerpt(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "access_token=AT-marker-51c2&x=1",
        "access_token: AT-marker-51c2",
        "token 'AT-marker-51c2' is unknown",
        'client_secret = "AT marker-51c2"',
        "password: AT-marker-51c2",
        "Authorization: AT-marker-51c2",
        "id_token=>AT-marker-51c2",
        "{'refresh_token': 'AT-marker-51c2'}",
        "sid_cookie=AT-marker-51c2; path=/",
    ],
)
def test_what_is_called_a_secret_is_hidden_in_prose(text):
    assert "marker-51c2" not in redact.excerpt(text)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_the_host_and_nothing_else_of_the_target(status):
    error = refused(b"", status=status, Location=f"https://svc:pw@evil.example.test:1/x?assertion={JWT}")
    assert isinstance(error, ServerError)
    assert f"redirected ({status})" in error.message
    assert "'evil.example.test'" in error.message
    for secret in (JWT[:12], "svc", "pw@"):
        assert secret not in error.message


@pytest.mark.parametrize("location", ["/elsewhere", "", "http://[", f"https://{JWT}/", "https://\x1b[31m.test/"])
def test_an_odd_redirect_is_a_redirect(location):
    message = refused(b"", status=302, location=location).message
    assert "redirected" in message
    assert message.isprintable()
    assert "eyJ" not in message


# Busy servers and waiting


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 507, 599])
def test_a_busy_or_broken_server_is_a_network_error_whatever_its_body_says(status):
    for body in (b"", b"<html>", {"error": "invalid_grant"}, token()):
        error = refused(body, status=status)
        assert isinstance(error, NetworkError)
        assert str(status) in error.message
        assert TOKEN not in error.message
    assert refused({"error": "temporarily_unavailable"}, status=status).oauth_error == "temporarily_unavailable"


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("9" * 400, 31557600.0),
    ],
)
def test_retry_after_is_a_number_of_seconds(field, seconds):
    error = refused(b"", status=503, Retry_After=field)
    assert isinstance(error, BusyAnswer)
    assert error.retry_after == seconds


def test_retry_after_is_a_date_by_the_servers_clock():
    def wait(until: float, **more: str) -> float | None:
        error = refused(b"", status=429, Retry_After=formatdate(until, usegmt=True), **more)
        assert isinstance(error, BusyAnswer)
        return error.retry_after

    assert wait(NOW + 12) == 10  # the answer came two seconds after the request was sent
    assert wait(NOW - 60) == 0
    assert wait(NOW + 3610, Date=formatdate(NOW + 3600, usegmt=True)) == 10


def test_three_requests_at_most_with_waits_around_half_a_second_and_a_second():
    fault = ConnectionFault("x")
    assert [retry_wait(fault, n, rand=lambda: 0.5) for n in (1, 2, 3, 4)] == [0.5, 1.0, None, None]
    assert [retry_wait(fault, n, rand=lambda: 0.0) for n in (1, 2)] == [0.25, 0.5]
    waits = [retry_wait(fault, 2, rand=random.Random(3).random) for _ in range(100)]
    assert all(wait is not None and 0.5 <= wait < 1.5 for wait in waits)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_what_it_asks_for(status):
    assert retry_wait(BusyAnswer("x", status=status), 1, rand=lambda: 0.5) == 0.5
    assert retry_wait(BusyAnswer("x", status=status, retry_after=20.0), 2, rand=lambda: 0.5) == 20.0
    assert retry_wait(BusyAnswer("x", status=status, retry_after=0.0), 1, rand=lambda: 0.5) == 0.0
    assert retry_wait(BusyAnswer("x", status=status, retry_after=1.0), 3, rand=lambda: 0.5) is None


@pytest.mark.parametrize(
    "fault",
    [
        TlsFault("x"),
        ReadTimeout("x"),
        ProxyFault("x"),
        NetworkError("x"),
        ServerError("x"),
        PolicyError("x"),
        BusyError("x"),
    ]
    + [BusyAnswer("x", status=status, retry_after=1.0) for status in (500, 501, 505)],
)
def test_what_may_have_been_processed_or_will_not_get_better_is_not_asked_again(fault):
    assert retry_wait(fault, 1, rand=lambda: 0.5) is None


def test_a_proxy_that_was_not_reached_is_asked_again():
    assert retry_wait(ProxyUnreached("x"), 1, rand=lambda: 0.5) == 0.5


# Clocks


def test_the_clock_difference_is_taken_at_the_middle_of_the_request():
    assert clock_difference(answer(b"", Date=formatdate(NOW + 43, usegmt=True))) == 42
    assert clock_difference(answer(b"", date=formatdate(NOW - 41, usegmt=True))) == -42
    assert clock_difference(answer(b"")) is None


@pytest.mark.parametrize("date", ["", "soon", "Tue, 99 Nov 2026 25:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "0"])
def test_a_date_that_is_none_tells_nothing(date):
    assert clock_difference(answer(b"", Date=date)) is None


@pytest.mark.parametrize(("ahead", "words"), [(43, "42 s behind"), (-41, "42 s ahead of"), (7, "6 s behind")])
@pytest.mark.parametrize("body", [{"error": "invalid_grant"}, {"error": "invalid_client"}, {"title": "no"}, b""])
def test_a_clock_that_differs_is_named_when_the_assertion_is_refused(ahead, words, body):
    error = refused(body, status=400, Date=formatdate(NOW + ahead, usegmt=True))
    assert error.hint is not None
    assert f"this clock is {words} the server's" in error.hint


def test_clocks_within_five_seconds_are_not_named():
    error = refused({"error": "invalid_grant"}, status=400, Date=formatdate(NOW + 6, usegmt=True))
    assert "clock" not in (error.hint or "")
