from __future__ import annotations

import base64
import json
import random
from urllib.parse import quote, quote_plus

import pytest
from servers.answers import JWT, SECRET, TOKEN, answer, read, refused, request, token

from hsmjwt.errors import ServerError
from hsmjwt.oauth import redact
from hsmjwt.oauth.exchange import (
    BODY_LIMIT,
    read_answer,
)

FORM = f"access_token={TOKEN}&scope=read%2Cwrite&token_type=bearer&expires_in=600".encode()
NESTED = b'{"access_token":"%s","a":' % TOKEN.encode() + b"[" * 40 + b"]" * 40 + b"}"
SENSELESS = {
    "form": FORM,
    "html": f"<html><body><p>access token: {TOKEN}</p></body></html>".encode(),
    "xml": f"<r><access_token>{TOKEN}</access_token></r>".encode(),
    "yaml": f"access_token: {TOKEN}\ntoken_type: Bearer\n".encode(),
    "bare token": TOKEN.encode(),
    "bare token in quotes": f'"{TOKEN}"'.encode(),
    "bare word in quotes": b'"my.marker.word"',
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_an_answer_in_another_encoding_is_not_shown_at_all(encoding):
    assert "bytes that are no text" in refused(json.dumps(token()).encode(encoding)).message


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
    basic = base64.b64encode(f"cid:{secret}".encode()).decode()
    body = {"error": "invalid_client", "error_description": f"secret {secret} is wrong ({quote(secret)}, {basic})"}
    with pytest.raises(ServerError) as caught:
        read_answer(answer(body, status=401), request=request(client_secret=secret))
    assert secret not in caught.value.message
    assert quote(secret) not in caught.value.message
    assert basic not in caught.value.message
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
        "no key for eyJtYXJrZXI6.e30.",
    ],
)
def test_what_is_called_a_secret_is_hidden_in_prose(text):
    assert "marker-51c2" not in redact.excerpt(text)
    assert "eyJ" not in redact.excerpt(text)


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


@pytest.mark.parametrize(
    "body",
    [
        token(token_type=f"type-{TOKEN}"),
        token(token_type=TOKEN),
        token(expires_in=f"soon {TOKEN}"),
        token(expires_in=[TOKEN]),
        token(error=TOKEN),
        token(error="x", error_description=f"not for {TOKEN}"),
        {"data": {"access_token": TOKEN}, "error": {"message": f"have {TOKEN}"}},
        {"refresh_tokens": [{"v": TOKEN}], "title": f"have {TOKEN}"},
        {"access_token": {"v": TOKEN}, "token_type": TOKEN, "message": f"have {TOKEN}"},
        {"id_token": TOKEN, "access_token": "a b", "error": f"no {TOKEN[:9]} nor {TOKEN[3:]}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [200, 400, 503])
def test_what_an_answer_hands_out_is_in_no_message_whichever_member_repeats_it(body, status):
    error = refused(body, status=status)
    assert "marker" not in f"{error.message} {error.hint} {error.oauth_error} {error!r}"


@pytest.mark.parametrize("name", ["token_type", "expires_in"])
def test_a_2xx_is_read_as_warily_in_its_members_as_in_its_body(name):
    opaque = "q7Xk2mVw9Z"  # under no telling name, and too short to be hidden in an error
    assert opaque not in refused(token(**{name: f"of {opaque}"})).message


def test_an_answer_with_more_secrets_than_can_be_compared_is_not_shown():
    long = "".join(random.Random(7).choices("abcdefghijklmnop", k=300_000))
    for body in ({"token": long, "detail": f"have {long[-40:]}"}, {"tokens": [long], "x": long[-40:]}):
        message = refused(body, status=400).message
        assert long[-20:] not in message
        assert "***" in message
