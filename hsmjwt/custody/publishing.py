"""Public keys as others are to have them: as JWKs with their certificates, and as sets of those."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from hsmjwt.compose import halves
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.certificates import certificate_of
from hsmjwt.custody.keys import FoundKey, algorithms, found, half_of
from hsmjwt.errors import HsmjwtError, KeyFault, KeyUnfitError
from hsmjwt.guard.policy import bound_to
from hsmjwt.hsm.objects import KeyObject
from hsmjwt.jose.algorithms import ALGORITHMS, by_default, fits, misfit, usable_with
from hsmjwt.jose.encoding import b64u_encode
from hsmjwt.jose.jwk import thumbprint, to_jwk
from hsmjwt.jose.keys import PublicKey, RsaKey
from hsmjwt.keyrules import KeyRules, bounds, named_first
from hsmjwt.secret import SecretSource

_NO_LOGIN = SecretSource(kind="none")


class Wanted(NamedTuple):
    """A key to publish, and the kids that it goes by; without one it goes by its thumbprint (RFC 7638).

    `named` is how an error calls it where several are asked for.
    """

    choice: DeviceChoice
    kids: tuple[str, ...] = ()
    named: str | None = None


class Published(NamedTuple):
    """A JWK set, and the algorithms that its keys sign with."""

    keys: dict[str, Any]
    algs: tuple[str, ...]


class _Entry(NamedTuple):
    """What is known of a key that several words may name: `bound` are the algorithms that key tables bind it to."""

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


def jwk_of(devices: Devices, choice: DeviceChoice) -> dict[str, Any]:
    """Return the public half of one key as a JWK without its certificate; see `publish`."""
    (jwk,) = publish(devices, [Wanted(choice)]).keys["keys"]
    return {name: value for name, value in jwk.items() if name not in ("x5c", "x5t#S256")}


def publish(devices: Devices, wanted: Sequence[Wanted]) -> Published:
    """Return the public halves of keys as a JWK set (RFC 7517, section 5), in the order in which they are asked for.

    A key that is asked for twice is one entry; one that goes by several kids has an entry for each, and keys that go by
    the same one are warned of. `alg` is what key tables bind the key to, however it was named, and is left out where
    that is more than one algorithm; without a table it is what the key signs with by default. Raises what finding a key
    raises, KeyUnfitError for one that no algorithm takes or that is not its table's, and PolicyError where its tables
    agree on no algorithm.
    """
    entries: dict[PublicKey, _Entry] = {}
    for one in wanted:
        entry = _entry(devices, one) if one.named is None else _named_entry(devices, one)
        known = entries.get(entry.key, entry)
        entries[entry.key] = entry._replace(
            kids=tuple(dict.fromkeys((*known.kids, *entry.kids))),
            bound=known.bound or entry.bound,
            chain=known.chain or entry.chain,
        )
    rows: list[dict[str, Any]] = []
    algs: list[str] = []
    for entry in entries.values():
        named = entry.bound or (entry.likely,)
        algs += named
        alg = named[0] if len(named) == 1 else None
        rows += [public_jwk(entry.key, alg, kid=kid, chain=entry.chain) for kid in entry.kids or (None,)]
    for kid, number in Counter(row["kid"] for row in rows).items():
        if number > 1:
            devices.around.warn(
                f"warning: {number} keys of the set go by the kid {kid!r}: who verifies may take another"
            )
    return Published({"keys": rows}, tuple(dict.fromkeys(algs)))


def _named_entry(devices: Devices, wanted: Wanted) -> _Entry:
    try:
        return _entry(devices, wanted)
    except HsmjwtError as error:
        message, hint = f"{wanted.named}: {error.message}", error.hint
        raise type(error)(message, hint=hint, ckr=error.ckr, oauth_error=error.oauth_error) from None


def _entry(devices: Devices, wanted: Wanted) -> _Entry:
    there = found(devices, wanted.choice, "public", "private")
    public = half_of(devices, wanted.choice, there)
    uri = there.key.uri(there.slot.needed_id)
    if not usable_with(public):
        raise KeyUnfitError(f"the key '{uri}' signs nothing: {misfit(by_default(public), public)}")
    rules = _rules(devices, wanted.choice, there)
    for each in rules:
        halves.check_thumbprint(each, public, uri)
    named = next((each for each in rules if each.certificate is not None), wanted.choice.rules)
    choice = msgspec.structs.replace(wanted.choice, rules=named)
    chain = certificate_of(devices, choice, there, public)
    named_algs = bound_to(bounds(rules))
    bound = tuple(alg for alg in named_algs if fits(ALGORITHMS[alg], public))
    if named_algs and not bound:
        raise KeyUnfitError(f"the key '{uri}': {misfit(ALGORITHMS[named_algs[0]], public)}")
    likely = "" if bound else _likely(devices, wanted.choice, there, public)
    return _Entry(public, wanted.kids, bound, likely, chain)


def _likely(devices: Devices, choice: DeviceChoice, there: FoundKey, public: PublicKey) -> str:
    """Return the algorithm that a key signs with where nobody names one: the first that its mechanisms allow.

    Of an RSA key the private half alone may tell those; it is looked at where it shows itself.
    """
    key = there.key
    if isinstance(public, RsaKey) and key.kind == "public" and not key.allowed:
        key = _private_half(devices, choice) or key
        if key.kind == "private" and half_of(devices, choice, there._replace(key=key)) != public:
            raise KeyUnfitError(
                f"the public key '{there.key.uri(there.slot.needed_id)}' is not the public half of '{key.uri()}'",
                hint="they have the same name and different moduli: remove the public key, and nobody is misled",
            )
    return (*algorithms(key, public), *usable_with(public))[0].name


def _private_half(devices: Devices, choice: DeviceChoice) -> KeyObject | None:
    """Return the private half of a key whose public one was found; None where nobody sees one without a login."""
    uri = msgspec.structs.replace(choice.uri, type="private")
    try:
        return found(devices, msgspec.structs.replace(choice, uri=uri, pin_source=_NO_LOGIN), "private").key
    except KeyFault:
        return None


def _rules(devices: Devices, choice: DeviceChoice, there: FoundKey) -> tuple[KeyRules, ...]:
    """Return what the key table says that was named, and what any other one says that means the key."""
    key, _, slot = there
    every = halves.rules_for(devices.settings, devices.module(choice), slot, key.label, key.id)
    return named_first(choice.rules, every)
