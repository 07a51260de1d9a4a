"""`hsmjwt token` end to end: the seed's flow, any RFC 7523 server from flags alone, and what a profile adds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
import requests
from servers.granting import MARK, claims_of, flags, granted, header_of, write_config
from servers.scripted import Server, json_reply

from hsmjwt.demo import Client, DemoServer

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "adobe-golden.json").read_text())
SUB = "001D49185195123B0A490D06@AdobeOrg"
SEED = ("--provider", "adobe-analytics", "--client-id", "TestClient", "--sub", SUB)
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_the_seeds_request_and_answer_are_taken_exactly(hsmjwt):
    answer = {"access_token": MARK, "expires_in": 3600, "token_type": "bearer", "scope": None, "success": True}
    with Server(json_reply(answer)) as server:
        more = ("--aud", "api.vm221.dev.ut1.omniture.com", "--now", "@1395327936", "--token-url", server.url())
        done = hsmjwt("token", *SEED, *more, "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    (asked,) = server.requests
    assert [name for name, _ in asked.fields] == ["grant_type", "client_id", "assertion"]
    assert (asked.form["grant_type"], asked.form["client_id"]) == (BEARER, "TestClient")
    assert asked.form["assertion"].rpartition(".")[0] == GOLDEN["signing_input"]
    assert asked.headers["accept"] == "application/json"
    about = json.loads(done.out)
    assert list(about) == ["access_token", "token_type", "expires_in", "expires_at", "scope", "success", "cached"]
    assert {name: about[name] for name in ("access_token", "token_type", "scope", "success", "cached")} == {
        "access_token": MARK,
        "token_type": "bearer",
        "scope": None,
        "success": True,
        "cached": False,
    }
    assert 3590 <= about["expires_in"] <= 3600
    end = time.strptime(about["expires_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(end) - time.timezone - time.time() - 3600) < 15


def test_the_seeds_flow_opens_a_resource_of_a_server_that_verifies(quick, token):
    pem = quick("key", "export", token.uri, HSMJWT_KEY=None).out
    client = Client(client_id="TestClient", public_key_pem=pem)
    with DemoServer([client], audiences=["api.omniture.com"]) as server:
        call = ("token", *SEED, "--token-url", server.token_url)
        done = quick(*call)
        assert done.code == 0, done.err
        field = quick("header", *call[1:])
        assert (field.code, field.out) == (0, f"Authorization: Bearer {done.out.strip()}\n")
        name, _, value = field.out.strip().partition(": ")
        answer = requests.get(f"{server.url}/api/whoami", headers={name: value}, timeout=10).json()
        assert (answer["client_id"], answer["subject"]) == ("TestClient", SUB)
        assert server.stats.granted == 1
        old = quick(*call, "--now", "@1395327936")
        assert (old.code, old.out) == (10, "")
        assert "invalid_grant: assertion expired" in old.err
        assert server.stats.refused == 1


def test_any_server_by_flags_alone(quick, token):
    pem = quick("key", "export", token.uri, HSMJWT_KEY=None).out
    with Server(granted(scope="read write", expires_in="600")) as server:
        more = ("--sub", "someone", "--scope", "read write", "--kid", "k-1", "--typ", "at+jwt")
        more += ("--claim", "tenant=t1", "--claim-json", "n=[1]", "--header", "x-t=y", "--nbf", "-5")
        done = quick("token", *flags(server.url(), *more), "--json")
    assert done.code == 0, done.err
    (asked,) = server.requests
    assert [name for name, _ in asked.fields] == ["grant_type", "client_id", "assertion", "scope"]
    assert asked.form["scope"] == "read write"
    assert header_of(asked) == {"typ": "at+jwt", "alg": "RS256", "kid": "k-1", "x-t": "y"}
    claims = jwt.decode(asked.form["assertion"], pem, algorithms=["RS256"], audience=server.url())
    assert claims["exp"] - claims["iat"] == 300
    assert claims["nbf"] == claims["iat"] - 5
    assert (claims["iss"], claims["sub"], claims["tenant"], claims["n"]) == ("i", "someone", "t1", [1])
    assert len(claims["jti"]) == 36
    about = json.loads(done.out)
    assert (about["scope"], about["token_type"]) == ("read write", "Bearer")
    assert 590 <= about["expires_in"] <= 600


def test_a_client_can_authenticate_by_its_assertion(quick, demo_server):
    call = ("--grant", "client-assertion", "--client-id", "ci", "--token-url", demo_server.token_url)
    done = quick("token", "--iss", "ci", *call)
    assert done.code == 0, done.err
    headers = {"Authorization": f"Bearer {done.out.strip()}"}
    assert requests.get(f"{demo_server.url}/api/whoami", headers=headers, timeout=10).json()["client_id"] == "ci"
    with Server(granted()) as server:
        done = quick("token", "--grant", "client-assertion", *flags(server.url(), "--scope", "s"))
    assert (done.code, done.out) == (0, f"{MARK}\n")
    (asked,) = server.requests
    names = ["grant_type", "client_id", "client_assertion_type", "client_assertion", "scope"]
    assert [name for name, _ in asked.fields] == names
    assert asked.form["grant_type"] == "client_credentials"
    assert asked.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert header_of(asked)["typ"] == "client-authentication+jwt"
    assert claims_of(asked)["aud"] == server.url()


def test_a_profile_adds_form_fields_headers_and_a_client_secret(quick, tmp_path):
    with Server(granted()) as server:
        config = write_config(
            tmp_path,
            f"""
            [profiles.p]
            issuer = "me"
            client_id = "cid"
            token_url = "{server.url()}"
            scope = ["a", "b"]
            lifetime = "90s"
            client_secret_source = "env:CLIENT_SECRET"
            form = {{ resource = "https://r.example/", tenant = "t 1" }}
            headers = {{ x5u = "https://c.example/c" }}
            claims = {{ role = "r" }}
            """,
        )
        done = quick("token", "p", "--config", config, "--verbose", CLIENT_SECRET="hunter2/&= é")
    assert done.code == 0, done.err
    (asked,) = server.requests
    assert asked.fields[1:3] == [("client_id", "cid"), ("client_secret", "hunter2/&= é")]
    assert asked.fields[4:] == [("scope", "a b"), ("resource", "https://r.example/"), ("tenant", "t 1")]
    assert header_of(asked)["x5u"] == "https://c.example/c"
    assert claims_of(asked)["role"] == "r"
    assert claims_of(asked)["exp"] - claims_of(asked)["iat"] == 90
    assert "hunter2" not in done.err


def test_a_client_secret_that_cannot_be_read_costs_no_signature(quick, tmp_path):
    with Server(granted()) as server:
        text = f'[profiles.p]\nissuer = "i"\ntoken_url = "{server.url()}"\nclient_secret_source = "file:/nowhere/s"\n'
        done = quick("token", "p", "--config", write_config(tmp_path, text), "--verbose")
    assert (done.code, done.out) == (3, "")
    assert "client secret" in done.err
    assert "/nowhere/s" in done.err
    assert "signed by" not in done.err
    assert server.accepted == 0


@pytest.mark.parametrize("life", [{}, {"expires_in": 0}, {"expires_in": ""}, {"expires_in": None, "expires_at": 9}])
def test_a_token_of_unknown_life_is_handed_out_and_not_kept(quick, life):
    answer = {"access_token": MARK, "token_type": "Bearer", **life}
    with Server(json_reply(answer)) as server:
        for _ in range(2):
            done = quick("token", *flags(server.url()), "--json")
            assert json.loads(done.out) == {"access_token": MARK, "token_type": "Bearer", "cached": False}
    assert len(server.requests) == 2


def test_the_token_is_opened_before_the_claims_are_made(quick, token):
    slow = f"command:sh -c 'sleep 2; cat {token.pin_file}'"
    with Server(granted()) as server:
        began = int(time.time())
        done = quick("token", *flags(server.url()), "--pin-source", slow)
    assert done.code == 0, done.err
    assert claims_of(server.requests[0])["iat"] >= began + 2
