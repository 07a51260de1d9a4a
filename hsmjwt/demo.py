"""The demo's authorization server: RFC 7523 grants that are really verified, on loopback only.

Authlib brings the grants and joserfc, below it, signature and claims. What they leave to the integrator is decided
here: which algorithms, 5 s of leeway, an assertion that lives an hour at most and buys one token, repeated parameters,
credentials that nobody checks. No code is shared with hsmjwt's own JWT side: an error of both would look right.

Flask and Authlib (extra `demo`) are loaded when a server is built, and Authlib's classes get our methods then: this
module imports without them, and what has no types stays in one place.
"""

from __future__ import annotations

import email.utils
import importlib
import json
import os
import re
import secrets
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from hsmjwt.deadline import wait_for_a_signal
from hsmjwt.demo_keys import Client, KeysFault, Named, keys_of
from hsmjwt.demo_memory import Clock, Memory, Refusal
from hsmjwt.errors import UsageError

if TYPE_CHECKING:
    from flask import Flask, Request, Response

__all__ = ["Client", "DemoServer", "Stats", "make_app", "serve"]

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_GRANTS = [_JWT_BEARER, "client_credentials"]
_OF_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_AUTH_METHOD = "private_key_jwt"
_ALGS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]  # RFC 7518, section 3.1
_ALGS += ["EdDSA", "Ed25519"]  # RFC 8037, section 3.1, and RFC 9864, section 2.2
_LEEWAY = 5  # seconds; Authlib's own 60 would hide a wrong clock from the test that looks for it
_LONGEST = 3600  # seconds; what Google, Okta and Snowflake allow, and what bounds the memory of used assertions
_BODY = 64 * 1024  # bytes of a request
_SCOPE = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")  # RFC 6749, section 3.3


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How many token requests were granted, and how many refused."""

    granted: int = 0
    refused: int = 0


def _load() -> SimpleNamespace:
    names = ["flask", "werkzeug.exceptions", "werkzeug.serving", "authlib.integrations.flask_oauth2"]
    names += ["authlib.oauth2.rfc6749", "authlib.oauth2.rfc6749.grants", "authlib.oauth2.rfc7523"]
    names += ["joserfc.errors", "joserfc.jwk", "joserfc.jws", "joserfc.jwt"]
    warnings.filterwarnings("ignore", "EdDSA is deprecated")  # joserfc says so of each assertion, on our stderr
    try:
        return SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(name) for name in names})
    except ImportError as error:
        hint = "in a clone of hsmjwt: pip install '.[demo]'"
        raise UsageError("the demo's server needs Flask and Authlib", hint=hint) from error


class _Checks:
    """What must hold before an assertion buys a token: RFC 7523, section 3. `error` is the code of a refusal."""

    def __init__(
        self, library: SimpleNamespace, clients: Sequence[Client], issuer: str, audiences: Sequence[str], now: Clock
    ) -> None:
        self._library, self._now, self._used = library, now, Memory(now)
        self.clients = {client.client_id: self._registered(client) for client in clients}
        self.issuer, self.token_url = issuer, issuer.rstrip("/") + "/token"
        self._audiences = [self.token_url, *audiences]
        # What a header says beyond what is understood is ignored (RFC 7515, section 4); joserfc would refuse it, and
        # any header over 512 bytes, where no certificate chain fits.
        self._registry = library.jws.JWSRegistry(algorithms=_ALGS, strict_check_header=False)
        self._registry.max_header_length = _BODY

    def _registered(self, client: Client) -> SimpleNamespace:
        """Give a client the methods of Authlib's ClientMixin that the two grants call."""
        return SimpleNamespace(
            client_id=client.client_id,
            keys=keys_of(self._library, client),
            check_grant_type=lambda grant: grant in _GRANTS,
            check_endpoint_auth_method=lambda method, _endpoint: method == _AUTH_METHOD,
        )

    def read(self, assertion: str, error: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims, with nothing verified but what the header asks for."""
        try:
            jws = self._library.jws.extract_compact(assertion.encode(), registry=self._registry)
            header, claims = {**jws.headers()}, {**json.loads(jws.payload)}  # TypeError where one is no object
        except (ValueError, TypeError, RecursionError, self._library.errors.JoseError):
            raise Refusal(error, "assertion is no JWT in compact form") from None
        if header.get("alg") == "none":
            raise Refusal(error, "assertion is unsigned")
        if header.get("alg") not in _ALGS or "crit" in header or "b64" in header:
            raise Refusal(error, f"alg is none of {', '.join(_ALGS)}, or the header has crit or b64")
        return header, claims

    def verify(self, assertion: str, error: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the claims of a good assertion that was not used before, and mark it used; Refusal otherwise."""
        header, claims = self.read(assertion, error)
        name = claims.get("iss")
        if not isinstance(name, str) or (client := self.clients.get(name)) is None:
            raise Refusal(error, "unknown client: iss is not registered")
        self._check_signature(assertion, error, _meant(client, header, error))
        if form.get("client_id", name) not in {name, ""}:  # RFC 7521, section 4.2; empty is absent
            raise Refusal(error, "client_id is not the iss of the assertion")
        self._check_claims(claims, error)
        # One client's jti is not another's. The list is no assertion, so the two kinds of key never meet.
        key = json.dumps([name, claims["jti"]]) if "jti" in claims else assertion
        if (outcome := self._used.put(key, {}, claims["exp"] + _LEEWAY)) != "kept":
            raise Refusal(error, f"assertion {outcome}")
        return claims

    def _check_signature(self, assertion: str, error: str, keys: Sequence[Named]) -> None:
        """Raise Refusal unless one of the keys has signed; what is said is said of the last one."""
        refusal, errors = Refusal(error, "the client has published no key"), self._library.errors
        for _, key in keys:
            try:
                self._library.jws.deserialize_compact(assertion, key, registry=self._registry)
            except errors.BadSignatureError:
                refusal = Refusal(error, "signature does not verify with the registered key")
            except errors.JoseError:
                refusal = Refusal(error, "header is malformed, or its alg is not for the registered key")
            else:
                return
        raise refusal

    def _check_claims(self, claims: Mapping[str, Any], error: str) -> None:
        now, as_client = int(self._now()), error == "invalid_client"
        audiences = [*self._audiences, self.issuer] if as_client else self._audiences
        needed: dict[str, Any] = {name: {"essential": True} for name in ("iss", "sub", "exp")}
        needed["aud"] = {"essential": True, "values": audiences}
        try:
            self._library.jwt.JWTClaimsRegistry(now=now, leeway=_LEEWAY, **needed).validate(claims)
        except self._library.errors.ExpiredTokenError:
            raise Refusal(error, "assertion expired") from None
        except self._library.errors.ClaimError as fault:
            wrong_audience = fault.claim == "aud" and claims.get("aud") is not None
            reason = f"wrong audience: this server is {self.token_url}" if wrong_audience else fault.description
            raise Refusal(error, reason) from None
        if claims["exp"] > now + _LONGEST + _LEEWAY:
            raise Refusal(error, f"exp is more than {_LONGEST} s ahead")
        if as_client and claims["sub"] != claims["iss"]:
            raise Refusal(error, "sub is not the client")


def _meant(client: SimpleNamespace, header: Mapping[str, Any], error: str) -> list[Named]:
    """Return the keys that may have signed: the one that the header names, all where it names none."""
    try:
        keys: list[Named] = client.keys()
    except KeysFault as fault:
        raise Refusal(error, str(fault)) from None
    if "kid" not in header:
        return keys
    named = [each for each in keys if each.kid == header["kid"]]
    if not named:
        raise Refusal(error, "kid is not that of the registered key")
    return named


def _check_form(request: Request) -> None:
    """Refuse what RFC 6749, sections 2.3 and 3.2, and RFC 7521, section 4.1, forbid and Authlib lets pass."""
    form, grant = request.form, request.form.get("grant_type")
    if "Authorization" in request.headers or "client_secret" in form:
        raise Refusal("invalid_client", "this server knows no client secrets", 401)
    encoded = request.mimetype == "application/x-www-form-urlencoded"
    if request.query_string or not encoded or request.content_length is None:  # werkzeug cuts a long chunked body
        raise Refusal("invalid_request", "parameters belong into a form-encoded body with a Content-Length")
    if any(len(values) > 1 for values in form.listvalues()):
        raise Refusal("invalid_request", "a parameter is given more than once")
    if not grant:
        raise Refusal("invalid_request", "grant_type is missing")
    if grant not in _GRANTS:
        raise Refusal("unsupported_grant_type", f"grant_type is none of {', '.join(_GRANTS)}")
    if form.get("scope") and not _SCOPE.fullmatch(form["scope"]):
        raise Refusal("invalid_scope", "scope is malformed")
    if grant == _JWT_BEARER and (not form.get("assertion") or form.get("client_assertion")):
        raise Refusal("invalid_request", "this grant takes an assertion and no client_assertion")
    if grant != _JWT_BEARER and not (form.get("client_assertion") and form.get("client_assertion_type") == _OF_CLIENT):
        raise Refusal("invalid_client", f"no client_assertion of type {_OF_CLIENT}")


class _Service:
    """The endpoints, on Authlib's server with our checks in place of its own."""

    def __init__(self, library: SimpleNamespace, app: Flask, checks: _Checks, lifetime: int, now: Clock) -> None:
        self._flask, self._checks, self._lifetime, self._now = library.flask, checks, lifetime, now
        self._tokens, self.lock, self.counts = Memory(now), threading.Lock(), Counter[str]()
        own = {
            "TOKEN_ENDPOINT_AUTH_METHODS": [_AUTH_METHOD],
            "create_token_response": lambda grant: (200, self._issue(grant.request), grant.TOKEN_RESPONSE_HEADER),
        }
        bearer = own | {
            "process_assertion_claims": lambda grant, text: checks.verify(text, "invalid_grant", grant.request.form),
            "resolve_issuer_client": lambda _, issuer: checks.clients.get(issuer),
            "authenticate_user": lambda _, subject: subject,
            "has_granted_permission": lambda _, _client, _user: True,  # a client may act for whom it names
        }
        form = library.flask.request
        client = {
            "CLIENT_AUTH_METHOD": _AUTH_METHOD,
            "extract_assertion": lambda _, text: checks.read(text, "invalid_client"),
            "resolve_client_public_key": lambda *_: None,  # `verify` has its own
            "process_assertion_claims": lambda _, text, _key: checks.verify(text, "invalid_client", form.form),
        }
        self._server = library.flask_oauth2.AuthorizationServer(app, checks.clients.get)
        self._server.register_grant(type("Bearer", (library.rfc7523.JWTBearerGrant,), bearer))
        self._server.register_grant(type("Credentials", (library.grants.ClientCredentialsGrant,), own))
        assertion = type("ClientAssertion", (library.rfc7523.JWTBearerClientAssertion,), client)
        self._server.register_client_auth_method(_AUTH_METHOD, assertion())

    def _issue(self, request: Any) -> dict[str, Any]:
        """Hand out an access token; Authlib's own method would log it, at level debug."""
        token, scope = f"demo_{secrets.token_urlsafe(32)}", request.form.get("scope") or None
        client_id, until = request.client.client_id, self._now() + self._lifetime
        meaning = {"client_id": client_id, "subject": request.user or client_id, "scope": scope}
        meaning["expires_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
        self._tokens.put(token, meaning, until)
        answer = {"access_token": token, "expires_in": self._lifetime, "token_type": "bearer"}
        return {**answer, "scope": scope, "success": True}  # as the seed's server has it

    def token(self) -> Any:
        """Answer POST /token."""
        _check_form(self._flask.request)
        return self._server.create_token_response()

    def whoami(self) -> Any:
        """Answer GET /api/whoami: RFC 6750, sections 2.1 and 3."""
        scheme, _, token = self._flask.request.headers.get("Authorization", "").partition(" ")
        tried = scheme.lower() == "bearer"
        if tried and (meaning := self._tokens.get(token.strip())) is not None:
            return meaning
        reason = ', error="invalid_token", error_description="the access token is unknown or expired"' if tried else ""
        body = {"error": "invalid_token" if tried else "unauthorized"}
        return body, 401, {"WWW-Authenticate": f'Bearer realm="hsmjwt demo"{reason}'}

    def refuse(self, fault: Any) -> Any:
        """Answer with an error of ours, of Authlib's or of werkzeug's: RFC 6749, section 5.2."""
        code = fault.status_code if hasattr(fault, "status_code") else fault.code
        error = getattr(fault, "error", "server_error" if code >= 500 else "invalid_request")
        headers = {"WWW-Authenticate": 'Basic realm="hsmjwt demo"'} if code == 401 else {}
        if code == 405:
            headers["Allow"] = ", ".join(sorted(fault.valid_methods))
        return {"error": error, "error_description": fault.description}, code, headers

    def finish(self, response: Response) -> Response:
        """Count the answers of /token, and keep all of them out of caches."""
        if self._flask.request.path == "/token":
            with self.lock:
                self.counts["granted" if response.status_code == 200 else "refused"] += 1
        response.headers["Cache-Control"] = "no-store"
        return response


def make_app(
    clients: Sequence[Client],
    *,
    issuer: str,
    token_lifetime: int = 3600,
    audiences: Sequence[str] = (),
    now: Clock = time.time,
) -> Flask:
    """Build the authorization server of `issuer`, a URL with /token below it.

    `token_lifetime` is in seconds; `audiences` are accepted beside the token URL (the seed's is a bare host).
    UsageError for a client whose key cannot be used, or where the extra `demo` is not installed.
    """
    library = _load()
    app: Flask = library.flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _BODY
    checks = _Checks(library, clients, issuer, audiences, now)
    service = app.extensions["hsmjwt"] = _Service(library, app, checks, token_lifetime, now)
    app.add_url_rule("/token", view_func=service.token, methods=["POST"])
    app.add_url_rule("/api/whoami", view_func=service.whoami)
    metadata = {  # RFC 8414, section 2
        "issuer": issuer,
        "token_endpoint": checks.token_url,
        "response_types_supported": [],
        "grant_types_supported": _GRANTS,
        "token_endpoint_auth_methods_supported": ["none", _AUTH_METHOD],
        "token_endpoint_auth_signing_alg_values_supported": _ALGS,
    }
    app.add_url_rule("/.well-known/oauth-authorization-server", "metadata", lambda: metadata)
    for fault in (Refusal, library.rfc6749.OAuth2Error, library.exceptions.HTTPException):
        app.register_error_handler(fault, service.refuse)
    app.after_request(service.finish)
    return app


class DemoServer(AbstractContextManager["DemoServer"]):
    """The server in a thread of its own: listening once built, gone with `close` or the end of its `with` block.

    `port` 0 takes a free one; `url` is the issuer. `now` is the server's clock, its Date field included. UsageError
    where the port cannot be had, where `host` is not loopback, and as `make_app`.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        token_lifetime: int = 3600,
        audiences: Sequence[str] = (),
        now: Clock = time.time,
    ) -> None:
        if host not in {"127.0.0.1", "::1", "localhost"}:
            raise UsageError(f"{host!r} is not loopback", hint="the demo's server speaks plain http: use 127.0.0.1")
        serving = _load().serving
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)  # strerror names the address once more
            reason = os.strerror(number).lower() if number else "no such port"
            raise UsageError(f"cannot listen on port {port}: {reason}", hint="port 0 takes a free one") from error
        with listening:  # werkzeug works on a copy; where it binds by itself, a fault ends the process
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
            self.token_url = self.url + "/token"
            app = make_app(clients, issuer=self.url, token_lifetime=token_lifetime, audiences=audiences, now=now)
            own = {
                "timeout": 30,  # seconds for a client that connects and says nothing
                "date_time_string": lambda *_: email.utils.formatdate(now(), usegmt=True),
                **dict.fromkeys(["log_request", "log_error"], lambda *_: None),  # a request line may hold a token
            }
            handler, copy = type("Handler", (serving.WSGIRequestHandler,), own), listening.fileno()
            self._server = serving.make_server(host, port, app, threaded=True, request_handler=handler, fd=copy)
        self._service: _Service = app.extensions["hsmjwt"]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def stats(self) -> Stats:
        """The counts of token requests so far."""
        with self._service.lock:
            return Stats(**self._service.counts)

    def close(self) -> None:
        """Stop listening; once more does nothing."""
        self._server.shutdown()
        self._thread.join()

    def __exit__(self, *_exception: object) -> None:
        self.close()


def serve(
    clients: Sequence[Client], port: int, announce: Callable[[str], None], *, audiences: Sequence[str] = ()
) -> None:
    """Serve until a signal ends it: Ctrl-C as KeyboardInterrupt, SIGTERM as the process has it; there is no return.

    `announce` is called once with the server's URL, as soon as it listens.
    """
    with DemoServer(clients, port, audiences=audiences) as server:
        announce(server.url)
        wait_for_a_signal()
