"""An authorization server on loopback that grants whatever it is asked; its CPU time is this process's own."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs

import certifi

_ANSWER = b'{"access_token": "%s", "token_type": "Bearer", "expires_in": 86400, "scope": "read"}' % (b"bench-" * 100)

_OPENSSL = ("openssl",)
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)

_EXTENSIONS = """\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body leave in one piece
    server: AuthorizationServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.forms.append({name: values[0] for name, values in parse_qs(body.decode()).items()})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


class AuthorizationServer(ThreadingHTTPServer):
    """Listens in a thread while it is entered; `forms` is what was posted."""

    daemon_threads = True

    def __init__(self, certificate: str | None = None) -> None:
        """Take a free port; `certificate` is a PEM file with key and chain, for https."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forms: list[dict[str, str]] = []
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server_port}/token"

    def __enter__(self) -> Self:
        """Start to answer."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()


class Trust(NamedTuple):
    """Paths: an authority of our own, alone and among those that everybody trusts, and a certificate by it.

    `bundle` is one file, as requests takes it, and `hashed` a folder by hashes, as OpenSSL does: what a system has once
    a company's authority is installed there.
    """

    ca_file: str
    bundle: str
    hashed: str
    server: str


def make_trust(folder: str) -> Trust:
    """Have openssl make an authority of our own and a certificate for 127.0.0.1."""
    paths = {name: os.path.join(folder, name) for name in ("openssl.cnf", "ca.pem", "ca.key", "server.pem")}
    with open(paths["openssl.cnf"], "w", encoding="ascii") as file:
        file.write(_EXTENSIONS)
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
    usual = (*_OPENSSL, "req", "-x509", "-config", paths["openssl.cnf"], *kind)
    authority = ("-subj", "/CN=bench CA", "-extensions", "ca", "-keyout", paths["ca.key"], "-out", paths["ca.pem"])
    server = ("-subj", "/CN=127.0.0.1", "-extensions", "server", "-CA", paths["ca.pem"], "-CAkey", paths["ca.key"])
    key = os.path.join(folder, "server.key")
    for words in (authority, (*server, "-keyout", key, "-out", paths["server.pem"])):
        subprocess.run([*usual, *words], check=True, capture_output=True)
    with open(paths["server.pem"], "a", encoding="ascii") as append:
        append.write(_text(key))
    bundle = os.path.join(folder, "bundle.pem")
    everybody = _text(certifi.where())
    with open(bundle, "w", encoding="utf-8") as file:
        file.write(everybody + _text(paths["ca.pem"]))
    hashed = os.path.join(folder, "hashed")
    os.mkdir(hashed)
    for number, certificate in enumerate(_CERTIFICATE.findall(_text(bundle))):
        with open(os.path.join(hashed, f"{number}.pem"), "w", encoding="ascii") as file:
            file.write(certificate)
    subprocess.run([*_OPENSSL, "rehash", hashed], check=True, capture_output=True)
    return Trust(paths["ca.pem"], bundle, hashed, paths["server.pem"])


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
