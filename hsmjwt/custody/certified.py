"""Certificates that others made: put on the token beside their key, and told about."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hsmjwt import verify
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.certificates import certificate_of, of_another_key, one_certificate
from hsmjwt.custody.keys import FoundKey, found, half_of
from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, KeyNotFoundError, KeyUnfitError, UsageError
from hsmjwt.guard.policy import check_clock
from hsmjwt.hsm.certificates import CertificateObject, NewCertificate, find_certificates, store
from hsmjwt.hsm.objects import KeyObject, find_object
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.claims import rfc3339
from hsmjwt.jose.encoding import b64u_encode
from hsmjwt.jose.keys import HiddenKey, PublicKey
from hsmjwt.x509.certificate import Certificate, read
from hsmjwt.x509.chain import leaf_of, ordered
from hsmjwt.x509.der import armoured
from hsmjwt.x509.signature import signature_of

_DAY = 86400


class Imported(NamedTuple):
    """A certificate on the token: its URI, whether it is new there, what it took the place of, and who stayed out."""

    uri: str
    created: bool
    replaced: tuple[str, ...]
    left_out: tuple[str, ...]


def import_certificate(
    devices: Devices, choice: DeviceChoice, ders: Sequence[bytes], *, named: str, replace: bool = False
) -> Imported:
    """Put the chosen key's certificate on the token beside it, with its id and label; which one is told by the key.

    Raises KeyUnfitError where none of them, of `named`, is the key's; KeyFault for an expired one, and for another one
    that is there already unless `replace`.
    """
    now = time.time()
    check_clock(now)
    every = [read(der) for der in ders]
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    module.log_in(slot, devices.login(choice))
    session = module.session(slot, write=True)
    key = find_object(session, choice.uri.for_private(), slot.token, slot.needed_id)
    leaf = leaf_of(every, half_of(devices, choice, FoundKey(key, session, slot)))
    if leaf is None:
        raise of_another_key(named)
    _refuse_expired(leaf, now, devices.around.warn)
    with module.alone():  # or of two that start together both would find none there
        there = _beside(session, key)
        same = next((each for each in there if each.der == leaf.der), None)
        others = [each for each in there if each.der != leaf.der]
        if others and not replace:
            raise KeyFault(
                f"the key has a certificate already: {others[0].uri(slot.needed_id)}",
                hint="--replace puts this one in its place; nothing was changed",
            )
        uri = _stored(session, key, leaf, slot.needed_id) if same is None else same.uri(slot.needed_id)
        _remove(others, uri, slot.needed_id)
    left_out = tuple(each.subject for each in every if each is not leaf)
    return Imported(uri, same is None, tuple(each.uri(slot.needed_id) for each in others), left_out)


def _refuse_expired(leaf: Certificate, now: float, warn: Callable[[str], None]) -> None:
    if now > leaf.not_after:
        raise expired(leaf)
    if now < leaf.not_before:
        warn(f"warning: the certificate is not valid before {rfc3339(leaf.not_before)}")


def _beside(session: Any, key: KeyObject) -> list[CertificateObject]:
    """Return the certificates with the key's id; for a key without one, those with its label."""
    mark = KeyUri(id=key.id) if key.id else KeyUri(object=key.label)
    return find_certificates(session, key.token, mark) if mark.id or mark.object else []


def _stored(session: Any, key: KeyObject, leaf: Certificate, slot_id: int | None) -> str:
    subject, issuer, serial = leaf.fields
    new = NewCertificate(der=leaf.der, subject=subject, issuer=issuer, serial=serial)
    return store(session, key, new).uri(slot_id)


def _remove(others: Sequence[CertificateObject], uri: str, slot_id: int | None) -> None:
    """Take off the token what the new certificate replaces."""
    for other in others:
        try:
            other.destroy()
        except HsmjwtError as error:
            raise DeviceError(
                f"the new certificate is on the token, and the old one cannot be removed: {error.message}",
                hint=f"new: {uri}\n  old: {other.uri(slot_id)}",
                ckr=error.ckr,
            ) from None


def show_certificate(devices: Devices, choice: DeviceChoice) -> list[bytes]:
    """Return the certificate of the chosen key and the chain above it, as DER; of a certificate's own URI, that one.

    Logs in only where the key is not visible without. Raises KeyNotFoundError where there is none, KeyUnfitError where
    that with the key's id is another key's.
    """
    if choice.uri.type == "cert":
        der = _by_uri(devices, choice)
        _readable(der, choice)
        return [der]
    there = found(devices, choice, "public", "private")
    chain = _chain(devices, choice, there, half_of(devices, choice, there))
    if not chain:
        raise KeyNotFoundError(
            f"the key '{choice.uri.brief}' has no certificate",
            hint="hsmjwt cert import puts one on the token; cert self-signed and cert csr make one",
        )
    _readable(chain[0], choice)
    return chain


def _readable(der: bytes, choice: DeviceChoice) -> Certificate:
    """Read what a token gave; raises KeyUnfitError where it took what is no certificate."""
    try:
        return read(der)
    except UsageError as error:
        raise KeyUnfitError(
            f"the certificate of '{choice.uri.brief}' is damaged: {error.message}",
            hint="hsmjwt cert import --replace puts another one in its place",
        ) from None


def _chain(devices: Devices, choice: DeviceChoice, there: FoundKey, public_key: PublicKey) -> list[bytes]:
    """Return a key's certificate and the chain above it; raises KeyUnfitError where that with its id is another's."""
    chain = certificate_of(devices, choice, there, public_key)
    others = [] if chain else _beside(there.session, there.key)
    if others:
        raise of_another_key(f"'{others[0].uri(there.slot.needed_id)}', which has the key's id,")
    return chain


def certificate_state(
    devices: Devices, choice: DeviceChoice, there: FoundKey, known: PublicKey | HiddenKey
) -> str | None:
    """Return in words how a key's certificate stands, None where it has none.

    Raises KeyUnfitError for one of another key, KeyFault for one that is not valid now.
    """
    chain = [] if isinstance(known, HiddenKey) else _chain(devices, choice, there, known)
    if not chain:
        return None
    now, leaf = time.time(), _readable(chain[0], choice)
    if now > leaf.not_after:
        raise expired(leaf)
    if now < leaf.not_before:
        raise KeyFault(
            f"the certificate '{leaf.subject}' is not valid before {rfc3339(leaf.not_before)}",
            hint="is the clock right?",
        )
    above = f", and {len(chain) - 1} above it" if len(chain) > 1 else ""
    return f"'{leaf.subject}', of this key, valid until {rfc3339(leaf.not_after)}{above}"


def expired(leaf: Certificate) -> KeyFault:
    """Return the error for a certificate that has ended."""
    return KeyFault(
        f"the certificate '{leaf.subject}' expired on {rfc3339(leaf.not_after)}",
        hint="hsmjwt cert csr asks an authority for a new one, hsmjwt cert self-signed makes one",
    )


def _by_uri(devices: Devices, choice: DeviceChoice) -> bytes:
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    there = find_certificates(module.session(slot), slot.token, choice.uri)
    if not there:
        there = find_certificates(module.login(slot, devices.login(choice)), slot.token, choice.uri)
    module.settle()
    return one_certificate(there, choice.uri.brief, slot.needed_id).der


def with_own_first(devices: Devices, choice: DeviceChoice, ders: Sequence[bytes], *, named: str) -> list[bytes]:
    """Return certificates, of `named`, with the chosen key's own and the chain above it first, then the others.

    Raises KeyUnfitError where none of them is the key's.
    """
    own = ordered(ders, half_of(devices, choice, found(devices, choice, "public", "private")))
    if not own:
        raise of_another_key(named)
    return own + [der for der in ders if der not in own]


def about(der: bytes, now: float) -> dict[str, Any]:
    """Return what a certificate says, as JSON has it; `now` is Unix time."""
    said = read(der)
    key = said.public_key
    return {
        "subject": said.subject,
        "issuer": said.issuer,
        "serial": said.serial_hex,
        "not_before": rfc3339(said.not_before),
        "not_after": rfc3339(said.not_after),
        "days_left": math.floor((said.not_after - now) / _DAY),
        "valid": said.not_before <= now <= said.not_after,
        "san": list(said.san),
        "key_usage": list(said.key_usage),
        "extended_key_usage": list(said.purposes),
        "ca": said.authority,
        "key_type": said.key_type,
        "bits": None if key is None else key.bits,
        "signature_algorithm": said.signature_alg,
        "self_signed": is_self_signed(said),
        "sha256": said.sha256.hex(),
        "x5t#S256": b64u_encode(said.sha256),
        "subject_key_id": None if said.key_id is None else said.key_id.hex(),
        "authority_key_id": None if said.authority_key_id is None else said.authority_key_id.hex(),
        "pem": armoured("CERTIFICATE", der),
    }


def is_self_signed(certificate: Certificate) -> bool | None:
    """Tell whether a certificate is signed by the key in it; None where it says so with an algorithm unknown here."""
    if not certificate.self_signed:
        return False
    key = certificate.public_key
    signature = None if key is None else signature_of(certificate, key)
    if key is None or signature is None:
        return None
    try:
        return verify.valid(key, signature[0], certificate.signed, signature[1])
    except KeyUnfitError:  # numbers that are no key
        return False
