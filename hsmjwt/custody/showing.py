"""What the token says of one key, for its custodian: where it came from, what it may do, which certificate it has."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.keys import FoundKey, algorithms, found, half_of
from hsmjwt.errors import KeyUnfitError, UsageError
from hsmjwt.hsm import facts, listing
from hsmjwt.hsm.certificates import CertificateObject, certificates_beside
from hsmjwt.hsm.objects import public_key_of
from hsmjwt.jose.claims import rfc3339
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509 import certificate as x509
from hsmjwt.x509.public import spki_sha256

_USES = ("sign", "sign_recover", "decrypt", "unwrap", "derive", "verify", "encrypt", "wrap")
_STATED = ("curve", "always_sensitive", "modifiable", "key_gen_mechanism", "allowed_mechanisms")
_MORE = (*_STATED, "usage", "origin", "algorithms", "certificate", "thumbprint", "spki_sha256")


def show_key(devices: Devices, choice: DeviceChoice) -> dict[str, Any]:
    """Return what the token says of one key, with the members of a listing's row; what it will not tell is None.

    Logs in only where the key is not visible without.
    """
    there = found(devices, choice, "private")
    module = devices.module(choice)
    shown = listing.row(there.key, there.session, there.slot.needed_id, module.library.direct) | dict.fromkeys(_MORE)
    if there.key.kind == "private":
        stated = facts.of_key(module, there.slot, there.session, there.key).stated
        shown |= {name: stated.get(name) for name in _STATED}
        shown["usage"] = [name for name in _USES if stated.get(name)]
        shown["origin"] = _origin(stated)
    with contextlib.suppress(KeyUnfitError):  # a type that is not used here, or a half that is not there
        public = half_of(devices, choice, there)
        shown["thumbprint"] = thumbprint(public)
        shown["spki_sha256"] = spki_sha256(public).hex()
        shown["certificate"] = _certificate(there, public, told_by_key=_tells(there))
        if there.key.kind == "private":
            fitting = algorithms(there.key, public, module.mechanisms(there.slot))
            shown["algorithms"] = [alg.name for alg in fitting] if there.key.about.get("SIGN") else []
    return shown


def _origin(stated: facts.Stated) -> str | None:
    """Say where a key was born (PKCS#11 2.40, section 4.4: CKA_LOCAL, and what was never otherwise since then)."""
    if stated["local"] is None:
        return None
    if not stated["local"]:
        return "imported"
    if stated["always_sensitive"] is False or stated["never_extractable"] is False:
        return "born on the device, which may have let it out since"
    return "born on the device"


def _tells(there: FoundKey) -> bool:
    """Tell whether the key objects show the public half; else a certificate may, and says nothing of the key itself."""
    try:
        public_key_of(there.session, there.key)
    except KeyUnfitError:
        return False
    return True


def _certificate(there: FoundKey, public: PublicKey, *, told_by_key: bool) -> dict[str, Any] | None:
    """Return what is to be known of the certificate that lies beside the key, its own one before another key's.

    Whether it matches is None where the public half is known from the certificate, or from a file, alone.
    """
    key, now = there.key, time.time()
    beside = (each for found in certificates_beside(there.session, key) for each in found)
    told = [_told(each, there.slot.needed_id, public, now) for each in beside]
    own = min(told, key=lambda each: not each["matches"], default=None)
    return own if own is None or told_by_key else {**own, "matches": None if own["matches"] else False}


def _told(found: CertificateObject, slot_id: int | None, public: PublicKey, now: float) -> dict[str, Any]:
    about: dict[str, Any] = {"uri": found.uri(slot_id), "subject": None, "issuer": None, "not_after": None}
    try:
        read = x509.read(found.der)
    except UsageError:
        return {**about, "expired": None, "matches": False}
    about |= {"subject": read.subject, "issuer": read.issuer, "not_after": rfc3339(read.not_after)}
    return {**about, "expired": now > read.not_after, "matches": read.public_key == public}
