"""What a rotation publishes: a JWK set with both keys, the new public key, and a certificate of it.

The folder may be one that `jwks` writes to as well: of its set only the entries of the two keys are touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Final

from hsmjwt import whole_file
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.jose.encoding import EncodingFault, load_object
from hsmjwt.jose.keys import PublicKey
from hsmjwt.private import make_folder
from hsmjwt.x509.certificate import read, read_chain
from hsmjwt.x509.der import armoured
from hsmjwt.x509.public import spki_pem

JWKS: Final = "jwks.json"
PUBLIC: Final = "public.pem"
CERTIFICATE: Final = "certificate.pem"
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644  # whatever the umask: what is public may be read by a web server's user
_LARGEST: Final = 4 * 1024 * 1024  # bytes of a file that is read


def paths(folder: str) -> list[str]:
    """Return the paths of what is published in a folder."""
    return [os.path.join(folder, name) for name in (JWKS, PUBLIC, CERTIFICATE)]


def is_published(folder: str) -> bool:
    """Tell whether a folder holds a JWK set."""
    return os.path.exists(os.path.join(folder, JWKS))


def publish(folder: str, entries: Sequence[dict[str, Any]], public: PublicKey, certificate: bytes) -> None:
    """Write all three files; raises ConfigError where the folder is not to be had, or holds a set that is none."""
    put(folder, entries)
    _write(os.path.join(folder, PUBLIC), spki_pem(public))
    _write(os.path.join(folder, CERTIFICATE), armoured("CERTIFICATE", certificate))


def put(folder: str, entries: Sequence[dict[str, Any]], gone: dict[str, Any] | None = None) -> None:
    """Put JWKs into the folder's set, in the place of those of the same keys; those of `gone` are left out."""
    path = os.path.join(folder, JWKS)
    there = _entries(path)
    left = [each for each in there if not any(_same(each, entry) for entry in entries)]
    if gone is not None:
        left = [each for each in left if not _same(each, gone)]
    if [*left, *entries] != there:
        _write(path, json.dumps({"keys": [*left, *entries]}, indent=2) + "\n")


def _write(path: str, text: str) -> None:
    """Write a file that everybody may read; its folder is made where it is missing."""
    folder = os.path.dirname(path)
    try:
        if not os.path.isdir(folder):
            make_folder(folder)
            os.chmod(folder, _FOLDER_MODE)
        whole_file.replace(path, text.encode("ascii"), _FILE_MODE)
    except OSError as error:
        raise _unusable(path, "written", error) from None


def certificate_there(folder: str, public: PublicKey) -> bytes | None:
    """Return the certificate of this key that an earlier run has published, as DER; None where there is none."""
    data = _content(os.path.join(folder, CERTIFICATE))
    try:
        der = read_chain(data or b"")[0]
        return der if read(der).public_key == public else None
    except UsageError:
        return None


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two JWKs hold the same public key."""
    names = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}.get(str(one.get("kty")), ("kty", "crv", "x"))
    return all(one.get(name) == other.get(name) for name in names)


def _entries(path: str) -> list[dict[str, Any]]:
    data = _content(path)
    if data is None:
        return []
    try:
        entries = load_object(data).get("keys")
    except EncodingFault as error:
        raise _no_set(path, str(error)) from None
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise _no_set(path, "it has no list of keys")
    return entries


def _no_set(path: str, why: str) -> ConfigError:
    return ConfigError(f"'{path}' is no JWK set: {why}", hint="--out names another folder, or mend the file")


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from None


def _unusable(path: str, what: str, error: OSError) -> ConfigError:
    reason = (error.strerror or "unknown reason").lower()
    return ConfigError(f"'{path}' cannot be {what}: {reason}", hint="--out names another folder")
