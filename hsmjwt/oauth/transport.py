"""Send a token request, once, by requests, which is told to read nothing from the environment.

No redirect is followed and no `.netrc` read. Each request has a session and a connection of its own: no cookie is kept,
no connection shared after a fork, and none found closed by the server. What goes wrong is told in our own words and
raised apart from its cause, since the texts of requests and urllib3 hold URLs, and their objects the form.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests
import urllib3  # which requests brings: it is what requests sends by, and its faults come through
from requests.adapters import HTTPAdapter
from urllib3 import exceptions
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from hsmjwt.deadline import Deadline
from hsmjwt.errors import HsmjwtError, NetworkError, ServerError
from hsmjwt.oauth import proxy as proxies
from hsmjwt.oauth import tls
from hsmjwt.oauth.endpoint import Endpoint, parse_endpoint
from hsmjwt.oauth.exchange import BODY_LIMIT, USER_AGENT, Answer, TokenRequest
from hsmjwt.oauth.failure import ConnectionFault, ProxyFault, ProxyUnreached, ReadTimeout, TlsFault

__all__ = ["Transport"]

Fault = TypeVar("Fault", bound=BaseException)

# ValueError and UnicodeError come, besides these and OSError, where a parser of theirs gives up on an answer's header.
_THEIRS = requests.RequestException, exceptions.HTTPError, http.client.HTTPException

_PATIENCE = 10.0  # seconds for one connect; a server that was reached may think for as long as the deadline allows
_CHUNK = 16 * 1024
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_TRY_LATER = frozenset({"502", "503", "504"})

# Verification codes of OpenSSL (x509_vfy.h), in our words; it has others, and a text for each.
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21, 33})
_CERTIFICATE = {9: "is not valid yet", 10: "has expired", 23: "was revoked", 62: "is for another name"}
_CERTIFICATE |= {64: "is for another address", 66: "has too weak a key", 67: "comes from a CA with too weak a key"}
_CERTIFICATE |= {68: "is signed with too weak a digest", 79: "comes from a certificate that is no CA"}
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
_OLD_TLS = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})

# It warns on stderr of a clock that is years back; what that breaks is said where it breaks.
urllib3.disable_warnings(exceptions.SystemTimeWarning)


class Transport:
    """Posts token requests over https, and over http to this machine."""

    def __init__(
        self,
        *,
        ca_file: str | None,
        proxy: str | None,
        environ: Mapping[str, str],
        warn: Callable[[str], None],
        patience: float = _PATIENCE,
    ) -> None:
        """Keep the settings: `ca_file` and `proxy` win over `environ`, `warn` takes a line for the user."""
        self._ca_file = ca_file
        self._proxy = proxy
        self._environ = environ
        self._warn = warn
        self._patience = patience
        self._context: ssl.SSLContext | None = None

    def prepare(self, url: str) -> None:
        """Read what a request to `url` needs, so that a fault shows before anything is signed.

        Raises UsageError for a URL that is no endpoint, ConfigError for CA certificates or a proxy that cannot be
        used, ProxyFault for a SOCKS proxy.
        """
        self._route(parse_endpoint(url))

    def post(self, request: TokenRequest, deadline: Deadline) -> Answer:
        """Return the server's answer, whatever its status, with at most 1 MiB of its body after decompression.

        Raises ConnectionFault, ReadTimeout, TlsFault, ProxyFault (all of them NetworkErrors), ServerError for what is
        no HTTP, the deadline's error once it is over, and what `prepare` raises. Headers that come slowly hold it for
        as long as they come: whoever has a deadline runs it by `deadline.run`.
        """
        return self._send(request.method, request.endpoint, request.headers, request.body, deadline)

    def probe(self, url: str, deadline: Deadline) -> Answer:
        """Return what the server answers to a bare GET: that it is there, and its Date. Raises as `post` does."""
        return self._send("GET", parse_endpoint(url), {"Accept": "application/json", **USER_AGENT}, None, deadline)

    def _send(
        self, method: str, endpoint: Endpoint, headers: Mapping[str, str], body: bytes | None, deadline: Deadline
    ) -> Answer:
        proxy = self._route(endpoint)
        deadline.enter(f"the server '{endpoint.name}'", NetworkError)
        deadline.check()
        timeout = self._timeouts(deadline)
        adapter = _Adapter(self._context, proxy.authorization if proxy else None)
        with _Session() as session:
            session.trust_env = False
            session.headers.clear()
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            sent_at = time.time()
            try:
                with session.request(
                    method,
                    endpoint.url,
                    data=body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                    proxies={"https": proxy.url} if proxy else {},
                ) as response:
                    received_at = time.time()
                    content, cut = _body(response, deadline)
                    return Answer(
                        status=response.status_code,
                        headers=dict(response.headers),
                        body=content,
                        sent_at=sent_at,
                        received_at=received_at,
                        cut=cut,
                    )
            except (*_THEIRS, OSError, ValueError) as error:
                fault = _Words(endpoint, proxy, timeout).fault(error)
        # Outside of the handler: the new error then has no context, which would hold the request and the proxy's URL.
        raise deadline.exceeded() if _over(deadline) else fault

    def _route(self, endpoint: Endpoint) -> proxies.Proxy | None:
        if endpoint.scheme == "https" and self._context is None:
            self._context = tls.context(self._ca_file, self._environ, self._warn)
        return proxies.choose(endpoint, self._proxy, self._environ)

    def _timeouts(self, deadline: Deadline) -> tuple[float, float]:
        """Return the seconds for a connect and for a read, which the deadline alone limits where there is one."""
        left = deadline.remaining()
        if left is None:
            return self._patience, self._patience
        return max(min(self._patience, left), 0.001), max(left, 0.001)


class _Session(requests.Session):
    """Has no look at where a redirect leads: that reads its whole body and parses its target, even if not followed."""

    def get_redirect_target(self, resp: Any) -> None:
        """Return that there is none."""


class _Connection(HTTPSConnection):
    """Tells what goes wrong between us and the proxy from what goes wrong behind it; urllib3 does for a part of it."""

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except (OSError, http.client.HTTPException) as error:
            raise exceptions.ProxyError("no tunnel", error) from error


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Gives urllib3 our TLS context, for servers and for proxies, and a proxy its password outside of any URL."""

    def __init__(self, context: ssl.SSLContext | None, authorization: str | None) -> None:
        self._context = context
        self._authorization = authorization
        super().__init__()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:  # noqa: ARG002
        host, _ = super().build_connection_pool_key_attributes(request, verify=True)
        return host, {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the connection as it is: requests would have it believe certifi's list besides ours."""

    def proxy_manager_for(self, proxy: Any, **proxy_kwargs: Any) -> Any:
        # Without a context for the proxy itself urllib3 makes one, with the key log of the environment.
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=self._context, **proxy_kwargs)
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _Pool}
        return manager

    def proxy_headers(self, proxy: Any) -> dict[str, str]:  # noqa: ARG002 - its URL has no password
        return {"Proxy-Authorization": self._authorization} if self._authorization else {}


def _body(response: requests.Response, deadline: Deadline) -> tuple[bytes, bool]:
    """Return the body, decompressed, and whether it went on past the limit. A redirect's is not read.

    Where the status says all (429, 5xx), a body that does not decompress counts as empty.
    """
    status, headers, raw = response.status_code, response.headers, response.raw
    if 300 <= status < 400:
        return b"", False
    # read1 returns what has come, so that the clock is seen while a body drips; urllib3 before 2.1 has only read.
    read = getattr(raw, "read1", raw.read)
    body = bytearray()
    try:
        while len(body) <= BODY_LIMIT:
            deadline.check()
            chunk = read(_CHUNK, decode_content=True)
            if not chunk:
                break
            body += chunk
    except exceptions.DecodeError:
        if status == 429 or status >= 500:
            return b"", False
        raise
    lengths = "Content-Length", "Transfer-Encoding"
    if not body and status < 300 and status != 204 and not any(name in headers for name in lengths):
        # The header may be cut, too: http.client takes the end of the data for the end of the header.
        raise http.client.RemoteDisconnected("no body and no length")
    return bytes(body[:BODY_LIMIT]), len(body) > BODY_LIMIT


class _Words:
    """Words for what requests, urllib3, http.client, ssl and the system raise."""

    def __init__(self, endpoint: Endpoint, proxy: proxies.Proxy | None, timeouts: tuple[float, float]) -> None:
        self._server = (
            f"the server '{endpoint.host if ':' not in endpoint.host else f'[{endpoint.host}]'}:{endpoint.port}'"
        )
        self._proxy = proxy
        self._connect, self._read = (f"{seconds:.3g} s" for seconds in timeouts)

    def fault(self, error: BaseException) -> HsmjwtError:
        """Return our error for theirs, which is looked at with its causes."""
        causes = list(_causes(error))
        if self._proxy is not None and _first(causes, exceptions.ProxyError):
            return self._proxy_fault(causes, self._proxy)
        tls_error = _first(causes, ssl.SSLError)
        if tls_error is not None:
            return self._tls_fault(tls_error, self._server)
        if _first(causes, exceptions.DecodeError):
            return ServerError(f"{self._server} sent a body that does not decompress")
        unreached = self._unreached(causes)
        if unreached is not None:
            return ConnectionFault(f"{self._server} {unreached}")
        if any("handshake" in str(cause) for cause in causes if isinstance(cause, TimeoutError)):
            return TlsFault(f"{self._server} was silent in the TLS handshake for {self._connect}")
        if _first(causes, exceptions.ReadTimeoutError) or _first(causes, TimeoutError):
            return ReadTimeout(f"{self._server} was silent for {self._read}")
        return self._broken(causes)

    def _unreached(self, causes: list[BaseException]) -> str | None:
        """Say why a host was not reached; None where it was."""
        if _first(causes, socket.gaierror):
            return "was not found: its name does not resolve"
        if _first(causes, exceptions.NewConnectionError):
            return f"was not reached: {_system_words(causes)}"
        if _first(causes, exceptions.ConnectTimeoutError):
            return f"was not reached within {self._connect}"
        return None

    def _broken(self, causes: list[BaseException]) -> HsmjwtError:
        if _first(causes, exceptions.InvalidHeader):
            return ServerError(f"{self._server} sent an answer that made no sense")
        whole = "before a whole answer had come"
        begun = _first(causes, http.client.BadStatusLine)
        cut = begun is not None and _begins_status(getattr(begun, "line", ""))
        if cut or _first(causes, http.client.RemoteDisconnected) or _first(causes, http.client.IncompleteRead):
            return ConnectionFault(f"{self._server} closed the connection {whole}")
        if _first(causes, ConnectionResetError) or _first(causes, BrokenPipeError):
            return ConnectionFault(f"{self._server} reset the connection {whole}")
        if _first(causes, http.client.HTTPException):
            return ServerError(f"{self._server} did not answer in HTTP")
        if _first(causes, exceptions.ProtocolError):
            return ConnectionFault(f"{self._server} broke the connection {whole}")
        if _first(causes, ValueError):
            return ServerError(f"{self._server} sent an answer that made no sense")
        system = [cause for cause in causes if isinstance(cause, OSError) and cause.errno]
        if system:
            return ConnectionFault(f"the connection to {self._server} failed: {_system_words(causes)}")
        return NetworkError(f"the exchange with {self._server} failed ({type(causes[-1]).__name__})")

    def _tls_fault(self, error: ssl.SSLError, who: str) -> HsmjwtError:
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _UNKNOWN_CA:
                ours = "--ca-file FILE names the CA's certificate, where the server belongs to a company's own CA"
                return TlsFault(f"the TLS certificate of {who} comes from a CA that is not trusted here", hint=ours)
            words = _CERTIFICATE.get(error.verify_code)
            if words is not None:
                hint = "look at this machine's clock" if error.verify_code in (9, 10) else None
                return TlsFault(f"the TLS certificate of {who} {words}", hint=hint)
            return TlsFault(f"the TLS certificate of {who} does not verify: {_plain(error.verify_message)}")
        reason = error.reason or ""
        # Without a reason nothing was wrong with TLS itself: the other side closed or reset the connection.
        if isinstance(error, ssl.SSLEOFError) or reason in ("", "UNEXPECTED_EOF_WHILE_READING"):
            return ConnectionFault(f"{who} closed the connection in the TLS handshake")
        if reason in _NO_TLS:
            return TlsFault(f"{who} does not speak TLS on this port")
        if reason in _OLD_TLS:
            return TlsFault(f"{who} speaks no TLS version that is safe (1.2 or newer)")
        return TlsFault(f"TLS with {who} failed: {_plain(reason)}")

    def _proxy_fault(self, causes: list[BaseException], proxy: proxies.Proxy) -> HsmjwtError:
        where = "" if proxy.source == "proxy" else f" of {proxy.source}"
        who = f"the proxy '{proxy.url}'{where}"
        tls_error = _first(causes, ssl.SSLError)
        if tls_error is not None:
            return self._tls_fault(tls_error, who)
        refusal = next((found for cause in causes if (found := _TUNNEL_STATUS.search(str(cause)))), None)
        if refusal is not None:
            status = refusal[1]
            hint = "its user name and password belong into its URL, percent-encoded" if status == "407" else None
            kind = ProxyUnreached if status in _TRY_LATER else ProxyFault
            return kind(f"{who} does not let us through to {self._server}: it answered {status}", hint=hint)
        unreached = self._unreached(causes)
        if unreached is not None:
            return ProxyUnreached(f"{who} {unreached}")
        if _first(causes, TimeoutError) or _first(causes, exceptions.TimeoutError):
            return ProxyFault(f"{who} was silent for {self._read}")
        return ProxyUnreached(f"{who} closed the connection before it led anywhere")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made from: urllib3 and requests wrap in arguments, `reason` and `__cause__`."""
    pending, seen = [error], set[int]()
    while pending:
        cause = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        wrapped = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        pending += [inner for inner in wrapped if isinstance(inner, BaseException)]


def _first(causes: list[BaseException], kind: type[Fault]) -> Fault | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)


def _begins_status(line: str) -> bool:
    """Tell whether a status line was cut: what came of it fits, and no line end came."""
    return not line.endswith("\n") and (line.startswith("HTTP/1.") or "HTTP/1.".startswith(line))


def _system_words(causes: list[BaseException]) -> str:
    numbers = (cause.errno for cause in causes if isinstance(cause, OSError))
    number = next((number for number in numbers if number), None)
    return "no reason given" if number is None else os.strerror(number).lower()


def _plain(text: str) -> str:
    return text.replace("_", " ").lower()


def _over(deadline: Deadline) -> bool:
    left = deadline.remaining()
    return left is not None and left < 0.05  # a socket's timeout is set a little before it is due
