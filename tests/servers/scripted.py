"""Servers on loopback that answer as a test scripts it, byte for byte, and remember what they were asked.

    with Server(json_reply({"access_token": "t", "token_type": "Bearer"})) as server:
        ask(server.url())
    assert server.requests[0].form["grant_type"] == "…"

Each connection takes one request and gets the next reply; the last reply serves all that follow. Nothing here knows
HTTP beyond reading one request, so that a reply may break any rule. `Ca` makes certificates for servers with TLS.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Request(NamedTuple):
    """One request as it came; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form body."""
        return dict(self.fields)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of a form body in their order."""
        return parse_qsl(self.body.decode("ascii"), keep_blank_values=True)


class Line:
    """The server's end of one connection, as a reply sees it."""

    def __init__(self, sock: socket.socket, request: Request, closing: threading.Event) -> None:
        self.sock = sock
        self.request = request
        self.sent = 0
        self._closing = closing

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises OSError where the client has gone."""
        self.sock.sendall(data)
        self.sent += len(data)

    def wait(self, seconds: float) -> bool:
        """Wait, and tell whether the server is to go on."""
        return not self._closing.wait(seconds)

    def reset(self) -> None:
        """End the connection with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Reply = Callable[[Line], None]


class Server:
    """A server on loopback with a thread for each connection.

    `requests` holds what was asked, `accepted` counts connections (also those that asked nothing), `sent` the bytes of
    the replies.
    """

    def __init__(
        self, *replies: Reply, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, deaf: bool = False
    ) -> None:
        """Script the replies; the server listens once it is entered. A deaf one replies without reading a request."""
        self.requests: list[Request] = []
        self.accepted = 0
        self.sent = 0
        self._replies = list(replies)
        self._host = host
        self._tls = tls
        self._deaf = deaf
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.create_server((self._host, 0), family=family)
        self.port: int = self._socket.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept, as a close from another thread would not
        for thread in self._threads:
            thread.join(5)
        self._socket.close()

    def url(self, path: str = "/token", *, name: str | None = None) -> str:
        """Return a URL of this server, under another name of its host where one is given."""
        host = name or (f"[{self._host}]" if ":" in self._host else self._host)
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closing.is_set():
                sock, _ = self._socket.accept()
                self.accepted += 1
                self._start(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(sock):
            sock.settimeout(10)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with contextlib.closing(sock):
                request = Request("", "", {}, b"") if self._deaf else read_request(sock)
                if request is None:
                    return
                with self._lock:
                    self.requests.append(request)
                    reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
                line = Line(sock, request, self._closing)
                try:
                    reply(line)
                finally:
                    self.sent += line.sent


def read_request(sock: socket.socket) -> Request | None:
    """Read one request, None where the client says nothing."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += sock.recv(65536)
    method, target, _ = start.split(" ")
    return Request(method, target, headers, body)


def head(status: int = 200, headers: Mapping[str, str] | None = None, *, length: int | None = None) -> bytes:
    """Return a status line and header fields, with a Content-Length where a length is given."""
    fields = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
    if length is not None:
        fields["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw(data: bytes) -> Reply:
    """Send `data` and close."""
    return lambda line: line.send(data)


def reply(body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a whole answer, JSON unless its headers say otherwise."""
    return raw(head(status, headers, length=len(body)) + body)


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a whole answer with a JSON body."""
    return reply(json.dumps(value).encode(), status=status, headers=headers)


def redirect(to: str, *, status: int = 302) -> Reply:
    """Point elsewhere."""
    return reply(status=status, headers={"Location": to})


def later(seconds: float, after: Reply) -> Reply:
    """Think for some seconds, then answer."""

    def act(line: Line) -> None:
        time.sleep(seconds)
        after(line)

    return act


def silent() -> Reply:
    """Read the request and say nothing until the server closes."""

    def act(line: Line) -> None:
        while line.wait(1):
            pass

    return act


def drip(start: bytes, drop: bytes = b"x", *, every: float = 0.05) -> Reply:
    """Send `start`, then `drop` for ever, so that no single read is slow."""

    def act(line: Line) -> None:
        line.send(start)
        while line.wait(every):
            line.send(drop)

    return act


def close_after(data: bytes) -> Reply:
    """Send a part of an answer and close in order."""
    return raw(data)


def reset_after(data: bytes = b"") -> Reply:
    """Send a part of an answer, let it arrive, and reset the connection."""

    def act(line: Line) -> None:
        if data:
            line.send(data)
        line.wait(0.05)
        line.reset()

    return act


def flood(start: bytes, block: bytes, times: int) -> Reply:
    """Send `start` and `times` blocks, for as long as the client takes them."""

    def act(line: Line) -> None:
        line.send(start)
        for _ in range(times):
            line.send(block)

    return act


def gzip_bomb(mib: int) -> Reply:
    """Send `mib` MiB of JSON text, a thousand times smaller on the wire."""
    body = gzip.compress(b'{"access_token":"' + b"A" * (mib * 1024 * 1024), compresslevel=9)
    return reply(body, headers={"Content-Encoding": "gzip"})


def tunnel(port: int) -> Reply:
    """Answer CONNECT as a proxy does, and lead to `port` on loopback whatever host was asked for."""

    def act(line: Line) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(far, line.sock), daemon=True)
            back.start()
            _pump(line.sock, far)
            back.join(5)

    return act


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Ca:
    """A certificate authority of the test's own; `file` is its certificate as PEM."""

    def __init__(self, folder: str | os.PathLike[str], name: str = "Test CA") -> None:
        """Make the key and the certificate, in `folder`, which also takes the servers'."""
        self._folder = os.fspath(folder)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._count = 0
        builder = self._builder(self._name, self._key.public_key(), *_days(-1, 30))
        usage = x509.KeyUsage(
            False, False, False, False, False, True, True, False, False
        )  # to sign certificates and CRLs
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.file = os.path.join(self._folder, f"{name.replace(' ', '-').lower()}.pem")
        with open(self.file, "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, begins: int = -1, ends: int = 1) -> ssl.SSLContext:
        """Return a server's TLS context, its new certificate for host names or addresses; its life in days from now."""
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = self._builder(subject, key.public_key(), *_days(begins, ends))
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_san, names))), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = os.path.join(self._folder, f"server-{self._count}.pem")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(path, "wb") as file:
            file.write(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime.datetime, ends: datetime.datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        return builder.add_extension(identifier, critical=False).add_extension(authority, critical=False)


class Authorities(NamedTuple):
    """One that a test believes, and one that it does not."""

    ours: Ca
    other: Ca


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _days(begins: int, ends: int) -> Iterator[datetime.datetime]:
    now = datetime.datetime.now(datetime.UTC)
    return (now + datetime.timedelta(days=days) for days in (begins, ends))
