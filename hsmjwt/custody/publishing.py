"""Public keys as others are to have them: as JWKs with their certificates, and as sets of those."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.keys import found
from hsmjwt.errors import KeyUnfitError, PolicyError
from hsmjwt.hsm.objects import KeyObject, public_key_of
from hsmjwt.hsm.ways import WAYS
from hsmjwt.jose.algorithms import by_default, misfit, usable_with
from hsmjwt.jose.encoding import b64u_encode
from hsmjwt.jose.jwk import thumbprint, to_jwk
from hsmjwt.jose.keys import PublicKey


class Wanted(NamedTuple):
    """A key to publish, and the kids that it goes by; without one it goes by its thumbprint (RFC 7638)."""

    choice: DeviceChoice
    kids: tuple[str, ...] = ()


class Published(NamedTuple):
    """A JWK set, and the algorithms that its keys sign with."""

    keys: dict[str, Any]
    algs: tuple[str, ...]


class _Entry(NamedTuple):
    """What is known of a key that several words may name: `bound` are the algorithms that a key table binds it to."""

    key: PublicKey
    kids: tuple[str, ...]
    bound: tuple[str, ...]
    likely: str
    chain: Sequence[bytes]


def public_jwk(
    key: PublicKey, alg: str | None, *, kid: str | None = None, chain: Sequence[bytes] = ()
) -> dict[str, Any]:
    """Return a public key as a JWK for signatures (RFC 7517, section 4), without `alg` where that is None.

    `kid` is the thumbprint (RFC 7638) unless it is given, `chain` the key's certificates in DER, its own one first,
    which become x5c and x5t#S256 (sections 4.7 and 4.9).
    """
    jwk: dict[str, Any] = {**to_jwk(key), "kid": thumbprint(key) if kid is None else kid, "use": "sig"}
    if alg is not None:
        jwk["alg"] = alg
    if chain:
        jwk["x5c"] = [base64.b64encode(der).decode("ascii") for der in chain]
        jwk["x5t#S256"] = b64u_encode(hashlib.sha256(chain[0]).digest())
    return jwk


def jwk_set(devices: Devices, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """Return the public halves of keys as a JWK set; see `publish`."""
    return publish(devices, wanted).keys


def publish(devices: Devices, wanted: Sequence[Wanted]) -> Published:
    """Return the public halves of keys as a JWK set (RFC 7517, section 5), in the order in which they are asked for.

    A key that is asked for twice is one entry; one that goes by several kids has an entry for each. `alg` is what a key
    table binds the key to, and is left out where that is more than one; without a table it is what the key signs with
    by default. Raises what finding a key raises, KeyUnfitError for one that no algorithm takes, and PolicyError where
    two key tables bind the same key to different algorithms.
    """
    entries: dict[PublicKey, _Entry] = {}
    for one in wanted:
        entry = _entry(devices, one)
        entries[entry.key] = _merged(entries.get(entry.key, entry), entry)
    rows: list[dict[str, Any]] = []
    algs: list[str] = []
    for entry in entries.values():
        named = entry.bound or (entry.likely,)
        algs += named
        alg = named[0] if len(named) == 1 else None
        rows += [public_jwk(entry.key, alg, kid=kid, chain=entry.chain) for kid in entry.kids or (None,)]
    return Published({"keys": rows}, tuple(dict.fromkeys(algs)))


def _entry(devices: Devices, wanted: Wanted) -> _Entry:
    key, session, slot = found(devices, wanted.choice, "public", "private")
    public = public_key_of(session, key)
    usable = usable_with(public)
    if not usable:
        raise KeyUnfitError(f"the key '{key.uri(slot.needed_id)}' signs nothing: {misfit(by_default(public), public)}")
    return _Entry(public, wanted.kids, (), _likely(key, public), ())


def _likely(key: KeyObject, public: PublicKey) -> str:
    """Return the algorithm that a key signs with where nobody names one: the first that its mechanisms allow."""
    usable = [alg.name for alg in usable_with(public)]
    allowed = getattr(key, "allowed", None)
    if allowed is not None:
        usable = [name for name in usable if any(way.mechanism in allowed for way in WAYS.get(name, ()))] or usable
    return usable[0]


def _merged(one: _Entry, other: _Entry) -> _Entry:
    """Return what two words say of the same key."""
    if one.bound and other.bound and one.bound != other.bound:
        raise PolicyError(
            f"two key tables bind the key with the thumbprint {thumbprint(one.key)} to different algorithms: "
            f"{', '.join(one.bound)} and {', '.join(other.bound)}",
            hint='one key, one algorithm (RFC 8725, 3.1), unless its table lists both: alg = ["RS256", "PS256"]',
        )
    return one._replace(
        kids=tuple(dict.fromkeys((*one.kids, *other.kids))),
        bound=one.bound or other.bound,
        chain=one.chain or other.chain,
    )
