"""What a rotation publishes: a JWK set with both keys, the new public key, and a certificate of it.

The folder may be one that `jwks` and the rotations of other keys write to as well: of its set only the entries of the
two keys are touched, and the other files are named after their key. A key table may name those, so what belongs to the
key in use stays as it is until the config names the next one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hsmjwt.custody import static_files
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.jose.encoding import EncodingFault, load_object
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.certificate import read, read_chain
from hsmjwt.x509.der import armoured
from hsmjwt.x509.public import spki_pem

JWKS: Final = "jwks.json"
_LARGEST: Final = 4 * 1024 * 1024  # bytes of a file that is read


def public_path(folder: str, thumbprint: str) -> str:
    """Return the path of a key's public half, in PEM; `thumbprint` is that of RFC 7638."""
    return os.path.join(folder, f"public-{thumbprint}.pem")


def certificate_path(folder: str, thumbprint: str) -> str:
    """Return the path of a key's certificate, in PEM."""
    return os.path.join(folder, f"certificate-{thumbprint}.pem")


def paths(folder: str, thumbprint: str | None) -> list[str]:
    """Return the paths of what is published in a folder; `thumbprint` is that of the new key, if there is one yet."""
    files = () if thumbprint is None else (public_path(folder, thumbprint), certificate_path(folder, thumbprint))
    return [os.path.join(folder, JWKS), *files]


def is_published(folder: str) -> bool:
    """Tell whether a folder holds a JWK set."""
    return os.path.exists(os.path.join(folder, JWKS))


def publish(
    folder: str, entries: Sequence[dict[str, Any]], public: PublicKey, certificate: bytes, deadline: Deadline
) -> None:
    """Write all three files; raises ConfigError where the folder is not to be had, or holds a set that is none."""
    key = thumbprint(public)
    files = {
        public_path("", key): spki_pem(public).encode("ascii"),
        certificate_path("", key): armoured("CERTIFICATE", certificate).encode("ascii"),
    }
    _publish(folder, entries, deadline, files=files)


def put(
    folder: str, entries: Sequence[dict[str, Any]], deadline: Deadline, *, gone: dict[str, Any] | None = None
) -> None:
    """Put JWKs into the folder's set, in the place of those of the same keys; those of `gone` are left out."""
    _publish(folder, entries, deadline, gone=gone)


def _publish(
    folder: str,
    entries: Sequence[dict[str, Any]],
    deadline: Deadline,
    *,
    gone: dict[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    ours = [*entries, *([] if gone is None else [gone])]

    def documents() -> Mapping[str, bytes]:
        there = _entries(os.path.join(folder, JWKS))
        keys = [*(each for each in there if not any(_same(each, our) for our in ours)), *entries]
        changed = {} if keys == there else {JWKS: static_files.as_json({"keys": keys})}
        return {**(files or {}), **changed}

    static_files.publish(folder, documents, deadline)


def certificate_there(folder: str, public: PublicKey) -> bytes | None:
    """Return the certificate of this key that an earlier run has published, as DER; None where there is none."""
    data = _content(certificate_path(folder, thumbprint(public)))
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
        reason = (error.strerror or "unknown reason").lower()
        raise ConfigError(f"'{path}' cannot be read: {reason}", hint="--out names another folder") from None
