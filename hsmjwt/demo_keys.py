"""The clients of the demo's server: who they are, and which keys of theirs count at this moment.

A client is registered with one public key, or with the file in which it publishes a JWK set (RFC 7517); that file is
read anew at each request, as a server would fetch it again, and so a rotated key counts once it is published. The
library that reads keys is handed in: see hsmjwt.demo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from hsmjwt.errors import UsageError

_LARGEST = 1024 * 1024  # bytes of a JWK set
_SHORTEST = 2048  # bits of an RSA key
_CURVES = ("P-256", "P-384", "P-521", "Ed25519")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A registered client: its public key as PEM, and the key's id where that is not the RFC 7638 thumbprint.

    It is an RSA key, one on P-256, P-384 or P-521, or an Ed25519 key.
    In the key's place may stand `jwks`, the path of the JWK set that the client publishes.
    """

    client_id: str
    public_key_pem: str | None = None
    kid: str | None = None
    jwks: str | None = None


class Named(NamedTuple):
    """A key of the library, and the id by which an assertion may name it."""

    kid: str
    key: Any


class KeysFault(Exception):
    """The client's published keys cannot be read; the text is ours and quotes nothing."""


Keys = Callable[[], list[Named]]


def keys_of(library: SimpleNamespace, client: Client) -> Keys:
    """Return what gives a client's keys at the time of a request; raises UsageError for what cannot be used."""
    if client.jwks is not None:
        path = client.jwks
        try:
            _published(library, path)
        except KeysFault as fault:
            raise UsageError(f"'{path}': {fault}", hint='a JWK set belongs there, {"keys": […]}') from None
        return lambda: _published(library, path)
    name = f"client {client.client_id!r}"
    for kind in (library.jwk.RSAKey, library.jwk.ECKey, library.jwk.OKPKey):
        with suppress(ValueError, TypeError, library.errors.JoseError):
            key = kind.import_key(client.public_key_pem)
            break
    else:
        raise UsageError(f"the public key of {name} is no RSA, EC or Ed25519 public key in PEM")
    if not _usable(key):
        curves = ", ".join(_CURVES)
        raise UsageError(
            f"the key of {name} is a private key, shorter than 2048 bits, or on none of the curves {curves}"
        )
    only = [Named(key.thumbprint() if client.kid is None else client.kid, key)]
    return lambda: only


def _published(library: SimpleNamespace, path: str) -> list[Named]:
    """Return the usable keys of a JWK set; others in it are passed over (RFC 7517, section 5)."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        members = json.loads(data)["keys"] if len(data) <= _LARGEST else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        members = None
    if not isinstance(members, list):
        raise KeysFault("the key set cannot be read")
    found = []
    for member in members:
        with suppress(ValueError, TypeError, KeyError, AttributeError, library.errors.JoseError):
            key = library.jwk.import_key(member)
            if _usable(key):
                kid = member.get("kid")
                found.append(Named(kid if isinstance(kid, str) else key.thumbprint(), key))
    return found


def _usable(key: Any) -> bool:
    """Tell whether a key is a public one of a size or curve that the server takes."""
    if key.key_type == "RSA":
        return not key.is_private and key.public_key.key_size >= _SHORTEST
    return not key.is_private and key.curve_name in _CURVES
