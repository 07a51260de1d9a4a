"""The demo's authorization server, over real HTTP on loopback and with JWTs made by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hsmjwt.demo import Client, DemoServer, Stats

KEY, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
START = 1_800_000_000
HEADER = {"typ": "JWT", "alg": "RS256"}
fresh = itertools.count()


def pem(key) -> str:
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*kinds).decode()


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rs256(message: bytes, key=KEY) -> bytes:
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def by_other(message: bytes) -> bytes:
    return rs256(message, OTHER)


def pss(message: bytes) -> bytes:
    return KEY.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def mac(message: bytes) -> bytes:
    """What HS256 with the public key as its secret gives."""
    return hmac.digest(pem(KEY).encode(), message, "sha256")


def nothing(_message: bytes) -> bytes:
    return b""


def jwt(claims, header=HEADER, sign=rs256) -> str:
    texts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    message = ".".join(b64u(text.encode()) for text in texts)
    return f"{message}.{b64u(sign(message.encode()))}"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(clock):
    app = Client(client_id="app", public_key_pem=pem(KEY))
    other = Client(client_id="other", public_key_pem=pem(OTHER), kid="other-1")
    with DemoServer([app, other], audiences=["api.omniture.com"], now=clock) as running:
        yield running


def claims_for(server, **changes):
    """Good claims with changes; `...` leaves one out."""
    claims = {"iss": "app", "sub": "user@org", "aud": server.token_url, "exp": START + 300, "iat": START}
    claims["jti"] = f"jti-{next(fresh)}"
    return {name: value for name, value in (claims | changes).items() if value is not ...}


def post(server, form):
    form = {name: value for name, value in form.items() if value is not ...}
    return requests.post(server.token_url, data=form, timeout=10)


def send(server, assertion, **form):
    return post(server, {"grant_type": JWT_BEARER, "assertion": assertion} | form)


def send_client(server, assertion, **form):
    typed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return post(server, {"grant_type": "client_credentials"} | typed | form)


def whoami(server, token=None, scheme="Bearer"):
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    return requests.get(f"{server.url}/api/whoami", headers=headers, timeout=10)


def refused(answer, error, words, status=400):
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error
    assert words in body["error_description"]
    return True


def test_a_good_assertion_buys_a_token_in_the_shape_of_the_seed(server):
    answer = send(server, jwt(claims_for(server)), client_id="app")
    assert answer.status_code == 200
    body = answer.json()
    assert len(body.pop("access_token")) > 40
    assert body == {"expires_in": 3600, "token_type": "bearer", "scope": None, "success": True}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert server.stats == Stats(granted=1, refused=0)


def test_the_token_opens_the_resource_until_its_life_ends(server, clock):
    token = send(server, jwt(claims_for(server)), scope="read write").json()["access_token"]
    whose = {"client_id": "app", "subject": "user@org", "scope": "read write", "expires_at": "2027-01-15T09:00:00Z"}
    assert whoami(server, token).json() == whose
    clock.time = START + 3599
    assert whoami(server, token, scheme="bearer").status_code == 200
    clock.time = START + 3600
    assert whoami(server, token).status_code == 401


def test_without_a_token_the_resource_stays_shut(server):
    for answer in (whoami(server), whoami(server, "dXNlcjpwYXNz", scheme="Basic")):  # RFC 6750, section 3.1: no error
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="hsmjwt demo"'
    for token in ("wrong", "", "a b"):
        answer = whoami(server, token)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


WRONG_CLAIMS = {
    "assertion expired": [{"exp": START - 5}, {"exp": -1e300}],
    "more than 3600 s ahead": [{"exp": START + 3606}, {"exp": 10**400}, {"exp": (START + 300) * 1000}],
    "'exp' must be a NumericDate": [{"exp": str(START + 300)}, {"exp": True}, {"exp": float("nan")}, {"exp": [1]}],
    "Missing claim: 'exp'": [{"exp": ...}, {"exp": None}],
    "issued in the future": [{"iat": START + 6}],
    "not yet valid": [{"nbf": START + 6}],
    "wrong audience": [{"aud": "https://elsewhere.example/token"}, {"aud": []}, {"aud": {"url": "x"}}],
    "Missing claim: 'aud'": [{"aud": ...}],
    "unknown client": [{"iss": "nobody"}, {"iss": ["app"]}, {"iss": ...}],
    "signature does not verify": [{"iss": "other"}],
    "'sub'": [{"sub": ...}, {"sub": ""}, {"sub": 7}],
    "'jti' must be": [{"jti": 7}, {"jti": None}],
}


@pytest.mark.parametrize("words", WRONG_CLAIMS)
def test_claims_that_do_not_hold_are_refused(server, words):
    for changes in WRONG_CLAIMS[words]:
        assert refused(send(server, jwt(claims_for(server, **changes))), "invalid_grant", words)
    assert server.stats == Stats(granted=0, refused=len(WRONG_CLAIMS[words]))


def test_the_audience_is_compared_letter_by_letter(server):
    for audience in ("{}", "{}/", "{}/token/", "{}/Token", "{}/token?x=1", " {}/token", "http://localhost/token"):
        answer = send(server, jwt(claims_for(server, aud=audience.format(server.url))))
        assert refused(answer, "invalid_grant", f"wrong audience: this server is {server.token_url}")
    for audience in ("api.omniture.com", [server.token_url], ["x", "api.omniture.com"]):
        assert send(server, jwt(claims_for(server, aud=audience))).status_code == 200


def test_five_seconds_of_clock_difference_are_forgiven(server):
    for changes in ({"exp": START - 4}, {"iat": START + 5}, {"nbf": START + 5}, {"exp": START + 3605}):
        assert send(server, jwt(claims_for(server, **changes))).status_code == 200


WRONG_HEADERS = {
    "signature does not verify": [(HEADER, by_other), (HEADER, nothing), (HEADER, mac), (HEADER, pss)],
    "unsigned": [({"alg": "none"}, nothing), ({"alg": "none"}, rs256)],
    "alg is none of RS256, ": [
        ({"alg": "None"}, nothing),
        ({"alg": "HS256"}, mac),
        ({"alg": "ES256K"}, rs256),
        ({"alg": "\xe9"}, rs256),
        ({"alg": ["RS256"]}, rs256),
        (HEADER | {"crit": ["exp"], "exp": 1}, rs256),
        (HEADER | {"b64": True}, rs256),
    ],
    "kid is not that": [(HEADER | {"kid": "wrong"}, rs256), (HEADER | {"kid": None}, rs256)],
    "no JWT in compact form": [
        ({"typ": "JWT"}, rs256),
        ('"alg"', rs256),
        ('["alg"]', rs256),
        ('{"alg":"RS256"', rs256),
        ('{"alg":"RS256","x":' + "[" * 20_000 + "]" * 20_000 + "}", rs256),
        (HEADER | {"crit": ["b64"], "b64": False}, rs256),
    ],
    "header is malformed": [(HEADER | {"x5c": "text"}, rs256)],
}


@pytest.mark.parametrize("words", WRONG_HEADERS)
def test_signatures_and_headers_that_do_not_hold_are_refused(server, words):
    for header, sign in WRONG_HEADERS[words]:
        assert refused(send(server, jwt(claims_for(server), header, sign)), "invalid_grant", words)


def test_claims_that_are_no_object_or_were_changed_are_refused(server):
    for claims in ("[]", '[["iss","app"]]', '"app"', "null", "7", "{", "[" * 30_000):
        assert refused(send(server, jwt(claims)), "invalid_grant", "no JWT in compact form")
    header, _, signature = jwt(claims_for(server)).split(".")
    changed = b64u(json.dumps(claims_for(server, sub="root")).encode())
    assert refused(send(server, f"{header}.{changed}.{signature}"), "invalid_grant", "signature does not verify")


def test_other_spellings_of_an_assertion_are_refused(server):
    good = jwt(claims_for(server))
    spare = good[:-1] + chr(ord(good[-1]) + 1)  # the bits of the last letter that carry nothing
    for other in (
        spare,
        good + "=",
        good + "\n",
        " " + good,
        good + ".x",
        good.replace(".", "..", 1),
        "x",
        "a.b.c.d.e",
    ):
        assert send(server, other).status_code == 400
    assert send(server, good).status_code == 200


def test_the_registered_keys_kid_and_unknown_headers_are_accepted(server):
    n = b64u(KEY.public_key().public_numbers().n.to_bytes(256, "big"))
    thumbprint = b64u(hashlib.sha256(f'{{"e":"AQAB","kty":"RSA","n":"{n}"}}'.encode()).digest())
    header = HEADER | {"x5c": ["A" * 2000], "x-note": "y", "kid": thumbprint}
    assert send(server, jwt(claims_for(server), header)).status_code == 200
    other = jwt(claims_for(server, iss="other"), HEADER | {"kid": "other-1"}, by_other)
    assert send(server, other).status_code == 200


def test_an_assertion_buys_one_token_with_and_without_a_jti(server):
    for jti in ("once", ...):
        assertion = jwt(claims_for(server, jti=jti))
        assert send(server, assertion).status_code == 200
        assert refused(send(server, assertion), "invalid_grant", "assertion replayed")


def test_a_jti_is_used_up_for_its_client_and_not_for_others(server):
    assert send(server, jwt(claims_for(server, jti="j"))).status_code == 200
    assert refused(send(server, jwt(claims_for(server, jti="j", exp=START + 301))), "invalid_grant", "replayed")
    assert refused(send_client(server, jwt(claims_for(server, jti="j", sub="app"))), "invalid_client", "replayed")
    assert send(server, jwt(claims_for(server, iss="other", jti="j"), sign=by_other)).status_code == 200


def test_a_refused_assertion_is_not_used_up(server, clock):
    assertion = jwt(claims_for(server, nbf=START + 10))
    assert refused(send(server, assertion), "invalid_grant", "not yet valid")
    assert refused(send(server, assertion, client_id="other"), "invalid_grant", "client_id")
    clock.time = START + 10
    assert send(server, assertion).status_code == 200


def test_a_replay_is_noticed_to_the_very_end_and_forgotten_after_it(server, clock):
    assertion = jwt(claims_for(server))
    assert send(server, assertion).status_code == 200
    clock.time = START + 304.9
    assert refused(send(server, assertion), "invalid_grant", "replayed")
    clock.time = START + 305
    assert refused(send(server, assertion), "invalid_grant", "expired")
    assert send(server, jwt(claims_for(server, exp=START + 400))).status_code == 200
    assert len(server._service._checks._used._values) == 1


def test_of_twenty_requests_with_one_jti_exactly_one_wins(server):
    assertions = [jwt(claims_for(server, jti="race", exp=START + 100 + number)) for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda assertion: send(server, assertion).status_code, assertions))
    assert sorted(codes) == [200] + [400] * 19
    assert server.stats == Stats(granted=1, refused=19)


def test_twenty_clients_at_once_are_all_served(server):
    assertions = [jwt(claims_for(server)) for _ in range(60)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda assertion: send(server, assertion), assertions))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 60


@pytest.mark.parametrize(
    ("form", "error", "words"),
    [
        ({"grant_type": ...}, "invalid_request", "grant_type is missing"),
        ({"grant_type": ""}, "invalid_request", "grant_type is missing"),
        ({"grant_type": '"\xe9'}, "unsupported_grant_type", JWT_BEARER),
        ({"assertion": ...}, "invalid_request", "takes an assertion"),
        ({"assertion": ["a.b.c", "a.b.c"]}, "invalid_request", "more than once"),
        ({"client_assertion": "a.b.c"}, "invalid_request", "no client_assertion"),
        ({"client_id": "other"}, "invalid_grant", "client_id is not the iss"),
        ({"scope": 'a"b'}, "invalid_scope", "malformed"),
    ],
)
def test_forms_that_do_not_hold_are_refused_and_use_up_nothing(server, form, error, words):
    good = {"grant_type": JWT_BEARER, "assertion": jwt(claims_for(server))}
    assert refused(post(server, good | form), error, words)
    assert post(server, good | {"client_id": ""}).status_code == 200


def test_credentials_that_nobody_checks_are_refused(server):
    form = {"grant_type": JWT_BEARER, "assertion": jwt(claims_for(server))}
    answers = post(server, form | {"client_secret": "s"}), requests.post(server.token_url, form, auth=("a", "b"))
    for answer in answers:
        assert refused(answer, "invalid_client", "no client secrets", 401)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_only_a_form_in_the_body_of_a_post_to_loopback_is_read(server):
    form, ways = {"grant_type": JWT_BEARER, "assertion": jwt(claims_for(server))}, {"timeout": 10}
    chunked = {"data": iter([b"assertion="]), "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    for way in ({"params": form}, {"json": form}, {"data": form, "params": {"x": "y"}}, chunked):
        assert refused(requests.post(server.token_url, **way, **ways), "invalid_request", "form-encoded body")
    far = requests.post(server.token_url, data=form, headers={"Host": "evil.example"}, **ways)
    assert refused(far, "insecure_transport", "https")
    assert refused(send(server, "a" * 65536), "invalid_request", "exceeds", 413)
    got = requests.get(server.token_url, params=form, **ways)
    assert refused(got, "invalid_request", "method is not allowed", 405)
    assert "POST" in got.headers["Allow"]
    assert refused(requests.get(server.url, **ways), "invalid_request", "not found", 404)


def test_a_client_authenticates_with_an_assertion_for_the_token_url_or_the_issuer(server):
    header = HEADER | {"typ": "client-authentication+jwt"}
    for audience in (server.token_url, server.url, [server.url]):
        answer = send_client(server, jwt(claims_for(server, sub="app", aud=audience), header), client_id="app")
        assert answer.status_code == 200
    assert whoami(server, answer.json()["access_token"]).json()["subject"] == "app"


WRONG_CLIENT = {
    "does not exist": [({"sub": "user@org"}, {})],
    "sub is not the client": [({"sub": "other"}, {})],
    "'sub'": [({"sub": 7}, {}), ({"sub": ...}, {})],
    "signature does not verify": [({"iss": "other"}, {})],
    "wrong audience": [({"aud": "https://elsewhere.example"}, {})],
    "expired": [({"exp": START - 5}, {})],
    "client_id is not the iss": [({}, {"client_id": "other"})],
    "no client_assertion of type": [({}, {f"client_assertion{name}": ...}) for name in ("", "_type")],
    "no JWT in compact form": [({}, {"client_assertion": "x"})],
}


@pytest.mark.parametrize("words", WRONG_CLIENT)
def test_a_client_assertion_that_does_not_hold_is_refused(server, words):
    for changes, form in WRONG_CLIENT[words]:
        assertion = jwt(claims_for(server, **({"sub": "app"} | changes)))
        assert refused(send_client(server, assertion, **{"client_id": "app"} | form), "invalid_client", words)


def test_a_client_assertion_is_signed_and_good_once(server):
    claims = claims_for(server, sub="app", jti=...)
    assert refused(send_client(server, jwt(claims, {"alg": "none"}, nothing)), "invalid_client", "unsigned")
    assert refused(send_client(server, jwt(claims, {"alg": "HS256"}, mac)), "invalid_client", "alg is none of RS256")
    assert send_client(server, jwt(claims)).status_code == 200
    assert refused(send_client(server, jwt(claims)), "invalid_client", "replayed")


def test_nothing_secret_is_logged(server, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    assertion, client = jwt(claims_for(server)), jwt(claims_for(server, sub="app"))
    tokens = [answer.json()["access_token"] for answer in (send(server, assertion), send_client(server, client))]
    assert send(server, assertion).status_code == 400
    assert whoami(server, tokens[0]).status_code == 200
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
        raw.sendall(f"GET /{assertion} {tokens[0]} and more HTTP/1.1\r\n\r\n".encode())
        assert b" 400 " in raw.recv(4096)
    written = caplog.text + "".join(capfd.readouterr())
    assert not [secret for secret in (assertion, client, *tokens) if secret in written]
