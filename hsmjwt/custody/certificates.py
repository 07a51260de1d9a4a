"""Certificates of keys: signed by the device, put beside their key, found again."""

from __future__ import annotations

import os
import time
from collections import Counter

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices, open_signer
from hsmjwt.compose.halves import load_public_file
from hsmjwt.custody.keys import FoundKey
from hsmjwt.errors import KeyFault, KeyNotFoundError, KeyNotUniqueError, KeyUnfitError, UsageError
from hsmjwt.guard.policy import check_clock
from hsmjwt.hsm.certificates import CertificateObject, certificate_beside, find_certificates
from hsmjwt.hsm.uri import parse
from hsmjwt.jose.algorithms import Algorithm, by_default, preferred
from hsmjwt.jose.jws import OpenKey
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keyrules import known_alg
from hsmjwt.x509.certificate import read_chain
from hsmjwt.x509.chain import ordered
from hsmjwt.x509.request import Holder, Validity, certificate_to_sign, check_holder, request_to_sign, signed

DAYS = 365
"""How long a certificate is good where nobody says."""

USAGES = ("digitalSignature",)
"""What its key is for where nobody says."""

_MOST_DAYS = 36500
_BACKDATED = 300  # seconds that a certificate is good before it is made, for servers whose clocks are behind


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate or a request is to say; `subject` is RFC 4514 text, each of `san` one as `dns:example.com`.

    Raises UsageError for what none can say.
    """

    subject: str
    san: tuple[str, ...] = ()
    days: int = DAYS
    alg: str | None = None
    key_usage: tuple[str, ...] = USAGES

    def __post_init__(self) -> None:
        """Check all of it."""
        check_holder(self.holder)
        if not 1 <= self.days <= _MOST_DAYS:
            raise UsageError(
                f"a certificate is made for 1 to {_MOST_DAYS} days, and {self.days} are asked for",
                hint="consoles take a year or two; not_after in a key table ends a key's use whatever this says",
            )
        if self.alg is not None:
            known_alg(self.alg)

    @property
    def holder(self) -> Holder:
        """Whom it is about."""
        return Holder(self.subject, self.san, self.key_usage)


def self_signed(devices: Devices, choice: DeviceChoice, wanted: Wanted) -> bytes:
    """Return a certificate as DER that the chosen key issues to itself, good from five minutes ago.

    Raises what opening the key and signing raise, KeyUnfitError where the key does not fit the algorithm.
    """
    now = time.time()
    check_clock(now)
    opened = open_signer(devices, choice, "certificate", wanted.alg)
    alg = _algorithm(opened, wanted)
    serial = int.from_bytes(os.urandom(20), "big") >> 1 or 1  # 159 bits, positive (RFC 5280, section 4.1.2.2)
    validity = Validity(int(now) - _BACKDATED, int(now) + wanted.days * 86400)
    message = certificate_to_sign(wanted.holder, opened.signer.public_key, alg, serial, validity)
    return signed(message, alg, opened.signer.sign(message, alg))


def request(devices: Devices, choice: DeviceChoice, wanted: Wanted) -> bytes:
    """Return a request for a certificate (PKCS#10) as DER, which the chosen key signs; raises as `self_signed` does."""
    opened = open_signer(devices, choice, "request", wanted.alg)
    alg = _algorithm(opened, wanted)
    message = request_to_sign(wanted.holder, opened.signer.public_key)
    return signed(message, alg, opened.signer.sign(message, alg))


def _algorithm(opened: OpenKey, wanted: Wanted) -> Algorithm:
    named = () if wanted.alg is None else (wanted.alg,)
    return preferred(named, opened.algs) or by_default(opened.signer.public_key)


def certificate_of(devices: Devices, choice: DeviceChoice, there: FoundKey, public_key: PublicKey) -> list[bytes]:
    """Return the certificate of a key and the chain above it, leaf first; empty where there is none.

    It is what the key table names, a PEM file or a certificate on a token, else what lies beside the key on its token.
    Raises ConfigError for a file that cannot be read, KeyFault for a named one that is not there or of another key.
    """
    rules = choice.rules
    if rules.certificate is None:
        beside = certificate_beside(there.session, there.key, public_key)
        return [] if beside is None else [beside.der]
    if rules.certificate_file is not None:
        every = load_public_file(devices.settings, rules, "certificate", rules.certificate_file, read_chain)
    else:
        every = [_named(devices, choice, rules.certificate, there).der]
    try:
        chain = ordered(every, public_key)
    except UsageError as error:
        raise KeyUnfitError(f"'{rules.certificate}': {error.message}", hint=error.hint) from None
    if not chain:
        raise of_another_key(f"'{rules.certificate}', the key table's certificate,")
    return chain


def of_another_key(what: str) -> KeyFault:
    """Return the error for a certificate that does not hold the public key that it should."""
    return KeyUnfitError(
        f"{what} is a certificate of another key",
        hint="the public key in it must be the chosen key's: hsmjwt key export prints that one",
    )


def _named(devices: Devices, choice: DeviceChoice, named: str, there: FoundKey) -> CertificateObject:
    """Return the one certificate that a URI selects, on the key's own token or on another one, where nobody logs in."""
    uri = parse(named)
    elsewhere = msgspec.structs.replace(choice, uri=uri)
    its_slot = devices.module(elsewhere).find_token(uri)
    session = there.session
    if (its_slot.info.slot_id, its_slot.token) != (there.slot.info.slot_id, there.slot.token):
        session = devices.module(elsewhere).session(its_slot)
    assert its_slot.token is not None  # noqa: S101 - find_token returns no other
    return one_certificate(find_certificates(session, its_slot.token, uri), named, its_slot.needed_id)


def one_certificate(found: list[CertificateObject], named: str, slot_id: int | None) -> CertificateObject:
    """Return the only one; raises KeyNotFoundError and KeyNotUniqueError that quote the URI `named`."""
    if not found:
        raise KeyNotFoundError(
            f"no certificate fits '{named}'", hint="hsmjwt cert import puts one on the token, beside its key"
        )
    if len(found) > 1:
        uris = Counter(each.uri(slot_id) for each in found)
        message = f"{len(found)} certificates fit '{named}'"
        lines = sorted(uri for uri, number in uris.items() if number == 1)[:20]
        if len(lines) == len(uris):
            raise KeyNotUniqueError(message, hint="\n  ".join(("pick one of these:", *lines)))
        raise KeyNotUniqueError(
            f"{message}, and no URI tells some of them apart",
            hint="hsmjwt cert import --replace leaves a key the one it is given; others are for the token's own tool",
        )
    return found[0]
