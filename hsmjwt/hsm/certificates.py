"""Certificates on a token: found by URI or beside their key, stored, and taken off again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, UsageError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.creating import created
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import KeyObject, read_attributes
from hsmjwt.hsm.uri import KeyUri, TokenInfo, format_object_uri
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.certificate import Certificate, read
from hsmjwt.x509.chain import leaf_of
from hsmjwt.x509.public import load_certified

_READ = ("LABEL", "ID", "VALUE")


class CertificateObject(msgspec.Struct, frozen=True):
    """A certificate on a token: `handle` is python-pkcs11's object, `der` its bytes, which nobody has looked at."""

    handle: Any
    label: str | None
    id: bytes | None
    der: bytes
    token: TokenInfo

    def uri(self, slot_id: int | None = None) -> str:
        """Return the full URI of this object."""
        return format_object_uri(self.token, label=self.label, id=self.id, type="cert", slot_id=slot_id)

    def destroy(self) -> None:
        """Take it off the token; needs a session that may write."""
        with translated("C_DestroyObject"):
            self.handle.destroy()


def find_certificates(session: Any, token: TokenInfo, uri: KeyUri) -> list[CertificateObject]:
    """Return the X.509 certificates whose label and id the URI leaves, whatever type it names."""
    if uri.unknown:
        return []
    template: dict[Any, Any] = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
        pkcs11.Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
    }
    if uri.id is not None:
        template[pkcs11.Attribute.ID] = bytes(uri.id)
    with translated("C_FindObjects"):
        handles = list(session.get_objects(template))  # to the end: the session does nothing else meanwhile
    wanted = msgspec.structs.replace(uri, type=None)
    found = []
    for handle in handles:
        about = read_attributes(handle, _READ)
        label, key_id = about.get("LABEL"), about.get("ID")
        if about.get("VALUE") and wanted.matches_object(label, key_id, "cert"):
            found.append(CertificateObject(handle, label, key_id, about["VALUE"], token))
    return found


def certificates_beside(session: Any, key: KeyObject) -> Iterator[list[CertificateObject]]:
    """Yield the certificates with a key's id, then those with its label."""
    for mark in (KeyUri(id=key.id), KeyUri(object=key.label)):
        if mark.id or mark.object:
            yield find_certificates(session, key.token, mark)


def certificate_beside(session: Any, key: KeyObject, public_key: PublicKey) -> CertificateObject | None:
    """Return the certificate of a key: of those with its id, else its label, the one that is valid longest."""
    for found in certificates_beside(session, key):
        there = {each.der: each for each in found}
        leaf = leaf_of(_readable(there), public_key)
        if leaf is not None:
            return there[leaf.der]
    return None


def _readable(ders: Iterable[bytes]) -> Iterator[Certificate]:
    for der in ders:
        with contextlib.suppress(UsageError):
            yield read(der)


def is_of(der: bytes, public_key: PublicKey) -> bool:
    """Tell whether a certificate holds this public key; bytes that are no certificate hold none."""
    try:
        return load_certified(der) == public_key
    except UsageError:
        return False


class NewCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate's bytes, and what of them a token wants apart, each as DER (PKCS#11 2.40, section 4.6.3)."""

    der: bytes
    subject: bytes
    issuer: bytes
    serial: bytes


def store(session: Any, key: KeyObject, new: NewCertificate) -> CertificateObject:
    """Write a certificate beside a key, with its label and id, where anybody may see it.

    The session may write and is logged in. Raises DeviceError where the token keeps something else; that is removed.
    """
    attribute = pkcs11.Attribute
    template = {
        attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE,
        attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
        attribute.TOKEN: True,
        attribute.PRIVATE: False,
        attribute.LABEL: key.label or "",
        attribute.ID: key.id or b"",
        attribute.SUBJECT: new.subject,
        attribute.ISSUER: new.issuer,
        attribute.SERIAL_NUMBER: new.serial,
        attribute.VALUE: new.der,
    }
    handle = created(session, template)
    about = read_attributes(handle, _READ)
    made = CertificateObject(handle, about.get("LABEL"), about.get("ID"), about.get("VALUE", b""), key.token)
    if made.der != new.der:
        fault = DeviceError("the token did not keep the certificate as it was given", hint="nothing was kept")
        try:
            made.destroy()
        except HsmjwtError:
            fault.hint = f"what it kept is still there: {made.uri()}"
        raise fault
    return made
