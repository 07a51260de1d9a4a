"""What the tests of an exchange share: a request, answers to it, and how they are read."""

from __future__ import annotations

import json

import pytest

from hsmjwt.bearer import AccessToken
from hsmjwt.errors import HsmjwtError
from hsmjwt.oauth.exchange import Answer, TokenRequest, build_request, read_answer

NOW = 1_800_000_000.0
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJUZXN0Q2xpZW50In0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24tMDAx"
SECRET = 'client/se"cr"et+=&9\'<x>'
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
