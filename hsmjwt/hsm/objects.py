"""Keys on a token: from a URI to exactly one object, from an object to what it says of itself.

Every value is checked before a search template is built: python-pkcs11 frees memory that it never filled where a value
of a template fails to pack, and the process dies. A label is packed by what never fails, besides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from hsmjwt.errors import HsmjwtError, KeyFault, KeyNotFoundError, KeyNotUniqueError, KeyUnfitError
from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import numbers, packed, unpacked
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct, Hand, Question
from hsmjwt.hsm.faults import UNTOLD, translated
from hsmjwt.hsm.uri import KeyType, KeyUri, TokenInfo, format_object_uri, hex_hint, parse
from hsmjwt.hsm.ways import Way
from hsmjwt.jose.keys import PublicKey

Kind = Literal["private", "public"]
Told = dict[str, Any]

_CLASSES: dict[Kind, int] = {
    "private": int(pkcs11.ObjectClass.PRIVATE_KEY),
    "public": int(pkcs11.ObjectClass.PUBLIC_KEY),
}
_KINDS: dict[Any, Kind] = {number: kind for kind, number in _CLASSES.items()}
_HALVED = ("rsa", "ec", "ed25519")  # the types whose public half is looked for
_SHOWN = 20  # candidates in a hint; a token may hold thousands

NAMES = ("LABEL", "ID")
"""The attributes that tell a key from another one of its kind."""

_NEWER = "ALLOWED_MECHANISMS"  # since PKCS#11 2.20: many a token does not know it
_TO_SIGN = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SIGN", "ALWAYS_AUTHENTICATE", _NEWER)
_ALL = (*_TO_SIGN, "SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL")
_ON_CURVES = frozenset({int(pkcs11.KeyType.EC), int(pkcs11.KeyType.EC_EDWARDS)})
_OF_CURVES = ("EC_PARAMS", "EC_POINT")  # asked of such keys alone: some tokens tell nothing where one is absent
_SEEN = ("CLASS", *_TO_SIGN)
_WHAT_IT_IS = Question(numbers(_SEEN), numbers(("MODULUS", "PUBLIC_EXPONENT", _NEWER)))
_ITS_CURVE = Question(numbers(_OF_CURVES), numbers(("EC_POINT",)))


class Held(pkcs11._pkcs11.SignMixin):  # type: ignore[name-defined,misc]  # noqa: SLF001 - the only way in
    """A private key by its number, in any session of its token.

    Such a number is good in all sessions of a process (PKCS#11 2.40, section 3.4, CK_OBJECT_HANDLE), and python-pkcs11
    makes its own object of one in no other session than that which found it.
    """

    session = handle = key_type = None  # in place of the properties that would ask its own object, or the token

    def __init__(self, session: Any, handle: int) -> None:
        """Take the key by its number; `session` is python-pkcs11's."""
        self.session, self.handle = session, handle


class KeyObject(msgspec.Struct, frozen=True):
    """A key on a token: `handle` is python-pkcs11's object or a Held, `about` what it says of itself, by name.

    An attribute that the token does not tell is absent from `about`. `hand` signs by the shorter road.
    """

    handle: Any
    about: Mapping[str, Any]
    token: TokenInfo
    kind: Kind
    hand: Hand | None = None

    @property
    def label(self) -> str | None:
        """Return the label; None where the token tells none. Bytes that are no UTF-8 come as lone surrogates."""
        label: str | None = self.about.get("LABEL")
        return label

    @property
    def id(self) -> bytes | None:
        """Return CKA_ID; None where the token tells none."""
        value: bytes | None = self.about.get("ID")
        return value

    @property
    def type(self) -> str | None:
        """Return `rsa`, `ec`, `ed25519`, another PKCS#11 name in lower case, or None."""
        return told.type_of(self.about)

    @property
    def bits(self) -> int | None:
        """Return the length of an RSA modulus, or the size of the curve's field, in bits; None for other keys."""
        return told.bits(self.about)

    @property
    def crv(self) -> str | None:
        """Return by its name in a JWK the curve of a key on one, None where it is none that is used here."""
        return told.curve_name(self.about)

    @property
    def allowed(self) -> frozenset[str] | None:
        """Return the mechanisms that the key allows, by name without CKM_.

        Empty where it allows all that its type does, None where the token does not tell.
        """
        return told.allowed(self.about)

    def uri(self, slot_id: int | None = None) -> str:
        """Return the full URI of this object."""
        return format_object_uri(self.token, label=self.label, id=self.id, type=self.kind, slot_id=slot_id)

    def public_key(self) -> PublicKey:
        """Return the public key that the object itself holds; raises KeyUnfitError where it does not."""
        return told.public_key(self.about)

    def sign(self, data: bytes, way: Way, pin: str | None = None) -> bytes:
        """Return what a way's mechanism makes of `data`; `pin` is for a key that asks for one at each use.

        The key is one that may sign, and in a session that nobody else uses meanwhile.
        """
        if pin is None and self.hand is not None:
            return self.hand.sign(data, way.number, way.parameter)
        mechanism, parameter = pkcs11.Mechanism(way.number), way.parameter or None
        with translated("C_SignInit or C_Sign" if pin is None else "C_SignInit, C_Login or C_Sign"):
            signature: bytes = self.handle.sign(data, mechanism=mechanism, mechanism_param=parameter, pin=pin)
        return signature

    def within(self, session: Any, direct: Direct | None) -> KeyObject:
        """Return the key as another session of the same token uses it, by the shorter road where `direct` offers it."""
        number = self.handle.handle
        hand = None if direct is None else direct.hand(session.handle, number)
        return msgspec.structs.replace(self, handle=Held(session, number), hand=hand)

    def rename(self, key_id: bytes) -> None:
        """Set CKA_ID."""
        with translated("C_SetAttributeValue"):
            self.handle[pkcs11.Attribute.ID] = key_id


def find_signing_key(
    session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None, *, direct: Direct | None
) -> KeyObject:
    """Return the one private key that the URI selects, with what signing needs to know of it.

    One search, by the shorter road where `direct` offers it. Raises KeyNotFoundError and KeyNotUniqueError with the
    candidates' URIs, KeyUnfitError where the URI asks for another kind of object.
    """
    if uri.type not in (None, "private"):
        raise KeyUnfitError(f"'{uri.brief}' does not name a private key", hint="leave type out, or write type=private")
    if direct is None:
        found = search(session, uri.for_private(), token, _TO_SIGN)
    else:
        found = _private(direct, session, uri, token)
    if len(found) != 1:
        raise _not_one(found, session, uri.for_private(), token, slot_id)
    return found[0]


def find_object(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyObject:
    """Return the one key, private or public, that the URI selects, with all that it says of itself.

    Raises KeyNotFoundError and KeyNotUniqueError with the candidates' URIs.
    """
    found = search(session, uri, token)
    if len(found) != 1:
        raise _not_one(found, session, uri, token, slot_id)
    return found[0]


def _not_one(found: list[KeyObject], session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyFault:
    return _several(uri, slot_id, found) if found else _none(session, uri, token, slot_id)


def search(session: Any, uri: KeyUri, token: TokenInfo, attributes: Iterable[str] = _ALL) -> list[KeyObject]:
    """Return the keys that the URI's object attributes select; none where it asks for what no key can have."""
    names, template = tuple(attributes), _template(uri, uri.type)
    if template is None:
        return []
    wanted = {pkcs11.Attribute[name]: value for name, value in template.items()}
    with translated("C_FindObjects"):
        handles = list(session.get_objects(wanted))  # to the end: the session does nothing else meanwhile
    found = []
    for handle in handles:
        kind = _KINDS.get(getattr(handle, "object_class", None))
        if kind is not None:
            key = KeyObject(handle, read_key(handle, names), token, kind)
            if uri.matches_object(key.label, key.id, kind):  # some tokens take a template as a hint
                found.append(key)
    return found


def _private(direct: Direct, session: Any, uri: KeyUri, token: TokenInfo) -> list[KeyObject]:
    """Search for private keys by the shorter road; what is found can sign, and nothing else."""
    template = _template(uri, "private")
    if template is None:
        return []
    found = []
    with translated("C_GetAttributeValue"):
        for number, values in direct.search(session.handle, packed(template), _WHAT_IT_IS):
            about = unpacked(_SEEN, values)
            fits = uri.matches_object(about.get("LABEL"), about.get("ID"), "private")
            if fits and about.pop("CLASS", None) == _CLASSES["private"]:
                if about.get("KEY_TYPE") in _ON_CURVES:
                    about |= unpacked(_OF_CURVES, direct.read(session.handle, number, _ITS_CURVE))
                found.append(KeyObject(Held(session, number), about, token, "private"))
    return found


def _template(uri: KeyUri, kind: KeyType | None) -> Told | None:
    """Return the template of a search for objects of a kind; None where the URI asks for what no key can have."""
    if uri.unknown or not _encodes(uri.object or ""):
        return None
    template: Told = {}
    if kind is not None:
        if kind != "private" and kind != "public":  # noqa: PLR1714 - the type checker follows this form alone
            return None
        template["CLASS"] = _CLASSES[kind]
    if uri.object is not None:
        template["LABEL"] = uri.object
    if uri.id is not None:
        template["ID"] = bytes(uri.id)
    return template


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_key(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    """Read a key's attributes by name, curve and point too where it turns out to have such."""
    about = read_attributes(handle, names)
    if about.get("KEY_TYPE") in _ON_CURVES:
        about |= read_attributes(handle, _OF_CURVES)
    return about


def read_attributes(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    """Read attributes by name; those that the token will not tell are left out."""
    wanted = tuple(names)
    for several in dict.fromkeys((wanted, tuple(name for name in wanted if name != _NEWER))):
        with _unless_untold():
            return _told_at_once(handle, several)
    about: dict[str, Any] = {}
    for name in wanted:
        with _unless_untold():
            about |= _told_at_once(handle, (name,))
    return about


def _told_at_once(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    wanted = {name: pkcs11.Attribute[name] for name in names}
    with translated("C_GetAttributeValue"):
        values = handle.get_attributes(list(wanted.values()))
    return {name: values[attribute] for name, attribute in wanted.items() if attribute in values}


@contextlib.contextmanager
def _unless_untold() -> Iterator[None]:
    """Pass over an answer that means: the token does not tell one of these attributes."""
    try:
        yield
    except HsmjwtError as error:
        if error.ckr not in UNTOLD:
            raise


def public_key_of(session: Any, key: KeyObject) -> PublicKey:
    """Return the public key that an object holds itself, else that of a private key's public half.

    Of an RSA key the private object tells it, and nothing is searched; of an EC key most tell the curve alone. Raises
    KeyUnfitError where it is told nowhere, or is none.
    """
    try:
        return key.public_key()
    except KeyUnfitError:
        half = _public_half(session, key) if key.kind == "private" and key.type in _HALVED else None
        if half is None:
            raise
        return half.public_key()


def _public_half(session: Any, key: KeyObject) -> KeyObject | None:
    """Return the public object of the same type and id, else the same label; None where there is not exactly one."""
    for mark in (KeyUri(type="public", id=key.id), KeyUri(type="public", object=key.label)):
        found = search(session, mark, key.token) if mark.id or mark.object else []
        found = [half for half in found if half.type == key.type]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _several(uri: KeyUri, slot_id: int | None, found: list[KeyObject]) -> KeyNotUniqueError:
    """Say that a URI is too wide, with URIs that select one key each; where there are none such, say that."""
    message = f"{len(found)} keys fit '{uri.brief}'"
    if all(_alone(key, found) for key in found[:_SHOWN]):
        return KeyNotUniqueError(message, hint=_listed("pick one of these:", found, slot_id))
    advice = "give one another label or id, for example with pkcs11-tool --set-id"
    return KeyNotUniqueError(
        f"{message}, and no URI tells some of them apart",
        hint=_listed(f"{advice}; these can be picked:", found, slot_id) or advice,
    )


def _none(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyNotFoundError:
    """Say that no key fits: which part of the URI is to blame, and what is there."""
    if uri.type == "private" and search(session, msgspec.structs.replace(uri, type="public"), token, NAMES):
        return KeyNotFoundError(
            f"only the public half of '{uri.brief}' is there: the token shows no private key for it",
            hint="the private key may be on another token, or visible only after a login (--pin-source)",
        )
    there = search(session, KeyUri(type="private"), token, NAMES)
    parts = (
        uri.unknown_hint(),
        hex_hint(uri),
        _listed("these private keys are on the token:", there, slot_id)
        or "the token shows no private key; hsmjwt key generate makes one, and a login may be needed (--pin-source)",
    )
    return KeyNotFoundError(
        f"no key fits '{uri.brief}' on token '{token.label}'", hint="; ".join(part for part in parts if part)
    )


def _listed(first: str, keys: list[KeyObject], slot_id: int | None) -> str:
    """Return a hint with the URIs that select one of these keys each, one a line; empty where there is none."""
    lines = sorted(key.uri(slot_id) for key in keys[:_SHOWN] if _alone(key, keys))
    if len(keys) > _SHOWN:
        lines.append(f"and {len(keys) - _SHOWN} more: hsmjwt key list shows all")
    return "\n  ".join((first, *lines)) if lines else ""


def _alone(key: KeyObject, keys: list[KeyObject]) -> bool:
    """Tell whether the key's own URI selects it and no other one."""
    own = parse(key.uri())
    return sum(own.matches_object(other.label, other.id, other.kind) for other in keys) == 1
