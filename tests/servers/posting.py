"""What the tests of the transport share: a request, one way to post it, and what every failure must be like."""

from __future__ import annotations

import base64
import traceback

import pytest

from hsmjwt import deadline
from hsmjwt.deadline import Deadline
from hsmjwt.errors import HsmjwtError
from hsmjwt.oauth.exchange import Answer, TokenRequest, build_request
from hsmjwt.oauth.transport import Transport

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24"
TOKEN = {"access_token": "AT-marker-51c2", "token_type": "Bearer", "expires_in": 600}
PASSWORD = "Pr0xyS3cret"


def request(url: str) -> TokenRequest:
    return build_request(
        grant="jwt-bearer", url=url, jwt=JWT, client_id="cid", scope=None, client_secret="hunter2-hunter2", form={}
    )


def transport(*, environ: dict[str, str] | None = None, warnings: list[str] | None = None, **settings) -> Transport:
    values = {"ca_file": None, "proxy": None, "patience": 5.0, **settings}
    return Transport(environ=environ or {}, warn=(warnings if warnings is not None else []).append, **values)


def post(url: str, *, seconds: float | None = 10, **settings) -> Answer:
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
