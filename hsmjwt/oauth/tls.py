"""Which certificate authorities are believed, and a TLS context that believes them and writes no keys."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping

from requests.utils import DEFAULT_CA_BUNDLE_PATH  # what requests.certs.where() says

from hsmjwt.errors import ConfigError
from hsmjwt.oauth.shown import escaped

_LONGEST_FILE = 16 * 1024 * 1024  # bytes; the system's bundle has a quarter of one MiB
_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # as openssl's c_rehash names a link
_SYSTEM_FOLDERS = ("/etc/ssl/certs", "/etc/pki/tls/certs")  # where OpenSSL's own default is another, a build's


def context(ca_file: str | None, environ: Mapping[str, str], warn: Callable[[str], None]) -> ssl.SSLContext:
    """Return a client's context: TLS 1.2 or newer, names and certificates checked, no key log.

    Believed are the CAs of `ca_file`, else of SSL_CERT_FILE and SSL_CERT_DIR, else of REQUESTS_CA_BUNDLE, else of the
    system's hashed folder (faster than a bundle, and where a company's own CA lives), else of the bundle that requests
    uses. Raises ConfigError for a file that cannot be read or holds no certificate. `warn` hears that SSLKEYLOGFILE is
    dropped.
    """
    if environ.get("SSLKEYLOGFILE"):
        warn("warning: SSLKEYLOGFILE is set and was ignored: whoever reads that file reads the tokens")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context would take the key log from the environment
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a CA file may name the intermediate alone, as with curl
    _believe(made, ca_file, environ)
    return made


def _believe(made: ssl.SSLContext, ca_file: str | None, environ: Mapping[str, str]) -> None:
    if ca_file:
        _load_file(made, ca_file, "the CA file")
        return
    file, folders = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file or folders:  # both together, as OpenSSL reads them
        if file:
            _load_file(made, file, "the CA file of SSL_CERT_FILE")
        if folders:
            _load_folders(made, folders, "SSL_CERT_DIR", or_else=bool(file))
        return
    bundle = environ.get("REQUESTS_CA_BUNDLE")
    if bundle and os.path.isdir(bundle):
        _load_folders(made, bundle, "REQUESTS_CA_BUNDLE")
    elif bundle:
        _load_file(made, bundle, "the CA file of REQUESTS_CA_BUNDLE")
    else:
        folder = _system_folder()
        if folder is None:
            made.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
        else:
            made.load_verify_locations(capath=folder)


def _load_file(made: ssl.SSLContext, path: str, noun: str) -> None:
    """Believe the certificates of a PEM or DER file, whatever else stands between them."""
    shown = f"'{escaped(path)}'"
    try:
        data = _read(path)
    except (OSError, ValueError) as error:
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).lower()
        raise ConfigError(f"{noun} {shown} cannot be read: {reason}") from error
    if len(data) > _LONGEST_FILE:
        raise ConfigError(f"{noun} {shown} has more than 16 MiB")
    try:
        ders = list(_certificates(data))
        if ders:
            made.load_verify_locations(cadata=b"".join(ders))
            return
        reason = "holds no certificate"
    except (ssl.SSLError, binascii.Error, ValueError):
        reason = "holds something that is no certificate"
    raise ConfigError(
        f"{noun} {shown} {reason}", hint="it should hold CA certificates as PEM (BEGIN CERTIFICATE) or DER"
    )


def _read(path: str) -> bytes:
    """Return what a regular file holds, at most one byte more than is taken; a FIFO would be waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise ValueError("it is no regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(_LONGEST_FILE + 1)
    finally:
        os.close(fd)


def _certificates(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\x30"):  # a DER sequence; PEM is text
        yield data
        return
    for block in _PEM.finditer(data):
        yield base64.b64decode(b"".join(block[1].split()), validate=True)


def _load_folders(made: ssl.SSLContext, folders: str, noun: str, *, or_else: bool = False) -> None:
    """Believe the certificates in hashed folders, a list with colons; OpenSSL reads one when it needs it."""
    if any(map(os.path.isdir, folders.split(":"))):
        made.load_verify_locations(capath=folders)
    elif not or_else:
        raise ConfigError(f"{noun} names no folder: '{escaped(folders)}'")


def _system_folder() -> str | None:
    for folder in (ssl.get_default_verify_paths().openssl_capath, *_SYSTEM_FOLDERS):
        try:
            with os.scandir(folder) as entries:
                if any(_HASHED.fullmatch(entry.name) for entry in entries):
                    return folder
        except OSError:
            continue
    return None
