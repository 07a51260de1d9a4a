"""`hsmjwt sign` on a real token."""

import json
from pathlib import Path

import jwt

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "adobe-golden.json").read_text())


def test_the_golden_vector_comes_out_byte_for_byte(hsmjwt):
    args = ("--iss", "TestClient", "--sub", "001D49185195123B0A490D06@AdobeOrg", "--now", "@1395327936")
    done = hsmjwt("sign", "--provider", "adobe-analytics", "--aud", "api.vm221.dev.ut1.omniture.com", *args)
    assert done.code == 0, done.err
    assert done.out.rpartition(".")[0] == GOLDEN["signing_input"]


def test_pyjwt_verifies_what_the_token_signed(hsmjwt, token):
    pem = hsmjwt("key", "export", token.uri, HSMJWT_KEY=None).out
    done = hsmjwt("sign", "--iss", "me", "--aud", "there")
    assert done.code == 0, done.err
    claims = jwt.decode(done.out.strip(), pem, algorithms=["RS256"], audience="there")
    assert claims["iss"] == claims["sub"] == "me"
