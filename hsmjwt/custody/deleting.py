"""Taking a key or a certificate off a token for good, once it is known who needs it and somebody has said yes."""

from __future__ import annotations

from typing import Any

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.compose.halves import tables_for
from hsmjwt.config import KeyTable, Settings
from hsmjwt.custody.certificates import one_certificate
from hsmjwt.custody.dependents import Dependents, dependents, refuse_protected
from hsmjwt.errors import HsmjwtError, UsageError
from hsmjwt.hsm.certificates import CertificateObject, find_certificates
from hsmjwt.hsm.deleting import Belongings, OnToken, belongings, destroy, refuse_lasting
from hsmjwt.hsm.listing import shown_label
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import NAMES, search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.keyrules import rules_of
from hsmjwt.x509.certificate import Certificate, read


class Doomed(msgspec.Struct, frozen=True):
    """A key that may be deleted: what belongs to it on its token, and who needs it."""

    belongings: Belongings
    needed_by: Dependents
    slot: Slot

    @property
    def label(self) -> str:
        """Return the key's label for a person; bytes that are no UTF-8 show as replaced."""
        return shown_label(self.belongings.key.label or "")

    @property
    def uri(self) -> str:
        """Return the key's URI."""
        return self.belongings.key.uri(self.slot.needed_id)

    @property
    def half(self) -> bool:
        """Tell whether only a public half is there."""
        return self.belongings.key.kind == "public"

    @property
    def certificates(self) -> tuple[str, ...]:
        """Return the URIs of the certificates beside the key."""
        return tuple(each.uri(self.slot.needed_id) for each in self.belongings.certificates)


def doomed_key(devices: Devices, choice: DeviceChoice) -> Doomed:
    """Find the one key that is chosen, with all that belongs to it; nothing is deleted.

    Raises KeyFault where it is not exactly one, PolicyError where its key table protects it, DeviceError where the
    token cannot be written or says that the key lasts; what a login raises.
    """
    module, slot, session = _opened(devices, choice)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    found = belongings(session, choice.uri, slot.token, slot.needed_id)
    tables = {}
    for half in found.keys:
        for table in tables_for(devices.settings, module, slot, half.label, half.id):
            tables[table.name] = table
    refuse_protected(list(tables.values()), found.key.uri(slot.needed_id), "deleted")
    for half in found.keys:
        refuse_lasting(half, slot.needed_id)
    return Doomed(found, dependents(devices.settings, list(tables.values())), slot)


def _opened(devices: Devices, choice: DeviceChoice) -> tuple[Module, Slot, Any]:
    """Return the module, the slot of the one token that is chosen, and a session there that is logged in and writes."""
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    module.log_in(slot, devices.login(choice))
    return module, slot, module.session(slot, write=True)


class DoomedCertificate(msgspec.Struct, frozen=True):
    """A certificate that may be deleted: what it says, None where it cannot be read, and who needs it.

    `keys` are the private keys of its id, which stay.
    """

    found: CertificateObject
    said: Certificate | None
    keys: tuple[str, ...]
    needed_by: Dependents
    slot: Slot

    @property
    def uri(self) -> str:
        """Return the certificate's URI."""
        return self.found.uri(self.slot.needed_id)

    @property
    def name(self) -> str:
        """Return what a person knows it by: its subject, where there is none its label."""
        return (self.said and self.said.subject) or shown_label(self.found.label or "")


def doomed_certificate(devices: Devices, choice: DeviceChoice) -> DoomedCertificate:
    """Find the one certificate that is chosen; nothing is deleted.

    Who needs it are the key tables that name it as their certificate, and those that mean a key of its label or id.
    Raises KeyFault where it is not exactly one, PolicyError where one of these tables protects it; else as
    `doomed_key` does.
    """
    module, slot, session = _opened(devices, choice)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    there = find_certificates(session, slot.token, choice.uri)
    found = one_certificate(there, choice.uri.brief, slot.needed_id)
    settings = devices.settings
    tables = {table.name: table for table in tables_for(settings, module, slot, found.label, found.id)}
    tables |= {table.name: table for table in _certified_by(settings, found, slot)}
    refuse_protected(list(tables.values()), found.uri(slot.needed_id), "deleted", of="certificate")
    refuse_lasting(found, slot.needed_id)
    beside = search(session, KeyUri(type="private", id=found.id), slot.token, NAMES) if found.id else []
    keys = tuple(key.uri(slot.needed_id) for key in beside)
    return DoomedCertificate(found, _read(found), keys, dependents(settings, list(tables.values())), slot)


def _certified_by(settings: Settings, found: CertificateObject, slot: Slot) -> list[KeyTable]:
    """Return the key tables whose `certificate` is this one."""
    tables = []
    for table in settings.keys.values():
        uri = rules_of(settings, table).certificate_uri
        if uri is None or not (uri.matches_token(found.token) and uri.matches_slot(slot.info)):
            continue
        if uri.matches_object(found.label, found.id, "cert"):
            tables.append(table)
    return tables


def _read(found: CertificateObject) -> Certificate | None:
    try:
        return read(found.der)
    except UsageError:
        return None


def delete_certificate(doomed: DoomedCertificate) -> list[str]:
    """Delete the certificate and return its URI; raises DeviceError where the token keeps it."""
    destroy(doomed.found, doomed.slot.needed_id)
    return [doomed.uri]


def delete_key(doomed: Doomed, *, certificates: bool) -> list[str]:
    """Delete the key, the private half first, and with `certificates` those beside it; return the URIs.

    A call that dies in between leaves what the next one for the same URI finds and deletes. Raises DeviceError where
    the token keeps something, and says what is gone by then.
    """
    gone: list[str] = []
    slot_id = doomed.slot.needed_id
    rest = doomed.belongings.certificates if certificates else ()
    every: tuple[OnToken, ...] = (*doomed.belongings.keys, *rest)
    for each in every:
        try:
            destroy(each, slot_id)
        except HsmjwtError as error:
            if not gone:
                raise
            hint = f"deleted by then: {', '.join(gone)}; run it again for the rest"
            raise type(error)(
                f"{error.message}; {each.uri(slot_id)} is still there", hint=hint, ckr=error.ckr
            ) from None
        gone.append(each.uri(slot_id))
    return gone
