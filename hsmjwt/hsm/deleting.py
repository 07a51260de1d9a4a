"""Finds what belongs to one key on a token, and takes it off: both halves, and the certificates beside them."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple, Protocol

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm.certificates import CertificateObject, find_certificates, is_of
from hsmjwt.hsm.creating import UNSAID
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import KeyObject, find_object, read_attributes, search
from hsmjwt.hsm.uri import KeyUri, TokenInfo


class Belongings(NamedTuple):
    """What belongs to one key: `keys` are its halves, the private one first; one of them may be missing."""

    keys: tuple[KeyObject, ...]
    certificates: tuple[CertificateObject, ...]

    @property
    def key(self) -> KeyObject:
        """Return the private half, the public one where there is no other."""
        return self.keys[0]


class OnToken(Protocol):
    """An object on a token."""

    @property
    def handle(self) -> Any:
        """Return python-pkcs11's object."""

    def uri(self, slot_id: int | None = None) -> str:
        """Return the full URI."""


def belongings(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> Belongings:
    """Return what belongs to the one key that the URI selects, in a session that is logged in.

    Without a private half it is the public half that is left, or was alone from the start. Raises KeyNotFoundError and
    KeyNotUniqueError with the candidates' URIs; KeyUnfitError for another kind of object, and for the public half of a
    key that is whole.
    """
    if uri.type not in (None, "private", "public"):
        raise KeyUnfitError(
            f"'{uri.brief}' does not name a key or a certificate",
            hint="leave type out for a key, or write type=public or type=cert",
        )
    if uri.type == "public":
        return _public_alone(session, find_object(session, uri, token, slot_id), slot_id)
    try:
        private = find_object(session, msgspec.structs.replace(uri, type="private"), token, slot_id)
    except KeyNotFoundError:
        left = search(session, msgspec.structs.replace(uri, type="public"), token)
        if len(left) != 1:
            raise
        return _public_alone(session, left[0], slot_id)
    public = _halves(session, private)
    return Belongings((private, *public), _certificates(session, private, public))


def _public_alone(session: Any, public: KeyObject, slot_id: int | None) -> Belongings:
    for private in search(session, KeyUri(type="private"), public.token):
        if any(half.uri() == public.uri() for half in _halves(session, private)):
            raise KeyUnfitError(
                f"this is the public half of a key that is whole: {private.uri(slot_id)}",
                hint="name that one, and both halves are deleted",
            )
    return Belongings((public,), _certificates(session, public, (public,)))


def _halves(session: Any, private: KeyObject) -> tuple[KeyObject, ...]:
    """Return the public objects that are this key's and no other one's: of the same id, or the label where none is."""
    mark = KeyUri(id=private.id) if private.id else KeyUri(object=private.label)
    if not (mark.id or mark.object):
        return ()
    alike = search(session, mark, private.token)
    if not private.id:
        alike = [key for key in alike if not key.id]
    public = [key for key in alike if key.kind == "public" and key.type == private.type]
    with contextlib.suppress(KeyUnfitError):  # of a key on a curve the private object tells no point
        own = private.public_key()
        public = [half for half in public if half.public_key() == own]
    if sum(key.kind == "private" for key in alike) > 1:
        public = [half for half in public if half.label == private.label]
    return tuple(public)


def _certificates(session: Any, key: KeyObject, public: tuple[KeyObject, ...]) -> tuple[CertificateObject, ...]:
    """Return the certificates with the key's id that are of this key, as far as its public half is known."""
    if not key.id:
        return ()
    found = find_certificates(session, key.token, KeyUri(id=key.id))
    known = []
    for half in (key, *public):
        with contextlib.suppress(KeyUnfitError):
            known.append(half.public_key())
    return tuple(each for each in found if not known or is_of(each.der, known[0]))


def destroy(each: OnToken, slot_id: int | None) -> None:
    """Take an object off the token, in the session that found it; raises DeviceError where the token keeps it."""
    try:
        with translated("C_DestroyObject"):
            each.handle.destroy()
    except HsmjwtError as error:
        if error.ckr in UNSAID:
            hint = "it may not be writable; hsmjwt doctor looks at each step"
            raise DeviceError(error.message, hint=hint, ckr=error.ckr) from None
        if error.ckr not in ("CKR_ACTION_PROHIBITED", "CKR_FUNCTION_REJECTED"):
            raise
        raise _kept(each, slot_id, f"C_DestroyObject gave {error.ckr}", error.ckr) from None


def refuse_lasting(each: OnToken, slot_id: int | None) -> None:
    """Raise DeviceError for an object that says itself that it cannot be destroyed, before anything is."""
    if read_attributes(each.handle, ("DESTROYABLE",)).get("DESTROYABLE") is False:
        raise _kept(each, slot_id, "its CKA_DESTROYABLE is false", None)


def _kept(each: OnToken, slot_id: int | None, why: str, ckr: str | None) -> DeviceError:
    return DeviceError(
        f"the token does not let it be deleted ({why}): {each.uri(slot_id)}",
        hint="initialising the token anew removes it, with everything else on it",
        ckr=ckr,
    )
