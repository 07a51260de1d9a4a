"""The token request and what its answer means (RFC 6749, sections 4.4 and 5; RFC 7521; RFC 7523).

Pure: no I/O, no clock, no environment. A server is believed where it says what the RFCs say, and refused where two
readers could understand two things. What is shown of an answer went through `redact`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, assert_never
from urllib.parse import urlencode, urlsplit

import msgspec

from hsmjwt import __version__
from hsmjwt.bearer import AccessToken
from hsmjwt.errors import ServerError, UsageError
from hsmjwt.jose import encoding
from hsmjwt.oauth import redact
from hsmjwt.oauth.endpoint import Endpoint, check_endpoint, parse_endpoint
from hsmjwt.oauth.failure import BusyAnswer
from hsmjwt.oauth.http_date import parse_http_date
from hsmjwt.oauth.life import life_in, life_until, retry_after
from hsmjwt.oauth.provider import Grant
from hsmjwt.oauth.shown import known_harmless

USER_AGENT = {"User-Agent": f"hsmjwt/{__version__}"}
BODY_LIMIT = 1024 * 1024  # bytes after decompression; Entra's and Keycloak's tokens pass 64 KiB
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523, section 2.1
CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523, section 2.2

_FIXED = frozenset({"grant_type", "assertion", "client_assertion", "client_assertion_type"})
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749, A.12, without its blank: it ends a header field's token
_CLOCKS_AGREE = 5.0  # seconds; servers allow a minute or ten seconds, so that five are worth a word
_SHORT = 80  # characters of a header field or a code in a message

# RFC 6749, section 5.2: what to look at first
_HINTS = {
    "invalid_client": "look at the client id, and at the public key and algorithm registered for it",
    "invalid_grant": "look at issuer, subject and audience of the assertion, and at the public key registered for it",
    "unauthorized_client": "the client may not use this grant: allow it at the server, or choose another --grant",
    "unsupported_grant_type": "the server does not know this grant: look at the token URL, or choose another --grant",
    "invalid_scope": "look at --scope and at what the client may ask for",
}


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A POST to the token endpoint; `form` in the order in which it is sent. Its repr hides the secrets."""

    url: str
    form: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    method: Literal["POST"] = "POST"

    @property
    def body(self) -> bytes:
        """The form as it is sent (RFC 6749, appendix B)."""
        return urlencode(self.form).encode("ascii")

    @property
    def sent(self) -> tuple[str, ...]:
        """The secrets in the form, which no message may repeat."""
        return tuple(value for name, value in self.form if value and not known_harmless(name))

    @property
    def endpoint(self) -> Endpoint:
        """The checked URL."""
        return parse_endpoint(self.url)

    def shown_form(self) -> dict[str, str]:
        """Return the form with `***` for what may be a secret."""
        return {name: value if not value or known_harmless(name) else redact.HIDDEN for name, value in self.form}

    def __repr__(self) -> str:
        """Show everything but the secrets."""
        return f"TokenRequest(url={self.url!r}, form={self.shown_form()!r}, headers={self.headers!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than `repr` does: msgspec's own hands every field to a pretty printer."""
        return [("url", self.url), ("form", self.shown_form()), ("headers", self.headers)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answered. `sent_at` and `received_at` are Unix times: before the request, and at its header.

    `cut` says that the body went on past BODY_LIMIT. The repr hides the body.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    sent_at: float
    received_at: float
    cut: bool = False

    def header(self, name: str) -> str | None:
        """Return a header field's value whatever the case of its name, None where it is absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)

    def __repr__(self) -> str:
        """Show the status and the size."""
        return f"Answer(status={self.status!r}, body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than `repr` does: msgspec's own hands every field to a pretty printer."""
        return [("status", self.status), ("body", len(self.body))]


def build_request(
    *,
    grant: Grant,
    url: str,
    jwt: str,
    client_id: str | None,
    scope: str | None,
    client_secret: str | None,
    form: Mapping[str, str],
) -> TokenRequest:
    """Return the request that spends an assertion (RFC 7523, section 2.1, or RFC 6749, section 4.4 with 2.2).

    `form` are further fields, sent last. Raises UsageError for a URL that is no endpoint, a field given twice, text
    that is no Unicode, and a client secret where the assertion itself is the client's authentication.
    """
    check_endpoint(url)
    identity = () if client_id is None else (("client_id", client_id),)
    wanted = () if not scope else (("scope", scope),)
    fields: tuple[tuple[str, str], ...]
    if grant == "jwt-bearer":
        secret = () if client_secret is None else (("client_secret", client_secret),)
        fields = (("grant_type", JWT_BEARER), *identity, *secret, ("assertion", jwt), *wanted)
    elif grant == "client-assertion":
        if client_secret is not None:
            raise UsageError("a client secret does not go with the grant 'client-assertion': one proof is enough")
        assertion = (("client_assertion_type", CLIENT_ASSERTION_TYPE), ("client_assertion", jwt))
        fields = (("grant_type", "client_credentials"), *identity, *assertion, *wanted)
    else:
        assert_never(grant)
    taken = _FIXED.union(name for name, _ in fields)
    for name in form:
        if name in taken:
            raise UsageError(f"the form field {_quoted(name)} cannot be added: hsmjwt sets it")
    fields = (*fields, *form.items())
    for name, value in fields:
        if not (_is_unicode(name) and _is_unicode(value)):
            raise UsageError(f"the form field {_quoted(name)} holds half a surrogate pair, which is no Unicode text")
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
        **USER_AGENT,
    }
    return TokenRequest(url=url, form=fields, headers=headers)


def read_answer(answer: Answer, *, request: TokenRequest, token_types: Sequence[str] = ("bearer",)) -> AccessToken:
    """Return the access token that the server handed out (RFC 6749, section 5.1).

    `token_types` are those that the caller can use, in lower case. Raises BusyAnswer (9) for 429 and 5xx, and
    ServerError (10), with the OAuth code where there is one, for anything else that is no token.
    """
    reader = _Reader(answer, request)
    status = answer.status
    if status == HTTPStatus.TOO_MANY_REQUESTS or 500 <= status < 600:  # RFC 9110, section 15.6
        raise reader.busy()
    if 300 <= status < 400:  # RFC 9110, section 15.4
        raise reader.redirected()
    if not 200 <= status < 300:  # RFC 9110, section 15.3
        raise reader.refused()
    members = reader.members()
    if members.get("error"):
        raise reader.refused()
    value = reader.access_token(members.get("access_token"))
    token_type = reader.token_type(members.get("token_type"), token_types)
    life = reader.life(members.get("expires_in"))
    if life is None and members.get("expires_in") in (None, ""):
        life = life_until(members.get("expires"), sent_at=answer.sent_at, date=answer.header("Date"))
    return AccessToken(
        value=value,
        token_type=token_type,
        fetched_at=answer.sent_at,
        expires_at=None if life is None else answer.sent_at + life,
        members={name: item for name, item in members.items() if name not in ("access_token", "expires_in")},
    )


def clock_difference(answer: Answer) -> float | None:
    """Return how many seconds the server's clock is ahead of ours, by its Date; None where it gives none.

    Ours is taken at the middle of the request (RFC 9110, section 6.6.1).
    """
    served = parse_http_date(answer.header("Date"))
    return None if served is None else served - (answer.sent_at + answer.received_at) / 2


class _Reader:
    """Reads one answer, and words what is wrong with it."""

    def __init__(self, answer: Answer, request: TokenRequest) -> None:
        self._answer = answer
        self._wary = answer.status < 300  # RFC 9110, section 15.3
        self._secrets = (*request.sent, *_handed_out(answer.body))
        self._name = f"the server '{request.endpoint.name}'"

    def busy(self) -> BusyAnswer:
        code, text = self._error()
        return BusyAnswer(
            f"{self._name} answered {self._status(code)}{text}",
            status=self._answer.status,
            retry_after=retry_after(
                self._answer.header("Retry-After"),
                received_at=self._answer.received_at,
                date=self._answer.header("Date"),
            ),
            oauth_error=code,
        )

    def redirected(self) -> ServerError:
        target = self._answer.header("Location")
        try:
            host = urlsplit(target or "").hostname
        except ValueError:
            host = None
        where = "" if host is None else f" to '{self._shown(host, _SHORT)}'"
        return ServerError(
            f"{self._name} redirected ({self._answer.status}){where}, which was not followed with an assertion",
            hint="look at the token URL: it must be the one that answers",
        )

    def refused(self) -> ServerError:
        code, text = self._error()
        return ServerError(
            f"{self._name} refused with {self._status(code)}{text}", hint=self._refusal_hint(code), oauth_error=code
        )

    def members(self) -> dict[str, Any]:
        if self._answer.cut or len(self._answer.body) > BODY_LIMIT:
            raise self._senseless("sent more than 1 MiB")
        reason = None
        try:
            value = encoding.load(self._answer.body)
        except encoding.EncodingFault as fault:
            value, reason = None, str(fault).removeprefix("not JSON: ")
        if reason is not None:  # raised out here, where no context holds the body
            kind = self._answer.header("Content-Type")
            of = "no content type" if kind is None else f"content type '{self._shown(kind, _SHORT)}'"
            raise self._senseless(f"gave no JSON that can be used ({of}): {self._shown(reason, _SHORT)}")
        if not isinstance(value, dict):
            raise self._senseless(f"answered with {encoding.json_type(value)} where a JSON object belongs")
        return value

    def access_token(self, value: object) -> str:
        if isinstance(value, str) and _ACCESS_TOKEN.fullmatch(value):
            return value
        if not isinstance(value, str) or not value:
            raise self._senseless(f"gave no access_token ({_absent(value)})")
        raise self._senseless("gave an access_token with a blank or a character that no access token may hold")

    def token_type(self, value: object, usable: Sequence[str]) -> str:
        if not isinstance(value, str) or not value:
            raise self._senseless(f"gave no token_type ({_absent(value)})")
        if value.lower() not in usable:
            raise self._senseless(f"gave a token of the type '{self._shown(value, _SHORT)}', which cannot be used")
        return value

    def life(self, value: object) -> float | None:
        """Return `expires_in` in seconds, None where the server gives no life."""
        if value is None or value == "":
            return None
        life = life_in(value)
        if life is None:
            shown = self._shown(encoding.dump(value).decode("utf-8"), _SHORT)
            raise self._senseless(f"gave an expires_in that is no number of seconds under ten years ({shown})")
        return life or None

    def _error(self) -> tuple[str | None, str]:
        """Return an error's code, and its description or what was seen, ready to follow the status (RFC 6749, 5.2).

        RFC 9457 has `title` and `detail`, GitHub `message`, Google's services an object in `error`.
        """
        code: str | None = None
        texts: list[str] = []
        try:
            members = encoding.load_object(self._answer.body)
        except encoding.EncodingFault:
            members = {}
        inner = members.get("error")
        if isinstance(inner, str) and inner:
            code = self._shown(inner, _SHORT)
        elif isinstance(inner, dict):
            texts = _texts(inner, ("status", "message"))
        texts = _texts(members, ("error_description",)) or texts or _texts(members, ("title", "detail", "message"))
        if texts:
            return code, ": " + self._shown(": ".join(texts), redact.SHOWN)
        if code is not None:
            return code, ""
        seen = self._seen()
        return None, f", {seen}" if seen else ""

    def _status(self, code: str | None) -> str:
        status = self._answer.status
        if code is not None:
            return f"{status} {code}"
        try:
            return f"{status} ({HTTPStatus(status).phrase.lower()})"
        except ValueError:
            return str(status)

    def _refusal_hint(self, code: str | None) -> str | None:
        difference = clock_difference(self._answer)
        if difference is not None and abs(difference) > _CLOCKS_AGREE:
            side = "behind" if difference > 0 else "ahead of"
            return f"this clock is {abs(difference):.0f} s {side} the server's"
        if code == "invalid_grant" and b"replay" in self._answer.body.lower():
            return "the server has seen this very assertion: wait a second, or give each one a jti (--jti auto)"
        return None if code is None else _HINTS.get(code)

    def _senseless(self, what: str) -> ServerError:
        seen = self._seen()
        return ServerError(f"{self._name} {what}" + (f"; {seen}" if seen else ""))

    def _seen(self) -> str:
        text = redact.body_excerpt(self._answer.body, self._secrets, wary=self._wary)
        return f"it sent {text}" if text else ""

    def _shown(self, text: str, limit: int) -> str:
        return redact.excerpt(text, self._secrets, limit=limit, wary=self._wary)


def _handed_out(body: bytes) -> list[str]:
    """Return the secrets of an answer, which may stand in other members of it as well."""
    try:
        return redact.secrets_in(encoding.load(body[: BODY_LIMIT + 1]))
    except encoding.EncodingFault:
        return []


def _absent(value: object) -> str:
    return "there is none" if value is None else "it is empty" if value == "" else f"it is {encoding.json_type(value)}"


def _texts(members: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = (members.get(name) for name in names)
    return [text for text in found if isinstance(text, str) and text]


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _quoted(text: str) -> str:
    return f"'{redact.cut(redact.escaped(text), _SHORT)}'"
